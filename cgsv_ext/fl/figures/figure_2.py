"""Figure 2: agents with 20, 40 and 60 % wrong labels, and two without any.

The paper draws the ℓ2 distance of each agent's model from the server's, and the agents' training loss. On
wrong labels a training loss misleads: who fits them best has the lowest. So this draws the loss on clean
test data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from ..presets import SEEDS, preset
from ..record import Run
from ..spec import Spec
from .curve import Curve, choose, over_rounds
from .look import LOOK, agent_look, draw_curve, legend, rounds_axis, start
from .traits import traits

TITLE = "Label noise: distance from the server's model, and loss"
CAPTION = (
    "Left: ℓ2 distance of each agent's model from the server's, and how far the server's has come from the "
    "initial one. Right: mean cross-entropy on clean test data; the paper's training loss would be on wrong "
    "labels, where the lowest is not the best."
)
PANELS = {"distance": "ℓ$_2$ distance of parameters", "loss": "test loss (nats)"}
SERVER = "server's from w$_0$"


def specs(dataset: str = "digits", seeds: Iterable[int] = SEEDS, **changes: Any) -> list[Spec]:
    """List the runs the figure needs."""
    return [Spec(preset(dataset, "figure-2", **changes), "CGSV", seed) for seed in seeds]


def curves(runs: Sequence[Run]) -> list[Curve]:
    """Distance and loss of every agent over rounds; [] where the runs are not among these."""
    chosen = choose(runs, "figure-2", 5)
    if not chosen:
        return []
    e = chosen[0].experiment
    labels = [f"{name}, {trait}" for name, trait in zip(e.agent_names, traits(chosen), strict=True)]
    found = [
        over_rounds(panel, label, [getattr(run, panel)[:, i] for run in chosen])
        for panel in PANELS
        for i, label in enumerate(labels)
    ]
    return [*found, over_rounds("distance", SERVER, [run.server_distance for run in chosen])]


@mpl.rc_context(LOOK)
def draw(runs: Sequence[Run]) -> Figure:
    """Draw what :func:`curves` found: a panel each for distance and loss."""
    found = curves(runs)
    figure, panels = start(TITLE, found, PANELS)
    for (panel, label), axes in zip(PANELS.items(), panels, strict=True):
        shown = [c for c in found if c.panel == panel]
        for i, c in enumerate(shown):
            server = c.label == SERVER
            draw_curve(axes, c, **({"color": "#8c510a", "linewidth": 1} if server else agent_look(i, 5)))
        rounds_axis(axes, shown)
        axes.set(ylabel=label, ylim=(0, None))
    legend(figure, panels[0], ncols=3)
    return figure
