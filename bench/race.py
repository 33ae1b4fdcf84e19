"""Time several functions in turn, so that a ratio of two compares them under the same conditions.

Machines are shared and change speed from one second to the next. Blocks of rounds of one function, then of
another, would measure the machine; here every round runs each once, the slow ones in some rounds only.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

SHORT = 1e-3
"""Seconds: a shorter call is preceded by an untimed one, to find the caches as its own kind leaves them."""


class Entrant(NamedTuple):
    """One function to time, and the bytes it would have to move."""

    what: str
    call: Callable[[], object]
    nbytes: int = 0


class Race:
    """The fixture: `race(case, entrants)` times them all; the first is the one pytest-benchmark reports."""

    def __init__(self, benchmark: BenchmarkFixture, quick: bool) -> None:
        self._benchmark = benchmark
        self._budget, self._least, self._most = (0.2, 1, 300) if quick else (0.7, 2, 2000)

    def __call__(self, case: dict[str, Any], entrants: list[Entrant], base: str | None = None) -> None:
        """Record a row for each entrant; `base` names the one that the others are compared to (the first)."""
        estimates = [self._warm_up(entrant) for entrant in entrants]
        rounds = [self._rounds(seconds) for seconds in estimates]
        total = rounds[0]
        samples: list[list[float]] = [[] for _ in entrants]
        done = 0

        def others() -> None:
            nonlocal done
            for i in range(len(entrants) - 1, 0, -1):
                share = min(rounds[i], total)
                if (done + 1) * share // total > done * share // total:
                    samples[i].append(_timed(entrants[i], estimates[i] < SHORT))
            done += 1
            if estimates[0] < SHORT:
                entrants[0].call()

        self._benchmark.pedantic(entrants[0].call, setup=others, rounds=total)
        if self._benchmark.stats is None:
            pytest.skip("benchmarks are disabled")
        samples[0] = list(self._benchmark.stats.stats.data)
        self._benchmark.extra_info["case"] = {**case, "base": base or entrants[0].what}
        self._benchmark.extra_info["rows"] = [
            {
                "what": entrant.what,
                "min": min(times),
                "median": median(times),
                "rounds": len(times),
                "bytes": entrant.nbytes,
            }
            for entrant, times in zip(entrants, samples, strict=True)
        ]

    def _warm_up(self, entrant: Entrant) -> float:
        """Seconds a call takes, the first one apart where there is time for more."""
        first = _timed(entrant)
        return first if first > 0.2 else min(_timed(entrant) for _ in range(2 if first > 0.01 else 10))

    def _rounds(self, seconds: float) -> int:
        return min(self._most, max(self._least, ceil(self._budget / seconds)))


def _timed(entrant: Entrant, warm: bool = False) -> float:
    if warm:
        entrant.call()
    start = perf_counter()
    entrant.call()
    return perf_counter() - start
