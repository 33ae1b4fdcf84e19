"""What to read beside ρ, which hides agents who lose by taking part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from ..metrics import Correlations, Theorem2, correlations, gain, theorem_2
from ..record import Run
from .groups import by_size, seeds
from .text import Table, or_undefined, with_error

Known: TypeAlias = Sequence[tuple[Run, Run]]
"""Runs of one mechanism in one federation, each with its standalone run."""


def fairness(runs: Iterable[Run]) -> list[Table]:
    """Gains and losers, what importance goes along with, and Theorem 2: for every dataset and N."""
    tables = []
    for group in by_size(runs, standalone=False):
        for title, head, cells, note in _TABLES:
            rows = []
            for partition, column in group.columns.items():
                for name, pairs in column.items():
                    known = [(run, alone) for run, alone in pairs if alone is not None]
                    found = cells(known) if known else None
                    if found:
                        rows.append([partition, name, *found])
            if rows:
                note = f"{note} {seeds(group.columns.values())}"
                tables.append(Table(f"{title}; {group.title}", ["partition", "mechanism", *head], rows, note))
    return tables


def _gains(pairs: Known) -> list[str]:
    gains = [gain(run, alone) for run, alone in pairs]
    return [
        with_error([100 * each.mean for each in gains]),
        with_error([100 * each.spread for each in gains]),
        with_error([each.losers for each in gains]),
    ]


def _correlations(pairs: Known) -> list[str] | None:
    """None for a mechanism that has no importance, as below."""
    if all(run.importance.isnan().any() for run, _ in pairs):
        return None
    last = [correlations(run.importance[-1:], run, alone) for run, alone in pairs]
    mean = [correlations(run.importance, run, alone) for run, alone in pairs]

    def cell(found: Sequence[Correlations], name: str) -> str:
        return or_undefined([getattr(each, name) for each in found], 2)

    return [
        *(cell(last, name) for name in ("accuracy", "training")),
        *(cell(mean, name) for name in ("accuracy", "training", "closeness", "standalone")),
    ]


def _theorem_2(pairs: Known) -> list[str] | None:
    counts = [found for run, _ in pairs if (found := theorem_2(run)) is not None]
    if not counts:
        return None
    c = Theorem2(*map(sum, zip(*counts, strict=True)))
    shares = [
        (c.condition, c.pairs),
        (c.conclusion_if_condition, c.condition),
        (c.conclusion_if_more_important, c.more_important),
    ]
    return [f"{100 * part / whole:.1f} %" if whole else "–" for part, whole in shares]


_TABLES: list[tuple[str, list[str], Callable[[Known], list[str] | None], str]] = [
    (
        "Gain over standalone, points of accuracy",
        ["mean", "spread", "losers"],
        _gains,
        "Mean and standard deviation over the agents; losers: how many agents end with less than alone.",
    ),
    (
        "Correlation of importance with …",
        ["r_T: accuracy", "r_T: −loss", "r: accuracy", "r: −loss", "r: closeness", "r: standalone"],
        _correlations,
        "Pearson's, over the agents, of r_T, importance at the end, and r, its mean over rounds; with "
        "accuracy, negative training loss, negative distance from the server's model, and accuracy alone.",
    ),
    (
        "Theorem 2",
        ["condition", "conclusion then", "conclusion if r_i ≥ r_i'"],
        _theorem_2,
        "How often, over rounds and ordered pairs of agents, its condition holds, and its conclusion: where "
        "the condition does, and where its first half does. By clean test loss, all seeds together.",
    ),
]
"""Title, head, cells and note."""
