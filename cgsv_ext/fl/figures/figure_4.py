"""Figure 4: the importance r_{i,t} of agents 1 and 3 of three over rounds."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from ..record import Run
from .curve import Curve
from .three_agents import AGENTS, curves_of, draw_panels, specs

__all__ = ["CAPTION", "TITLE", "curves", "draw", "specs"]

TITLE = "Importance of agents 1 and 3 of three"
CAPTION = "Moving average of each agent's contribution, normalised to a sum of 1; dotted: equal shares."


def curves(runs: Sequence[Run]) -> list[Curve]:
    """Return the means over seeds, a panel for each partition that has runs."""
    return curves_of(runs, "importance")


def draw(runs: Sequence[Run]) -> Figure:
    """Draw what :func:`curves` found."""
    figure, panels = draw_panels(curves(runs), TITLE, "importance r$_{i,t}$", sharey=True)
    for axes in panels:
        axes.axhline(1 / AGENTS, color="black", linewidth=0.8, linestyle=(0, (1, 3)))
    return figure
