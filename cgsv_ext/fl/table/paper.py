"""Tables 1 to 3."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from ..metrics import fairness, final_accuracy
from ..record import Run
from .groups import Pair, by_size, seeds
from .text import Table, or_undefined, seconds, with_error

Cell: TypeAlias = Callable[[Sequence[Pair]], str]
"""What a table says of one mechanism in one federation: of a run for each seed."""


def table_1(runs: Iterable[Run]) -> list[Table]:
    """Average (maximum) test accuracy over the agents, in per cent."""

    def cell(pairs: Sequence[Pair]) -> str:
        accuracies = [100 * final_accuracy(run) for run, _ in pairs]
        average = with_error([each.mean().item() for each in accuracies])
        return f"{average} ({with_error([each.max().item() for each in accuracies])})"

    return _tables("Table 1: average (maximum) test accuracy of the agents, %", runs, cell)


def table_2(runs: Iterable[Run]) -> list[Table]:
    """Fairness ρ: the mean of the seeds on which it is defined, the others counted."""

    def cell(pairs: Sequence[Pair]) -> str:
        found = [fairness(run, alone) for run, alone in pairs if alone is not None]
        return or_undefined(found) if len(found) == len(pairs) else _NOTHING

    return _tables("Table 2: fairness ρ", runs, cell, standalone=False)


def table_3(runs: Iterable[Run]) -> list[Table]:
    """Seconds a mechanism takes beside training, with their ratio to the training time.

    Counted are its steps and the downloads of all rounds. The last rows say what training took: as it was
    run, and, where that was timed, as a plain loop over the agents; the ratio to that comes second. They are
    means over all mechanisms and seeds, and have no error: one plain loop is timed for many runs.
    """

    def cell(pairs: Sequence[Pair]) -> str:
        overhead = [overhead_seconds(run) for run, _ in pairs]
        ratios = [
            f"{sum(overhead) / sum(run.seconds[kind] for run, _ in pairs):.2g}"
            for kind in _TRAINING.values()
            if all(run.seconds.get(kind) for run, _ in pairs)
        ]
        return f"{seconds(overhead)} ({'; '.join(ratios)})"

    def training(kind: str) -> Cell:
        def cell(pairs: Sequence[Pair]) -> str:
            known = [run.seconds[kind] for run, _ in pairs if run.seconds.get(kind)]
            return f"{math.fsum(known) / len(known):.3g}" if known else _NOTHING

        return cell

    title = "Table 3: time overhead, s (its ratio to training as run; to a plain loop over the agents)"
    last = {name: training(kind) for name, kind in _TRAINING.items()}
    note = (
        "Of training, means over all runs of a column, of every mechanism and seed; a plain loop is timed "
        "once by each process, for all its runs."
    )
    return _tables(title, runs, cell, standalone=False, last=last, note=note)


def overhead_seconds(run: Run) -> float:
    """What a run spent on its mechanism's steps and the downloads, in all rounds."""
    return run.seconds["reward"] + run.seconds["download"]


_NOTHING = "–"
_TRAINING = {"training as run": "training", "training, plain loop": "plain loop"}
"""Rows of Table 3, and where a run keeps the time."""


def _tables(
    title: str,
    runs: Iterable[Run],
    cell: Cell,
    *,
    standalone: bool = True,
    last: Mapping[str, Cell] | None = None,
    note: str = "",
) -> list[Table]:
    """One table per dataset and N: mechanisms in the rows, federations in the columns.

    ``last`` are further rows, of all runs in a column; ``note`` comes after the count of seeds.
    """
    tables = []
    for group in by_size(runs, standalone=standalone):
        columns = group.columns.values()
        rows = [
            [name, *(cell(column[name]) if name in column else _NOTHING for column in columns)]
            for name in dict.fromkeys(itertools.chain.from_iterable(columns))
        ]
        for name, of_all in (last or {}).items():
            rows.append(
                [name, *(of_all([p for pairs in column.values() for p in pairs]) for column in columns)]
            )
        text = f"{seeds(columns)} {note}".rstrip()
        tables.append(Table(f"{title}; {group.title}", ["mechanism", *group.columns], rows, text))
    return tables
