"""Take each barrier out of the CUDA kernels in turn, and expect a test of the race flavour to fail.

A removal that none of a file's tests notices is a barrier that is not needed, or a test that is: the exit
status is then 1. Builds in build/barriers. Names of files, "select.cu", limit it to theirs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
WORK = ROOT / "build/barriers"
KERNELS = Path("csrc/core/cuda")
BARRIER = "__syncthreads();"
LONGEST = 600
"""Seconds for a test; one that hangs has noticed, too."""

# The tests that launch a file's kernels, those that notice soonest first.
TESTS = {
    "aggregate.cu": ["reward_step", "aggregate"],
    "download.cu": ["download"],
    "gram.cu": ["gram"],
    "histogram.cu": ["agreement", "partial"],
    "reward_step.cu": ["reward_step"],
    "select.cu": ["agreement", "select"],
    "sums.cuh": ["pack", "reward_step"],
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """What a command says, which ends with this process when that is stopped."""
    env = os.environ | {"CGSV_TEST_ONCE": "1"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=LONGEST)


def build(*targets: str) -> None:
    """Build, or stop with what the compiler says."""
    done = run("cmake", "--build", str(WORK / "build"), "--parallel", "2", "--target", *targets)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def notices(test: str) -> str:
    """What a test says first when it fails; nothing when it passes."""
    try:
        done = run(str(WORK / "build" / f"simt_{test}_race"))
    except subprocess.TimeoutExpired:
        return "does not end"
    if done.returncode == 0:
        return ""
    said = (done.stderr + done.stdout).strip().splitlines()
    return next((line for line in said if "race" in line or "barrier" in line), said[0] if said else "dies")


def barriers(only: list[str]) -> Iterator[tuple[str, int]]:
    """Every barrier, as a file and the number of a line."""
    for path in sorted((ROOT / KERNELS).iterdir()):
        lines = path.read_text().splitlines()
        yield from (
            (path.name, i)
            for i, line in enumerate(lines, 1)
            if line.strip() == BARRIER and (not only or path.name in only)
        )


def bring(path: Path) -> None:
    """Copy a source where it has changed, as of now: what was built of it may be later than the original."""
    copy = WORK / "source" / path.relative_to(ROOT)
    copy.parent.mkdir(parents=True, exist_ok=True)
    if not copy.exists() or copy.read_bytes() != path.read_bytes():
        copy.write_bytes(path.read_bytes())


def main(only: list[str]) -> int:
    """Print a line for each barrier, and how many none noticed."""
    bring(ROOT / "CMakeLists.txt")
    for path in filter(Path.is_file, (ROOT / "csrc").rglob("*")):
        bring(path)
    done = run("cmake", "-S", str(WORK / "source"), "-B", str(WORK / "build"))
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    found = list(barriers(only))
    tests = sorted({test for name, _ in found for test in TESTS[name]})
    build(*(f"simt_{test}_race" for test in tests))
    if said := [f"{test}: {words}" for test in tests if (words := notices(test))]:
        sys.exit("With every barrier in place:\n" + "\n".join(said))

    unnoticed = 0
    for name, line in found:
        path = WORK / "source" / KERNELS / name
        whole = path.read_text()
        lines = whole.splitlines(keepends=True)
        lines[line - 1] = lines[line - 1].replace(BARRIER, ";")
        path.write_text("".join(lines))
        try:
            build("simt_core_race")
            by = next(((test, words) for test in TESTS[name] if (words := notices(test))), None)
        finally:
            path.write_text(whole)
        unnoticed += by is None
        test, words = by or ("none", "NOT NOTICED")
        print(f"{name}:{line}".ljust(20), test.ljust(12), re.sub(r"\s+", " ", words)[:90], flush=True)
    build("simt_core_race")
    print(f"{len(found)} barriers, {unnoticed} not noticed")
    return int(unnoticed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
