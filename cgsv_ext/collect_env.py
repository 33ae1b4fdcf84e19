"""Print what a bug report needs: `python -m cgsv_ext.collect_env`, or `cgsv env`.

The report is wanted most when something does not load, so each part is collected on its own and one that
fails never hides the others.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from . import _load

PACKAGES = [
    "cgsv_ext",
    "numpy",
    "safetensors",
    "pybind11",
    "ninja",
    "scikit-learn",
    "scipy",
    "matplotlib",
    "pillow",
    "rich",
    "jinja2",
    "flwr",
]
VARIABLES = re.compile(
    r"(CGSV|TORCH|PYTORCH|ATEN|CUDA|NVIDIA|OMP|GOMP|KMP|MKL|THP|MALLOC)_.*|LD_PRELOAD|LD_LIBRARY_PATH|PYTHONPATH"
)


def _extension() -> dict[str, object]:
    if _load.library is None:
        return {"extension": "does not load, see the end"}
    built = {f"extension {name}": value for name, value in _load.build_info().items()}
    return {"extension": _load.library.__file__, **built}


def _torch() -> dict[str, object]:
    import torch

    return {
        "torch": torch.__version__,
        "torch CUDA": torch.version.cuda,
        "torch CPU capability": torch.backends.cpu.get_cpu_capability(),
        "torch threads": f"{torch.get_num_threads()} intra-op, {torch.get_num_interop_threads()} inter-op",
    }


def _gpus() -> dict[str, object]:
    import torch

    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {"GPUs": [f"{gpu.name} (sm_{gpu.major}{gpu.minor})" for gpu in gpus] or None}


def _cpu() -> dict[str, object]:
    text = Path("/proc/cpuinfo").read_text()
    fields = dict(re.findall(r"^(.+?)\s*: (.*)$", text, re.MULTILINE))
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return {
        "CPU": fields.get("model name"),
        "CPU cores": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}",
        "CPU vector extensions": [flag for flag in flags if re.match(r"avx|fma$|f16c|amx|sve|asimd", flag)],
    }


def _distribution() -> dict[str, object]:
    return {"distribution": platform.freedesktop_os_release()["PRETTY_NAME"]}


def _system() -> dict[str, object]:
    return {"system": platform.platform(), "glibc": platform.libc_ver()[1]}


def _python() -> dict[str, object]:
    return {"python": f"{platform.python_version()} ({platform.python_implementation()}, {sys.executable})"}


def _packages() -> dict[str, object]:
    installed = {
        package.name.lower().replace("_", "-"): package.version for package in metadata.distributions()
    }
    return {name: installed.get(name.replace("_", "-")) for name in PACKAGES}


def _variables() -> dict[str, object]:
    return {name: os.environ[name] for name in sorted(os.environ) if VARIABLES.fullmatch(name)}


PARTS = [_extension, _torch, _gpus, _cpu, _distribution, _system, _python, _packages, _variables]


def report() -> Iterator[tuple[str, str]]:
    """Yield (name, value) for each line of the report."""
    for part in PARTS:
        try:
            values = part()
        except Exception as failure:
            values = {part.__name__.strip("_"): f"not available ({failure!r})"}
        for name, value in values.items():
            yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def main() -> None:
    """Print the report; the reason why the library does not load comes last, in full."""
    for name, value in report():
        print(f"{name + ':':28} {value}")
    if _load.error is not None:
        print(f"\n{_load.explain(_load.error)}")


if __name__ == "__main__":
    main()
