"""What the numbers were measured on."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import torch

import cgsv_ext

ROOT = Path(__file__).resolve().parent.parent


def _cpu() -> str:
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return model[1].strip() if model else "unknown CPU"


def _caches() -> dict[str, str]:
    """Level and type to size, of the first core."""
    folders = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"))
    read = [{name: (f / name).read_text().strip() for name in ("level", "type", "size")} for f in folders]
    return {f"L{cache['level']} {cache['type'].lower()}": cache["size"] for cache in read}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _commit() -> str | None:
    commit = _git("rev-parse", "--short=12", "HEAD")
    return f"{commit} and changes" if commit and _git("status", "--porcelain", "-uno") else commit


def describe() -> dict[str, object]:
    """Model, cores, caches, memory, software and date; nothing that names one machine."""
    built = cgsv_ext.build_info()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "isa": built["isa"],
        "caches": _caches(),
        "memory_gib": round(memory / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "compiler": built["compiler"],
        "cgsv_ext": built["version"],
        "commit": _commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "OMP_PROC_BIND": os.environ.get("OMP_PROC_BIND"),
        "THP_MEM_ALLOC_ENABLE": os.environ.get("THP_MEM_ALLOC_ENABLE"),
    }


def slug(machine: dict[str, object]) -> str:
    """A file name."""
    name = f"{machine['cpu']} {machine['threads']} threads {machine['isa']}".lower()
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")
