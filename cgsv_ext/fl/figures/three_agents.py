"""What Figures 4 to 6 share: agents 1 and 3 of three over rounds, under UNI, POW and CLA.

Under POW and CLA the first agent contributes least and the third most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..presets import SEEDS, preset
from ..record import Run
from ..spec import Spec
from .curve import Curve, choose, over_rounds
from .look import LOOK, draw_curve, legend, rounds_axis, start

PARTITIONS = ("UNI", "POW", "CLA")
AGENTS = 3
LOOKS: dict[str, Any] = {
    "agent 1": {"color": "#D55E00", "linestyle": "--"},
    "agent 3": {"color": "#0072B2", "linestyle": "-"},
}


def specs(dataset: str = "digits", seeds: Iterable[int] = SEEDS, **changes: Any) -> list[Spec]:
    """List the runs the figure needs, the same for all three."""
    seeds = list(seeds)
    return [
        Spec(preset(dataset, partition, AGENTS, **changes), "CGSV", seed)
        for partition in PARTITIONS
        for seed in seeds
    ]


def curves_of(runs: Sequence[Run], quantity: str) -> list[Curve]:
    """One field of the runs over rounds, a panel for each partition that has runs."""
    found = []
    for partition in PARTITIONS:
        chosen = choose(runs, partition, AGENTS)
        for i, label in ((0, "agent 1"), (2, "agent 3")) if chosen else ():
            found.append(over_rounds(partition, label, [getattr(run, quantity)[:, i] for run in chosen]))
    return found


@mpl.rc_context(LOOK)
def draw_panels(
    found: Sequence[Curve], title: str, ylabel: str, *, sharey: bool
) -> tuple[Figure, list[Axes]]:
    """Draw the curves, a panel per partition, on a common scale or each on its own."""
    names = list(dict.fromkeys(c.panel for c in found))
    figure, panels = start(title, found, names, sharey=sharey)
    for partition, axes in zip(names, panels, strict=True):
        shown = [c for c in found if c.panel == partition]
        for c in shown:
            draw_curve(axes, c, **LOOKS[c.label])
        rounds_axis(axes, shown)
        axes.set_title(partition)
        axes.ticklabel_format(axis="y", scilimits=(-2, 3))
    for axes in panels:  # when all have been drawn: on a common scale the limits of one are those of all
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel(ylabel)
    legend(figure, panels[0], ncols=3)
    return figure, panels
