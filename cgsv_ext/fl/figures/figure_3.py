"""Figure 3: test accuracy of ten agents under CGSV, when data are alike (UNI) and when not (POW, CLA)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

from ..presets import SEEDS, preset
from ..record import Run
from ..spec import Spec
from .curve import Curve, choose, curve, over_rounds
from .look import LOOK, agent_look, draw_curve, legend, rounds_axis, start

TITLE = "Accuracy of ten agents under CGSV"
CAPTION = (
    "Test accuracy of each agent's model: above over rounds, below after the last round, where every panel "
    "has its own scale. Under UNI all hold equally much; under POW the last agent holds the most samples, "
    "under CLA the most classes."
)
PARTITIONS = ("UNI", "POW", "CLA")
AGENTS = 10


def specs(dataset: str = "digits", seeds: Iterable[int] = SEEDS, **changes: Any) -> list[Spec]:
    """List the runs the figure needs."""
    seeds = list(seeds)
    return [
        Spec(preset(dataset, partition, AGENTS, **changes), "CGSV", seed)
        for partition in PARTITIONS
        for seed in seeds
    ]


def curves(runs: Sequence[Run]) -> list[Curve]:
    """Every agent's accuracy in percent, over rounds and at the end, for each partition that has runs."""
    found = []
    for partition in PARTITIONS:
        chosen = choose(runs, partition, AGENTS)
        for i in range(AGENTS if chosen else 0):
            name = chosen[0].experiment.agent_names[i]
            found.append(over_rounds(partition, name, [100 * run.accuracy[:, i] for run in chosen]))
        if chosen:
            final = torch.stack([100 * run.accuracy[-1] for run in chosen])
            found.append(curve(f"{partition}, final", "by agent", range(1, AGENTS + 1), final))
    return found


@mpl.rc_context(LOOK)
def draw(runs: Sequence[Run]) -> Figure:
    """Draw what :func:`curves` found: a column for each partition."""
    found = curves(runs)
    names = list(dict.fromkeys(c.panel.removesuffix(", final") for c in found))
    figure, panels = start(TITLE, found, 2 * names, rows=2)
    for partition, above, below in zip(names, panels, panels[len(names) :], strict=False):
        shown = [c for c in found if c.panel == partition]
        for i, c in enumerate(shown):
            draw_curve(above, c, band=0.08, **agent_look(i, AGENTS))
        rounds_axis(above, shown)
        above.set(title=partition, ylim=(0, 100))
        (final,) = [c for c in found if c.panel == f"{partition}, final"]
        for i, (x, mean, error) in enumerate(zip(final.x, final.mean, final.error, strict=True)):
            look = {**agent_look(i, AGENTS), "linestyle": "-"}
            below.errorbar([x], [mean], yerr=[error] if final.seeds > 1 else None, marker="o", **look)
        below.set(xlabel="agent", xticks=final.x)
    panels[0].set_ylabel("test accuracy (%)")
    panels[len(names)].set_ylabel("final accuracy (%)")
    legend(figure, panels[0], ncols=AGENTS, fontsize=9)
    return figure
