"""Figure 5: how far the downloads of agents 1 and 3 of three are from the aggregate."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from ..record import Run
from .curve import Curve
from .three_agents import curves_of, draw_panels, specs

__all__ = ["CAPTION", "TITLE", "curves", "draw", "specs"]

TITLE = "Distance of downloads from the aggregate, agents 1 and 3 of three"
CAPTION = (
    "ℓ2 distance of what an agent downloads in a round from the whole aggregate; 0 is all of it. "
    "Every panel has its own scale."
)


def curves(runs: Sequence[Run]) -> list[Curve]:
    """Return the means over seeds, a panel for each partition that has runs."""
    return curves_of(runs, "reward_distance")


def draw(runs: Sequence[Run]) -> Figure:
    """Draw what :func:`curves` found."""
    return draw_panels(curves(runs), TITLE, "ℓ$_2$ distance ‖v$_{i,t}$ − u$_{N,t}$‖", sharey=False)[0]
