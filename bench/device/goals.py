"""What the GPU is meant to reach, and whether a run did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

Case = dict[str, Any]
Row = dict[str, Any]

LARGE, PAIR, OF_RANDOM = 1.2, 1.35, 1.3
LARGE_ROWS = ("dense, out=", "dense=False", "dense=False, download_")
MICROSECONDS = {
    (10, 1_000_000): ("dense, out=", 45),
    (10, 104_242): ("graph replay: dense, out=", 20),
}
TIMES_LOOP, TIMES_PYTORCH = 20, 4
NODES, EXTRA_MB = 6, 64


class Goal(NamedTuple):
    """A bound and what was measured."""

    case: str
    what: str
    bound: float
    value: float
    unit: str = ""
    above: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.above else self.value <= self.bound

    @property
    def limit(self) -> str:
        return f"{'≥' if self.above else '≤'} {self.bound:g}{self.unit}"


def _rows(case: Case) -> dict[str, Row]:
    return {row["what"]: row for row in case["rows"] if "median" in row}


def _size(case: Case) -> int:
    return int(case["n"] * case["d"] * {"float64": 8, "float32": 4}.get(case["dtype"], 2))


def _reward_step(case: Case) -> Iterator[Goal]:
    rows = _rows(case)
    for what in LARGE_ROWS:
        if what in rows and "of_floor" in rows[what]:
            if case["n"] >= 8 and _size(case) >= 1e9:
                yield Goal(case["name"], f"{what}, of floor", LARGE, rows[what]["of_floor"])
            elif case["n"] == 2 and case["d"] >= 10**9:
                yield Goal(case["name"], f"{what}, of floor", PAIR, rows[what]["of_floor"])
    what, bound = MICROSECONDS.get((case["n"], case["d"]), ("", 0))
    if what in rows:
        yield Goal(case["name"], what, bound, rows[what]["median"] * 1e6, " µs")
    for what, taken in case.get("footprint", {}).items():
        most = 4 * case["d"] / 1e6 + EXTRA_MB
        yield Goal(case["name"], f"{what}, extra memory", round(most, 1), taken["extra_bytes"] / 1e6, " MB")
        yield Goal(case["name"], f"{what}, graph nodes", NODES, len(taken["nodes"]))


def _ops(case: Case) -> Iterator[Goal]:
    row = _rows(case).get("download_", {})
    if "of_floor" in row and case["n"] >= 8 and _size(case) >= 1e9:
        yield Goal(case["name"], "download_, of floor", LARGE, row["of_floor"])


def _adversarial(case: Case) -> Iterator[Goal]:
    for what, row in _rows(case).items():
        if what not in ("random", "copy") and "of_base" in row:
            yield Goal(case["name"], f"{what}, of random", OF_RANDOM, row["of_base"])


def _peers(case: Case) -> Iterator[Goal]:
    times = {what: row["of_base"] for what, row in _rows(case).items() if "of_base" in row}
    loop = [times.pop(what) for what in list(times) if "paper-literal" in what]
    others = [ratio for what, ratio in times.items() if "PyTorch" in what or "torch.compile" in what]
    if loop and case["n"] >= 10:
        yield Goal(case["name"], "faster than the paper-literal loop", TIMES_LOOP, loop[0], " ×", above=True)
    if others and case["n"] == 10:
        yield Goal(case["name"], "faster than the best PyTorch", TIMES_PYTORCH, min(others), " ×", above=True)


GOALS = {"reward_step": _reward_step, "ops": _ops, "adversarial": _adversarial, "peers": _peers}


def check(cases: list[Case]) -> list[Goal]:
    """All goals that these cases measured."""
    return [goal for case in cases for goal in GOALS[case["step"]](case)]
