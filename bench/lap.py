"""Time what has to be done in order, as parts of one round."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any


class Lap:
    """Times the parts of something that has to be done in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def __call__(self, what: str, call: Callable[[], object]) -> None:
        start = perf_counter()
        call()
        self.seconds.setdefault(what, []).append(perf_counter() - start)

    def rows(self, nbytes: dict[str, int]) -> list[dict[str, Any]]:
        return [
            {
                "what": what,
                "min": min(times),
                "median": median(times),
                "rounds": len(times),
                "bytes": nbytes.get(what, 0),
            }
            for what, times in self.seconds.items()
        ]
