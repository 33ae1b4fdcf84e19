"""What measured times depend on, and rounding does."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

import cgsv_ext


def environment() -> dict[str, str]:
    """What numbers depend on beside the settings."""
    return {
        "processor": _processor(),
        "threads": "1",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cgsv_ext": cgsv_ext.__version__,
        "instruction set": str(cgsv_ext.build_info()["isa"]),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
