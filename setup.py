"""Compile `cgsv_ext._C`; everything else about the package is in pyproject.toml.

Decisions, and why:

* csrc/build.json is the only list of sources (relative to csrc/), defines and flags. CMakeLists.txt reads it
  too, so the ctest executables test what is shipped.
* The torch that compiles is the torch that will run: the environment's own. An isolated build hides it, so
  `reveal_environment` looks it up; fetching another one would cost gigabytes.
* Only the stable ABI: libtorch_python is not linked, and `TORCH_TARGET_VERSION` keeps every header to what
  torch 2.10 had. One build therefore loads under any later torch.
* No `-std`: torch 2.10 wants C++17, 2.13 wants C++20, and BuildExtension knows which. No `-march`: the core
  chooses its instruction set at run time.
* pip's pybind11 stands first in the include path: copies bundled with older torches refuse
  `TORCH_TARGET_VERSION`.

Environment: `CGSV_CUDA` = auto (default: on when torch is a CUDA build and a matching toolkit with headers is
found), 0 or 1; `TORCH_CUDA_ARCH_LIST`; `CUDA_HOME`; `MAX_JOBS`.

What `build_info()` reports reaches C++ as defines: CGSV_VERSION, CGSV_TORCH_VERSION, CGSV_CUDA (1 if this
build holds CUDA kernels, else 0), CGSV_CUDA_VERSION and CGSV_CUDA_ARCHS ("" or like "13.0", "9.0+PTX").
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "csrc"))
from toolkit import find_toolkit  # noqa: E402  (csrc/toolkit.py, which the builder's path lacks)

BUILD = json.loads((ROOT / "csrc/build.json").read_text())
VERSION = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]

# One entry a generation and PTX for what comes after: few, because each is compiled separately.
DEFAULT_ARCHS = "7.5;8.0;9.0+PTX"


def reveal_environment() -> None:
    """Append the environment's own import path, which an isolated build hides.

    Asking the interpreter, started without the builder's variables, covers virtual environments, .pth files
    and user installs alike. What isolation brought stays in front.
    """
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONNOUSERSITE")}
    command = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.path[1:]))"]
    paths = json.loads(subprocess.check_output(command, env=env))
    sys.path += [path for path in paths if path not in sys.path]


def import_torch():
    """Return torch, or stop with the command to run when there is none that will do."""
    reveal_environment()
    try:
        import torch
    except ImportError as error:
        found = f"no torch ({error})"
    else:
        if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 10):
            return torch
        found = f"torch {torch.__version__}"
    sys.exit(
        f"cgsv_ext: expected torch >= 2.10 in the environment it is built for, got {found}.\n"
        f"Python: {sys.executable}\n"
        "Run:\n"
        '  pip install "torch>=2.10"\n'
        "  pip install .\n"
        "If torch is there and the build tool hides it:\n"
        "  pip install setuptools wheel ninja pybind11\n"
        "  pip install --no-build-isolation .\n"
    )


def check_headers() -> None:
    """Stop with the command to run when Python's own headers are missing: some systems package them apart."""
    folder = Path(sysconfig.get_path("include"))
    if not (folder / "Python.h").exists():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        sys.exit(
            f"cgsv_ext: expected Python.h in {folder}, got none. Run:\n"
            f"  apt-get install python{version}-dev    # Debian, Ubuntu\n"
            f"  dnf install python{version}-devel      # Fedora, RHEL"
        )


def pybind11_include() -> str:
    """Return the include folder of pip's pybind11."""
    try:
        import pybind11
    except ImportError:
        sys.exit("cgsv_ext: expected pybind11, got none. Run:\n  pip install setuptools wheel ninja pybind11")
    return pybind11.get_include()


def choose_cuda(torch) -> tuple[Path, str] | None:
    """Return the toolkit to build CUDA kernels with, or None; CGSV_CUDA=1 stops with the reason instead."""
    wanted = os.environ.get("CGSV_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        sys.exit(f"cgsv_ext: expected CGSV_CUDA=auto, 0 or 1, got {wanted!r}")
    if wanted == "0":
        return None
    toolkit = find_toolkit()
    if torch.version.cuda is None:
        reason = f"torch {torch.__version__} is built without CUDA: install a CUDA build of torch"
    elif toolkit is None:
        reason = "no CUDA toolkit with nvcc and cuda_runtime_api.h was found: install one or set CUDA_HOME"
    elif toolkit[1].split(".")[0] != torch.version.cuda.split(".")[0]:
        reason = (
            f"torch uses CUDA {torch.version.cuda}, {toolkit[0]} holds {toolkit[1]}: set CUDA_HOME to a match"
        )
    else:
        return toolkit
    if wanted == "1":
        sys.exit(f"cgsv_ext: CGSV_CUDA=1, but {reason}, or set CGSV_CUDA=0.")
    print(f"cgsv_ext: building for the CPU only; {reason}.")
    return None


def put_ninja_on_path() -> None:
    """Let BuildExtension find pip's ninja when the environment's bin folder is not on the PATH."""
    try:
        import ninja
    except ImportError:
        return
    os.environ["PATH"] += os.pathsep + ninja.BIN_DIR


def extension(torch) -> Extension:
    """Describe `cgsv_ext._C` to setuptools."""
    core, binding = BUILD["core"], BUILD["torch"]
    sources = core["cpu"] + binding["common"] + binding["cpu"]
    toolkit = choose_cuda(torch)
    cuda_sources = core["cuda"] + binding["cuda"] if toolkit else []
    defines = BUILD["defines"] | {
        "CGSV_VERSION": f'"{VERSION}"',
        "CGSV_TORCH_VERSION": f'"{torch.__version__}"',
        "CGSV_CUDA": str(int(bool(cuda_sources))),
        "CGSV_CUDA_VERSION": '""',
        "CGSV_CUDA_ARCHS": '""',
    }
    if cuda_sources:
        # Before cpp_extension is imported: it reads CUDA_HOME once. Without an architecture list it compiles
        # for the GPUs in sight, and fails where there are none.
        os.environ["CUDA_HOME"] = str(toolkit[0])
        archs = os.environ.setdefault("TORCH_CUDA_ARCH_LIST", DEFAULT_ARCHS)
        # USE_CUDA reveals the CUDA part of the stable shim.
        defines |= {"USE_CUDA": "1", "CGSV_CUDA_VERSION": f'"{toolkit[1]}"', "CGSV_CUDA_ARCHS": f'"{archs}"'}

    from torch.utils.cpp_extension import include_paths, library_paths

    # Not CppExtension or CUDAExtension: they link libtorch_python, and the latter refuses a CPU-only torch.
    device = "cuda" if cuda_sources else "cpu"
    # Torch's headers are system headers, so that every warning is about this project.
    system = [flag for path in include_paths(device) for flag in ("-isystem", path)]
    return Extension(
        name="cgsv_ext._C",
        sources=[f"csrc/{source}" for source in sources + cuda_sources],
        include_dirs=[pybind11_include(), str(ROOT / "csrc")],
        library_dirs=library_paths(device),
        libraries=["torch_cpu", "torch_cuda", "cudart"] if cuda_sources else ["torch_cpu"],
        define_macros=list(defines.items()),
        extra_compile_args={compiler: flags + system for compiler, flags in BUILD["flags"].items()},
        language="c++",
    )


torch = import_torch()
check_headers()
put_ninja_on_path()
extensions = [extension(torch)]

from torch.utils.cpp_extension import BuildExtension  # noqa: E402  (CUDA_HOME is set by now)

setup(license="Apache-2.0", ext_modules=extensions, cmdclass={"build_ext": BuildExtension})
