"""Any runs, put where tables look for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from ..experiment import Experiment
from ..record import Run
from ..summary import changes, federation, label, order, pair, title
from .text import count_of_seeds

Pair: TypeAlias = tuple[Run, Run | None]
"""A run and the standalone run of the same federation and seed, if there is one."""
Column: TypeAlias = dict[str, list[Pair]]
"""By label of the mechanism; a pair for each seed."""


class Group(NamedTuple):
    """All that one table is about: a dataset and an N."""

    title: str
    """Such as ``digits, N = 5``, and what every federation in it sets otherwise than its preset."""
    columns: dict[str, Column]
    """By name of the federation, such as ``POW``."""


def by_size(runs: Iterable[Run], *, standalone: bool) -> list[Group]:
    """Return the groups in which there is something, in the order of the paper's tables.

    Parameters
    ----------
    runs : iterable of Run
        Of any experiments, mechanisms and seeds.
    standalone : bool
        Whether standalone runs are a mechanism like the others, or serve for comparison only.
    """
    found: dict[tuple[str, int], dict[Experiment, Column]] = {}
    for run, alone in pair(sorted(runs, key=order)):
        if standalone or run.mechanism != "standalone":
            e = federation(run)
            column = found.setdefault((e.dataset, e.agents), {}).setdefault(e, {})
            column.setdefault(label(run), []).append((run, alone))
    return [_group(dataset, agents, columns) for (dataset, agents), columns in found.items()]


def _group(dataset: str, agents: int, columns: dict[Experiment, Column]) -> Group:
    own = {e: changes(e) for e in columns}
    first = next(iter(own.values()))
    shared = [change for change in first if all(change in each for each in own.values())]
    names = {e: [title(e), *(change for change in each if change not in shared)] for e, each in own.items()}
    return Group(
        ", ".join([dataset, f"N = {agents}", *shared]),
        {", ".join(names[e]): column for e, column in columns.items()},
    )


def seeds(columns: Iterable[Column]) -> str:
    """Say how many seeds a number is the mean of."""
    return count_of_seeds(len(pairs) for column in columns for pairs in column.values())
