"""Memory that a dense step takes beyond its inputs and `out`: the growth of a fresh process's peak."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import LARGE, MIDDLE, PAIR, TALL, Size, importance, sizes, updates
from pytest_benchmark.fixture import BenchmarkFixture


@pytest.mark.parametrize("size", sizes([MIDDLE], [LARGE, TALL, PAIR]), ids=Size.label)
def bench_memory(size: Size, benchmark: BenchmarkFixture) -> None:
    command = [sys.executable, __file__, str(size.n), str(size.d), str(torch.get_num_threads())]

    def measure() -> int:
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    benchmark.extra_info["case"] = size.case("memory")
    benchmark.extra_info["extra_bytes"] = benchmark.pedantic(measure)


def _status(field: str) -> int:
    """Bytes, of this process."""
    found = re.search(rf"^{field}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


def _growth(size: Size) -> int:
    """The peak of all the process's life above what is resident before the step: no less than it took."""
    from cgsv_ext import reward_step

    small = Size(size.n, 1000)
    reward_step(updates(small), importance(small.n))
    x, r, out = updates(size), importance(size.n), torch.zeros(size)
    out.fill_(1)
    before = _status("VmRSS")
    step = reward_step(x, r, out=out)
    assert step.rewards is out
    return _status("VmHWM") - before


if __name__ == "__main__":
    n, d, threads = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    print(_growth(Size(n, d)))
