"""How long the device takes for a call that finds its caches cold."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import torch

Call = Callable[[], object]

AHEAD = 400_000
"""Cycles, some 0.2 ms, that the device waits, for a host that is slow to enqueue what comes then."""


class HostClock:
    """Wall-clock time: for the CPU, where the tables are tried out, not measured."""

    def synchronize(self) -> None:
        """Nothing runs on by itself."""

    def time(self, call: Call, warm: bool = False) -> float:
        """Seconds of one call."""
        start = perf_counter()
        call()
        return perf_counter() - start


class Flush:
    """Empties the L2 cache by reading far more memory than it holds.

    Nothing of a call's inputs is left in it, and no line that is yet to be written back, which a flush by
    writing would leave for the call to pay for.
    """

    def __init__(self) -> None:
        cache = torch.cuda.get_device_properties().L2_cache_size
        self._memory = torch.ones(4096, max(1 << 29, 8 * cache) // 16384, device="cuda")

    def __call__(self) -> None:
        self._memory.amax(dim=1)


class CudaClock:
    """CUDA events around one call.

    The host enqueues the call while the device still waits and flushes, so that launches are not timed
    unless they outlast that.
    """

    def __init__(self) -> None:
        self._flush = Flush()
        self._start, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def synchronize(self) -> None:
        """Wait until all is done."""
        torch.cuda.synchronize()

    def time(self, call: Call, warm: bool = False) -> float:
        """Seconds of one call; a warm one finds what the call before it left."""
        torch.cuda._sleep(AHEAD)
        if warm:
            call()
        else:
            self._flush()
        self._start.record()
        call()
        self._end.record()
        self._end.synchronize()
        return float(self._start.elapsed_time(self._end)) / 1e3


Clock = HostClock | CudaClock


def clock_for(device: torch.device) -> Clock:
    return CudaClock() if device.type == "cuda" else HostClock()


def summary(samples: list[float]) -> dict[str, Any]:
    """Median, least, and the quartiles' distance as a share of the median."""
    middle = median(samples)
    spread = 0.0
    if len(samples) > 1:
        low, _, high = quantiles(samples, n=4, method="inclusive")
        spread = (high - low) / middle
    return {"median": middle, "min": min(samples), "spread": spread, "rounds": len(samples)}
