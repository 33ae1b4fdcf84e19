"""Figure 7: the loss each of ten agents ends with against the degree of altruism β, under CLA.

The paper has β from 1 to 2. There tanh is nearly linear at r of about 1/N, so that quotas hardly change;
hence a wider sweep beside it, to β = 10 N, where nearly everyone gets nearly everything.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

from ..experiment import Experiment
from ..presets import SEEDS, preset
from ..record import Run
from ..spec import Spec
from ..summary import neutral
from .curve import Curve, choose, curve
from .look import LOOK, agent_look, draw_curve, legend, start

TITLE = "Final loss against altruism β: CLA, ten agents"
CAPTION = (
    "Mean cross-entropy of each agent's final model. Above: on all agents' training data, as in the paper. "
    "Below: on test data. Left: the paper's β. Right: up to 10 N, logarithmic."
)
AGENTS = 10
PAPER = (1.0, 1.2, 1.5, 2.0)
WIDE = (1.0, 2.0, 1.0 * AGENTS, 10.0 * AGENTS)
LOSSES = {"training loss": "training loss (nats)", "test loss": "test loss (nats)"}
SWEEPS = {"the paper's β": PAPER, "a wider sweep": WIDE}


def specs(
    dataset: str = "digits",
    seeds: Iterable[int] = SEEDS,
    *,
    betas: Iterable[float] = (*PAPER, *WIDE[2:]),
    **changes: Any,
) -> list[Spec]:
    """List the runs the figure needs; ValueError for a β among the changes."""
    if "beta" in changes:
        raise ValueError(f"specs(): expected no beta, as Figure 7 sweeps it, got {changes['beta']:g}")
    seeds = list(seeds)
    return [
        Spec(preset(dataset, "CLA", AGENTS, beta=beta, **changes), "CGSV", seed)
        for beta in betas
        for seed in seeds
    ]


def curves(runs: Sequence[Run]) -> list[Curve]:
    """Final loss of every agent over the β that have runs, on the seeds they share; [] for fewer than two."""
    chosen = sweep(runs)
    found = []
    for loss, (name, wanted) in itertools.product(LOSSES, SWEEPS.items()):
        here = [beta for beta in wanted if beta in chosen]
        seeds = sorted(set.intersection(*(set(chosen[beta]) for beta in here))) if len(here) > 1 else []
        for i in range(AGENTS if seeds else 0):
            values = [[final(chosen[beta][seed], loss)[i] for beta in here] for seed in seeds]
            label = chosen[here[0]][seeds[0]].experiment.agent_names[i]
            found.append(curve(f"{loss}, {name}", label, here, torch.tensor(values, dtype=torch.float64)))
    return found


def sweep(runs: Sequence[Run]) -> dict[float, dict[int, Run]]:
    """Runs of one experiment by β and seed: of that which ``choose`` prefers among those with several β."""
    groups: dict[Experiment, list[Run]] = {}
    for run in runs:
        if run.mechanism == "CGSV":
            groups.setdefault(replace(neutral(run.experiment, "CGSV"), beta=1.0), []).append(run)
    several = {e: each for e, each in groups.items() if len({run.experiment.beta for run in each}) > 1}
    chosen = choose((replace(r, experiment=e) for e, each in several.items() for r in each), "CLA", AGENTS)
    found: dict[float, dict[int, Run]] = {}
    for run in several[chosen[0].experiment] if chosen else []:
        found.setdefault(run.experiment.beta, {})[run.seed] = run
    return found


def final(run: Run, loss: str) -> list[float]:
    """Return each agent's loss at the end of a run."""
    values: list[float] = (run.training_loss if loss == "training loss" else run.loss[-1]).tolist()
    return values


@mpl.rc_context(LOOK)
def draw(runs: Sequence[Run]) -> Figure:
    """Draw what :func:`curves` found: losses above each other, sweeps side by side."""
    found = curves(runs)
    names = list(dict.fromkeys(c.panel for c in found))
    figure, panels = start(TITLE, found, names, rows=2, sharey="row")
    for name, axes in zip(names, panels, strict=True):
        shown = [c for c in found if c.panel == name]
        for i, c in enumerate(shown):
            draw_curve(axes, c, band=0.08, marker="o", markersize=3.5, **agent_look(i, AGENTS))
        loss, sweep = name.split(", ", 1)
        if sweep == "a wider sweep":
            axes.set_xscale("log")
        axes.set_xticks(shown[0].x, [f"{x:g}" for x in shown[0].x])
        axes.minorticks_off()
        axes.set(title=sweep, xlabel="β")
        if sweep == names[0].split(", ", 1)[1]:  # the left column
            axes.set_ylabel(LOSSES[loss])
    legend(figure, panels[0], ncols=AGENTS, fontsize=9)
    return figure
