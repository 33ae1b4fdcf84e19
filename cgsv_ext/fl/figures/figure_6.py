"""Figure 6: how far the last layers of agents 1 and 3 of three are from the server's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.figure import Figure

from ..record import Run
from ..spec import Spec
from .curve import Curve
from .three_agents import three_agents_curves, three_agents_draw, three_agents_specs

TITLE = "Distance of last layers from the server's, agents 1 and 3 of three"
CAPTION = (
    "ℓ2 distance of the last layer's weight and bias from those of the server's model. "
    "Every panel has its own scale."
)


def specs(dataset: str = "digits", seeds: Iterable[int] = range(2021, 2026), **changes: Any) -> list[Spec]:
    """List the runs the figure needs."""
    return three_agents_specs(dataset, seeds, **changes)


def curves(runs: Sequence[Run]) -> list[Curve]:
    """Return the means over seeds, a panel for each partition that has runs."""
    return three_agents_curves(runs, "last_layer_distance")


def draw(runs: Sequence[Run]) -> Figure:
    """Draw what :func:`curves` found."""
    return three_agents_draw(curves(runs), TITLE, "ℓ$_2$ distance, last layer", sharey=False)[0]
