"""Figure 6: how far the last layers of agents 1 and 3 of three are from the server's."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from ..record import Run
from .curve import Curve
from .three_agents import curves_of, draw_panels, specs

__all__ = ["CAPTION", "TITLE", "curves", "draw", "specs"]

TITLE = "Distance of last layers from the server's, agents 1 and 3 of three"
CAPTION = (
    "ℓ2 distance of the last layer's weight and bias from those of the server's model. "
    "Every panel has its own scale."
)


def curves(runs: Sequence[Run]) -> list[Curve]:
    """Return the means over seeds, a panel for each partition that has runs."""
    return curves_of(runs, "last_layer_distance")


def draw(runs: Sequence[Run]) -> Figure:
    """Draw what :func:`curves` found."""
    return draw_panels(curves(runs), TITLE, "ℓ$_2$ distance, last layer", sharey=False)[0]
