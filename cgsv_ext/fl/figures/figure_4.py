"""Figure 4: the importance r_{i,t} of agents 1 and 3 of three over rounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.figure import Figure

from ..record import Run
from ..spec import Spec
from .curve import Curve
from .three_agents import AGENTS, three_agents_curves, three_agents_draw, three_agents_specs

TITLE = "Importance of agents 1 and 3 of three"
CAPTION = "Moving average of each agent's contribution, normalised to a sum of 1; dotted: equal shares."


def specs(dataset: str = "digits", seeds: Iterable[int] = range(2021, 2026), **changes: Any) -> list[Spec]:
    """List the runs the figure needs."""
    return three_agents_specs(dataset, seeds, **changes)


def curves(runs: Sequence[Run]) -> list[Curve]:
    """Return the means over seeds, a panel for each partition that has runs."""
    return three_agents_curves(runs, "importance")


def draw(runs: Sequence[Run]) -> Figure:
    """Draw what :func:`curves` found."""
    figure, panels = three_agents_draw(curves(runs), TITLE, "importance r$_{i,t}$", sharey=True)
    for axes in panels:
        axes.axhline(1 / AGENTS, color="black", linewidth=0.8, linestyle=(0, (1, 3)))
    return figure
