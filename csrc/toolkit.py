"""Where the CUDA toolkit is: for setup.py and cuda_check.py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path


def find_toolkit() -> tuple[Path, str] | None:
    """Return (CUDA_HOME, version) of the first CUDA toolkit that has nvcc and headers.

    nvcc on the PATH may be a wrapper far from its toolkit: only nvcc itself knows where that is (TOP).
    """
    candidates = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    nvcc = shutil.which("nvcc")
    if nvcc:
        dry = subprocess.run([nvcc, "--dryrun", "-c", "x.cu"], capture_output=True, text=True, check=False)
        candidates += re.findall(r"^#\$ TOP=(.+)$", dry.stderr, re.MULTILINE)
        candidates.append(Path(nvcc).parent.parent)
    candidates.append("/usr/local/cuda")
    for home in [Path(candidate).resolve() for candidate in candidates if candidate]:
        header = home / "include/cuda_runtime_api.h"
        if header.exists() and (home / "bin/nvcc").exists():
            number = int(re.search(r"define CUDART_VERSION\s+(\d+)", header.read_text(errors="replace"))[1])
            return home, f"{number // 1000}.{number % 1000 // 10}"
    return None
