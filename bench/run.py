"""Run the benchmarks, write bench/results/<machine>.json and .md, print the latter.

Run as a script (`python bench/run.py`): the repository's root must not be on Python's path, where the source
folder would hide the installed package.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def keep_freed_memory() -> None:
    """Let glibc reuse blocks above 32 MB, as if all results, the peers' too, were preallocated.

    Otherwise each call pays the operating system for fresh pages, up to as much time as it takes itself.
    """
    mmap_threshold, trim_threshold = -3, -1
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure cgsv_ext against plain PyTorch.")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds, under a minute")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder to write to")
    parser.add_argument("--only", default="", help='a part, as pytest -k takes it: "gram or shapley"')
    arguments = parser.parse_args()

    keep_freed_memory()
    # A thread that moves to another core leaves its cache behind. Read when torch is loaded.
    os.environ.setdefault("OMP_PROC_BIND", "true")
    import machine
    import pytest
    import report

    described = machine.describe()
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "raw.json")
        quick = ["--quick"] if arguments.quick else []
        part = ["-k", arguments.only] if arguments.only else []
        status = pytest.main([str(HERE), f"--benchmark-json={raw}", *quick, *part])
        if not raw.exists():
            return int(status) or 1
        results = report.trim(json.loads(raw.read_text()), described)

    arguments.out.mkdir(parents=True, exist_ok=True)
    name = "-".join([machine.slug(described), *["quick"] * arguments.quick, *arguments.only.split(" or ")])
    name = name.rstrip("-")
    text = report.markdown(results)
    arguments.out.joinpath(f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    arguments.out.joinpath(f"{name}.md").write_text(text)
    print(text)
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
