"""The report's plots. Colours are chosen to be told apart by colour-blind readers and in grey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..presets import Experiment
from ..server import Run
from ..summary import Summary
from .result import Result

_AGENTS = ["#E69F00", "#D55E00", "#CC79A7", "#0072B2", "#009E73"]
_STYLES = ["-", "--", ":", "-", "--"]
_MECHANISMS = {"CGSV": "#0072B2", "FedAvg": "#E69F00", "standalone": "#666666"}
_MARKERS = {"CGSV": "o", "FedAvg": "D", "standalone": "s"}
LOOK: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def draw(result: Result) -> dict[str, Figure]:
    """All figures by file name (without its ending)."""
    figures = {}
    with mpl.rc_context(LOOK):
        for e in result.experiments:
            mechanisms = result.summaries[e.name]
            cgsv = [r for r in result.runs if r.experiment.name == e.name and r.mechanism == "CGSV"]
            figures[f"{e.name}_importance"] = importance(e, cgsv)
            figures[f"{e.name}_accuracy"] = accuracy(e, mechanisms)
            figures[f"{e.name}_sparsity"] = sparsity(e, mechanisms["CGSV"])
            figures[f"{e.name}_distance"] = distance(e, cgsv)
            if result.logged:
                figures[f"{e.name}_shapley"] = agreement(e, mechanisms)
        figures["rho"] = fairness(result)
        figures["time"] = cost(result)
    return figures


def importance(e: Experiment, runs: Sequence[Run]) -> Figure:
    """r_i over rounds, mean and standard error over seeds."""
    figure, axes = _figure()
    _lines(axes, e, torch.stack([run.importance for run in runs]))
    axes.axhline(1 / e.agents, color="black", linewidth=0.8, linestyle=(0, (1, 3)))
    axes.set_ylabel("importance r$_i$")
    _title(figure, f"{e.title}: importance")
    return figure


def distance(e: Experiment, runs: Sequence[Run]) -> Figure:
    """‖w_i − w‖ over rounds, mean and standard error over seeds."""
    figure, axes = _figure()
    _lines(axes, e, torch.stack([run.distance for run in runs]))
    axes.set_ylabel("ℓ$_2$ distance of parameters")
    _title(figure, f"{e.title}: distance from the server's model")
    return figure


def accuracy(e: Experiment, mechanisms: dict[str, Summary]) -> Figure:
    """Per agent, accuracy alone and what each mechanism made of it."""
    figure, axes = _figure()
    for row in range(e.agents):
        axes.axhspan(row - 0.38, row + 0.38, color="#f4f4f4", zorder=0)
    for (name, s), offset in zip(mechanisms.items(), (-0.22, 0.0, 0.22), strict=True):
        mean, error = _mean_and_error(100 * s.accuracy)
        axes.errorbar(
            mean.tolist(),
            [row + offset for row in range(e.agents)],
            xerr=error.tolist(),
            fmt=_MARKERS[name],
            color=_MECHANISMS[name],
            markersize=5,
            label=name,
        )
    _agent_rows(axes, e)
    axes.set_xlabel("test accuracy at the end (%)")
    _title(figure, f"{e.title}: accuracy alone and together")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def sparsity(e: Experiment, cgsv: Summary) -> Figure:
    """How much of the aggregate each agent does not get, mean over rounds."""
    figure, axes = _figure()
    mean, error = _mean_and_error(100 * cgsv.sparsity)
    rows = list(range(e.agents))
    axes.barh(rows, mean.tolist(), xerr=error.tolist(), color=_MECHANISMS["CGSV"], height=0.6)
    for row, value, margin in zip(rows, mean.tolist(), error.tolist(), strict=True):
        axes.annotate(
            f"{value:.1f}", (value + margin, row), (4, 0), textcoords="offset points", va="center", fontsize=9
        )
    _agent_rows(axes, e)
    axes.set_xlim(0, 100)
    axes.set_xlabel("entries withheld, mean over rounds (%)")
    _title(figure, f"{e.title}: sparsity of downloads")
    return figure


def agreement(e: Experiment, mechanisms: dict[str, Summary]) -> Figure:
    """Kendall's τ and Pearson's r of ψ and φ over rounds, mean and standard error over seeds."""
    figure, axes = _figure()
    rounds = list(range(1, e.rounds + 1))
    for name, s in mechanisms.items():
        if s.agreement is None:
            continue
        values = s.agreement.rounds.unbind(2)
        for k, (style, label) in enumerate([("-", "Kendall's τ"), ("--", "Pearson's r")]):
            mean, error = _mean_and_error(values[k])
            colour = _MECHANISMS[name]
            axes.plot(rounds, mean.tolist(), style, color=colour, label=f"{name}, {label}")
            low, high = (mean - error).tolist(), (mean + error).tolist()
            axes.fill_between(rounds, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlim(1, e.rounds)
    axes.set_xlabel("round t")
    axes.set_ylabel("agreement of ψ with φ")
    _title(figure, f"{e.title}: approximate against exact values")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def fairness(result: Result) -> Figure:
    """ρ of every seed, and its mean; mechanisms without a ρ say so."""
    figure, axes = _figure(height=2.6)
    labels: list[str] = []
    for e in result.experiments:
        for name, s in result.summaries[e.name].items():
            if name == "standalone":
                continue
            row = len(labels)
            labels.append(f"{e.title}\n{name}")
            known = [value for value in s.rho if value is not None]
            if known:
                axes.plot(known, [row] * len(known), _MARKERS[name], color=_MECHANISMS[name], alpha=0.5)
                axes.plot([sum(known) / len(known)] * 2, [row - 0.3, row + 0.3], color="black")
            if len(known) < len(s.rho):
                text = f"undefined on {len(s.rho) - len(known)} of {len(s.rho)} seeds"
                axes.text(0.02, row, text, va="center", transform=axes.get_yaxis_transform(), color="#444444")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(min([0.0, *axes.get_xlim()]), 102)
    axes.set_xlabel("fairness ρ")
    _title(figure, "Fairness of final accuracies against standalone ones")
    return figure


def cost(result: Result) -> Figure:
    """Time per round of CGSV: training, batched and as a plain loop, and the reward step."""
    figure, axes = _figure(height=2.6)
    parts = {"training, plain loop": "#bbbbbb", "training, batched": "#777777", "reward step": "#0072B2"}
    for row, e in enumerate(result.experiments):
        s = result.summaries[e.name]["CGSV"]
        rounds = e.rounds * len(s.seeds)
        times = [result.plain_loop[e.name], s.seconds["training"] / rounds, s.seconds["reward"] / rounds]
        for k, (part, seconds) in enumerate(zip(parts, times, strict=True)):
            place = row + 0.27 * (k - 1)
            label = None if row else part
            axes.barh(place, 1e3 * seconds, 0.25, color=parts[part], label=label)
            axes.annotate(
                f"{1e3 * seconds:.2g} ms",
                (1e3 * seconds, place),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_yticks(range(len(result.experiments)), [e.title for e in result.experiments])
    axes.set_ylim(len(result.experiments) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("time per round (ms, logarithmic)")
    _title(figure, "Cost of the reward step beside training")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _figure(height: float = 3.8) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, height))
    return figure, figure.add_subplot()


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, fontweight="bold")


def _lines(axes: Axes, e: Experiment, values: Tensor) -> None:
    """One line per agent over rounds, with a band of one standard error; values (S, T, N)."""
    mean, error = _mean_and_error(values)
    rounds = list(range(1, e.rounds + 1))
    for i, name in enumerate(e.agent_names):
        colour, style = _agent_look(i, e.agents)
        axes.plot(rounds, mean[:, i].tolist(), style, color=colour, label=f"{name}, {e.traits[i]}")
        low, high = (mean - error)[:, i].tolist(), (mean + error)[:, i].tolist()
        axes.fill_between(rounds, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlim(1, e.rounds)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("round t")
    axes.figure.legend(loc="outside right center", fontsize=9)


def _agent_rows(axes: Axes, e: Experiment) -> None:
    labels = [f"{name}, {trait}" for name, trait in zip(e.agent_names, e.traits, strict=True)]
    axes.set_yticks(range(e.agents), labels)
    axes.set_ylim(e.agents - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def _agent_look(i: int, agents: int) -> tuple[str, str]:
    """Pick a colour and a line style; many agents get shades in order, from dark to light."""
    if agents <= len(_AGENTS):
        return _AGENTS[i], _STYLES[i]
    shade = mpl.colormaps["viridis"](0.88 * i / (agents - 1))
    return mpl.colors.to_hex(shade), "-" if i % 2 else "--"


def _mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """Over the first dimension; a single seed has no error bar."""
    n = values.shape[0]
    error = values.std(0) / n**0.5 if n > 1 else torch.zeros_like(values[0])
    return values.mean(0), error
