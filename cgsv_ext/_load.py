"""Load the compiled library `cgsv_ext._C`, or be able to say why it does not load.

Importing this module never fails: `python -m cgsv_ext.collect_env` must run, and report the reason, exactly
when the library does not load. Whoever needs the library calls `require()` first.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

REBUILD = "pip install --no-build-isolation --no-deps --force-reinstall ."

# (pattern in the loader's own words, likely cause, command that mends it), the likeliest cause first.
CAUSES = [
    (
        r"No module named 'torch'|torch \S+ is older",
        "There is no torch in this environment, or one older than 2.10.",
        'pip install "torch>=2.10"',
    ),
    (
        r"No module named 'numpy'",
        "There is no numpy in this environment.",
        "pip install numpy",
    ),
    (
        r"No module named 'cgsv_ext\._C'",
        "The source folder hides the installed package: start Python elsewhere, or install in place.",
        "pip install --no-build-isolation -e .",
    ),
    (
        r"No module named 'cgsv_ext\._C'",
        "The extension was not compiled for this Python.",
        REBUILD,
    ),
    (
        r"libcudart|libtorch_cuda|libc10_cuda",
        "The extension was built with CUDA, and this torch has none or another version of it.",
        REBUILD,
    ),
    (
        r"undefined symbol|libtorch_cpu",
        "This torch lacks what the extension was built against.",
        f'pip install --upgrade "torch>=2.10" && {REBUILD}',
    ),
    (
        r"GLIBC|CXXABI|invalid ELF header|wrong ELF class",
        "The extension was compiled on another kind of machine.",
        REBUILD,
    ),
]


def explain(error: Exception) -> str:
    """Return the text of the ImportError: what happened, the likely causes, the command that mends each."""
    here = Path(__file__).parent
    built = sorted(path.name for path in here.glob("_C*.so")) or ["none"]
    matching = [cause for cause in CAUSES if re.search(cause[0], str(error))]
    lines = [
        f"cgsv_ext: the compiled library did not load: {error}",
        f"Python: {sys.version.split()[0]} ({sys.executable}); libraries in {here}: {', '.join(built)}",
        "Likely causes, and the command that mends each (run in the source folder of cgsv_ext):",
    ]
    for _, cause, command in matching or CAUSES:
        lines += [f"  - {cause}", f"      {command}"]
    lines.append("`python -m cgsv_ext.collect_env` prints what a bug report needs.")
    return "\n".join(lines)


def _load() -> tuple[ModuleType | None, Exception | None]:
    try:
        # The library finds libtorch among what is already loaded. The package needs numpy, torch does not.
        import numpy  # noqa: F401  (only to know whether it is there)
        import torch

        if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 10):
            raise ImportError(f"torch {torch.__version__} is older than 2.10")
        return importlib.import_module("cgsv_ext._C"), None
    except (ImportError, OSError) as failure:
        return None, failure


library, error = _load()


def require() -> ModuleType:
    """Return the compiled library.

    Raises
    ------
    ImportError
        If it did not load; the message names the likely causes and the command that mends each.
    """
    if library is None:
        assert error is not None
        raise ImportError(explain(error), name="cgsv_ext._C") from error
    return library


def build_info() -> dict[str, Any]:
    """Return how the compiled library was built and which instruction set it chose.

    Raises
    ------
    ImportError
        If the library did not load.
    """
    info: dict[str, Any] = require().build_info()
    return info
