"""What the reward step, the valuation and the server are meant to reach on 2 cores, and whether a run did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

Results = dict[str, Any]
Race = dict[str, Any]

BROADCAST = ("PyTorch, one sort, broadcast mask",)
ONE_SORT = (*BROADCAST, "PyTorch, one sort", "torch.compile, one sort")
"""The fastest of these counts."""
PAPER_LOOP = ("PyTorch, paper-literal loop",)

LARGE_FLOOR = {"10 × 4,200,000": 1.2, "10 × 10,000,000": 1.2, "100 × 1,000,000": 1.2, "1000 × 100,000": 1.2}
FLOORS = LARGE_FLOOR | {"2 × 16,800,000": 1.4}
MILLISECONDS = {"10 × 104,242": 0.2, "5 × 21,840": 0.05}
TIMES_ONE_SORT = dict.fromkeys(LARGE_FLOOR, 25.0)
TIMES_PAPER_LOOP = {"10 × 4,200,000": 100.0, "10 × 104,242": 150.0}
OF_RANDOM, BF16_OF_F32 = 1.5, 0.85
UPLOAD_OF_COPY = 1.5
PACK_OF_COPY = 1.5
GRAM_OF_NORMS = {"10 × 4,200,000": 1.3}
SHAPLEY_MILLISECONDS = {
    ("20 × 1,024", "exact"): 2.0,
    ("24 × 1,024", "exact"): 40.0,
    ("30 × 1,024", "exact"): 4000.0,
    ("20 × 1,024", "sampled, 150 permutations"): 2.0,
}


class Target(NamedTuple):
    """A bound and what was measured, by minima and by medians."""

    size: str
    what: str
    bound: float
    least: float
    middle: float
    unit: str = ""
    above: bool = False

    @property
    def limit(self) -> str:
        return f"{'≥' if self.above else '≤'} {self.bound:g}{self.unit}"

    def show(self, value: float) -> str:
        return f"{value:.3g}{self.unit}"

    @property
    def verdict(self) -> str:
        met = [v >= self.bound if self.above else v <= self.bound for v in (self.least, self.middle)]
        return "yes" if all(met) else "by minima" if met[0] else "by medians" if met[1] else "no"


def dense_races(results: Results) -> list[Race]:
    return [race for race in results["races"] if race["step"] == "reward_step" and race["dtype"] == "float32"]


def best_ratio(race: Race, names: tuple[str, ...], kind: str) -> float:
    """How many times faster the step is than the fastest of these rows."""
    return min(float(row[f"of_base_{kind}"]) for row in race["rows"] if row["what"] in names)


def _dense(race: Race) -> Iterator[Target]:
    size, step = race["size"], race["rows"][0]
    if size in FLOORS:
        yield Target(size, "of floor", FLOORS[size], step["of_floor_min"], step["of_floor_median"])
    if size in MILLISECONDS:
        least, middle = step["min"] * 1e3, step["median"] * 1e3
        yield Target(size, "time", MILLISECONDS[size], least, middle, " ms")
    for bounds, names, what in (
        (TIMES_ONE_SORT, BROADCAST, "faster than one sort, broadcast mask"),
        (TIMES_ONE_SORT, ONE_SORT, "faster than one sort, its fastest form"),
        (TIMES_PAPER_LOOP, PAPER_LOOP, "faster than the paper-literal loop"),
    ):
        if size in bounds:
            least, middle = best_ratio(race, names, "min"), best_ratio(race, names, "median")
            yield Target(size, what, bounds[size], least, middle, " ×", above=True)


def _valuation(race: Race) -> Iterator[Target]:
    size = race["size"]
    for row in race["rows"]:
        bound = SHAPLEY_MILLISECONDS.get((size, row["what"])) if race["step"] == "shapley" else None
        if bound is not None:
            yield Target(size, row["what"], bound, row["min"] * 1e3, row["median"] * 1e3, " ms")
    if race["step"] == "gram" and size in GRAM_OF_NORMS:
        row = race["rows"][0]
        yield Target(
            size, "gram, of one read", GRAM_OF_NORMS[size], row["of_base_min"], row["of_base_median"]
        )


def check(results: Results) -> list[Target]:
    """All targets that the run has measured."""
    found = [target for race in dense_races(results) for target in _dense(race)]
    for race in results["races"]:
        row = race["rows"][0]
        ratios = row["of_base_min"], row["of_base_median"]
        if race["step"] == "adversarial":
            found.append(Target(race["size"], f"{race['kind']}, of random", OF_RANDOM, *ratios))
        found += _valuation(race)
        if race["step"] == "pack_row_":
            what = f"pack_row_, {race['dtype']} {race['kind']}, of copy_ part by part"
            found.append(Target(race["size"], what, PACK_OF_COPY, *ratios))
        if race["step"] == "upload" and race["dtype"] == "float32":
            found.append(Target(race["size"], "upload, of a plain copy", UPLOAD_OF_COPY, *ratios))
        if race["step"] == "reward_step" and race["dtype"] == "bfloat16":
            found.append(Target(race["size"], "bfloat16, of float32", BF16_OF_F32, *ratios))
    for case in results["memory"]:
        extra, bound = case["bytes"] / 2**20, case["d"] * 4 / 2**20 + 16
        found.append(Target(case["size"], "extra memory, dense", round(bound, 1), extra, extra, " MiB"))
    return found
