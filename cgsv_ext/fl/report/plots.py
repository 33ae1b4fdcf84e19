"""The report's own plots, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..experiment import Experiment
from ..figures.curve import curve, means_and_errors, over_rounds
from ..figures.look import LOOK, agent_look, draw_curve, rounds_axis, title
from ..figures.traits import traits
from ..partition import Holding, noise_shares
from ..partition_plot import partition_plot
from ..record import Run
from ..summary import Summary

CAPTIONS = {
    "importance": "Importance of each agent over rounds. Bands: one standard error over seeds; dotted: equal "
    "shares.",
    "accuracy": "Final test accuracy of each agent, alone and together. Bars: one standard error over seeds.",
    "sparsity": "Share of the aggregate that CGSV withholds from each agent. Bars: one standard error over "
    "seeds.",
    "distance": "Distance of each agent's model from the server's under CGSV. Bands: one standard error over "
    "seeds.",
    "rho": "Fairness of each mechanism: a marker per seed, a line at the mean.",
    "holdings": "What each agent holds, by its own labels, on the first seed.",
    "shapley": "How far ψ and φ agree in each round. Bands: one standard error over seeds.",
    "time": "Time of one round of CGSV spent in the agents' training and in the server's reward step.",
}
_MECHANISMS: dict[str, dict[str, str]] = {
    "CGSV": {"color": "#0072B2", "marker": "o"},
    "FedAvg": {"color": "#E69F00", "marker": "D"},
    "standalone": {"color": "#666666", "marker": "s"},
}
_OTHER = {"color": "#CC79A7", "marker": "^"}
_BESIDE: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
"""Places a number at the end of its bar."""
_SHORT_LEGEND = 12
"""More agents than so many get a legend of some of them."""


@mpl.rc_context(LOOK)
def federation_figures(
    e: Experiment, runs: Mapping[str, Sequence[Run]], summaries: Mapping[str, Summary], cgsv: str | None
) -> dict[str, Figure]:
    """Draw what can be drawn of one federation, by name of the plot.

    Parameters
    ----------
    e : Experiment
        The federation.
    runs, summaries : mapping
        By label.
    cgsv : str or None
        The label of CGSV's runs, if there are any.
    """
    names = [name for name in ("standalone", "FedAvg", cgsv) if name in summaries]
    drawn = {"holdings": _holdings(next(iter(runs.values()))[0])}
    if cgsv is not None:
        drawn["importance"] = _history(e, runs[cgsv], "importance")
        drawn["sparsity"] = _sparsity(e, runs[cgsv], summaries[cgsv])
        drawn["distance"] = _history(e, runs[cgsv], "distance")
    if names:
        chosen = {name: summaries[name] for name in names if name is not None}
        drawn["accuracy"] = _accuracy(e, [run for each in runs.values() for run in each], chosen)
    if any(s.rho is not None and s.mechanism != "standalone" for s in summaries.values()):
        drawn["rho"] = _fairness(summaries)
    if any(s.agreement for s in summaries.values()):
        drawn["shapley"] = _agreement(e, summaries)
    return drawn


def _history(e: Experiment, runs: Sequence[Run], quantity: str) -> Figure:
    """Importance or distance of every agent over rounds."""
    figure, axes = _figure()
    names = [f"{name}, {trait}" for name, trait in zip(e.agent_names, traits(runs), strict=True)]
    found = [
        over_rounds("", name, [getattr(r, quantity)[:, i] for r in runs]) for i, name in enumerate(names)
    ]
    for i, c in enumerate(found):
        draw_curve(axes, c, band=0.2 if e.size <= 5 else 0.12, **agent_look(i, e.size))
    rounds_axis(axes, found)
    axes.set_ylim(bottom=0)
    if quantity == "importance":
        axes.axhline(1 / e.size, color="black", linewidth=0.8, linestyle=(0, (1, 3)))
    axes.set_ylabel("importance r$_{i,t}$" if quantity == "importance" else "ℓ$_2$ distance of parameters")
    handles, labels = axes.get_legend_handles_labels()
    step = -(-len(labels) // _SHORT_LEGEND)
    figure.legend(handles[::step], labels[::step], loc="outside right center", fontsize=9)
    title(figure, "Importance" if quantity == "importance" else "Distance from the server's model")
    return figure


def _accuracy(e: Experiment, runs: Sequence[Run], summaries: Mapping[str, Summary]) -> Figure:
    """Per agent, accuracy alone and what each mechanism made of it."""
    figure, axes = _figure(_height(e.size))
    for row in range(e.size):
        axes.axhspan(row - 0.38, row + 0.38, color="#f4f4f4", zorder=0)
    for k, (name, s) in enumerate(summaries.items()):
        mean, error = means_and_errors(100 * s.accuracy)
        axes.errorbar(
            mean,
            [row + 0.22 * (k - (len(summaries) - 1) / 2) for row in range(e.size)],
            xerr=error,
            linestyle="none",
            markersize=5 if e.size <= 20 else 2.5,
            label=name,
            **_mechanism_look(s),
        )
    _agent_rows(axes, e, runs)
    axes.set_xlabel("test accuracy at the end (%)")
    title(figure, "Accuracy alone and together")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _sparsity(e: Experiment, runs: Sequence[Run], s: Summary) -> Figure:
    """How much of the aggregate each agent does not get, mean over rounds."""
    figure, axes = _figure(_height(e.size))
    mean, error = means_and_errors(100 * s.sparsity)
    rows = list(range(e.size))
    axes.barh(rows, mean, xerr=error, color=_MECHANISMS["CGSV"]["color"], height=0.6)
    for row, value, margin in zip(rows, mean, error, strict=True):
        size = 9 if e.size <= 20 else 6
        axes.annotate(f"{value:.1f}", (value + margin, row), fontsize=size, **_BESIDE)
    _agent_rows(axes, e, runs)
    axes.set_xlim(0, 108)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("entries withheld, mean over rounds (%)")
    title(figure, "Sparsity of downloads")
    return figure


def _fairness(summaries: Mapping[str, Summary]) -> Figure:
    """ρ of every seed, and its mean; seeds without a ρ are counted."""
    rows = {name: s for name, s in summaries.items() if s.mechanism != "standalone" and s.rho is not None}
    figure, axes = _figure(1.4 + 0.3 * len(rows))
    names = []
    for row, (name, s) in enumerate(rows.items()):
        known = [value for value in s.rho or [] if value is not None]
        look = _mechanism_look(s)
        if known:
            axes.plot(known, [row] * len(known), look["marker"], color=look["color"], alpha=0.5)
            axes.plot([sum(known) / len(known)] * 2, [row - 0.3, row + 0.3], color="black")
        missing = len(s.seeds) - len(known)
        count = "" if len(s.seeds) == missing else f"{missing} of {len(s.seeds)} "
        names.append(f"{name} ({count}undefined)" if missing else name)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(min([0.0, *axes.get_xlim()]), 102)
    axes.set_xlabel("fairness ρ")
    title(figure, "Fairness of final accuracies against standalone ones")
    return figure


def _agreement(e: Experiment, summaries: Mapping[str, Summary]) -> Figure:
    """Kendall's τ and Pearson's r of ψ and φ over rounds."""
    figure, axes = _figure()
    found = []
    for name, s in summaries.items():
        for k, (style, measure) in enumerate([("-", "Kendall's τ"), ("--", "Pearson's r")]):
            if s.agreement is not None:
                values = s.agreement.rounds[:, :, k]
                found.append(curve("", f"{name}, {measure}", range(1, e.rounds + 1), values))
                draw_curve(axes, found[-1], color=_mechanism_look(s)["color"], linestyle=style)
    rounds_axis(axes, found)
    axes.set_ylabel("agreement of ψ with φ")
    title(figure, "Approximate against exact values")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@mpl.rc_context(LOOK)
def cost(groups: Sequence[tuple[str, Sequence[Run]]]) -> Figure | None:
    """Time per round of CGSV, by federation: training, as a plain loop where timed, and the reward step."""
    if not groups:
        return None
    figure, axes = _figure(1.6 + 0.55 * len(groups))
    parts = {"plain loop": "#bbbbbb", "training": "#777777", "reward": "#0072B2"}
    names = {"plain loop": "training, plain loop", "training": "training, as run", "reward": "reward step"}
    for row, (_, runs) in enumerate(groups):
        rounds = sum(run.experiment.rounds for run in runs)
        for k, (part, colour) in enumerate(parts.items()):
            if all(run.seconds.get(part) for run in runs):
                milliseconds = 1e3 * sum(run.seconds[part] for run in runs) / rounds
                place, label = row + 0.27 * (k - 1), None if row else names[part]
                axes.barh(place, milliseconds, 0.25, color=colour, label=label)
                text = f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2g} ms"
                axes.annotate(text, (milliseconds, place), fontsize=8, **_BESIDE)
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.set_yticks(range(len(groups)), [heading for heading, _ in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("time per round (ms, logarithmic)")
    title(figure, "Cost of the reward step beside training")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _holdings(run: Run) -> Figure:
    e = run.experiment
    noise = [*noise_shares(e), *[0.0] * len(e.adversaries)]
    figure = partition_plot(
        [
            Holding(name, int(counts.sum()), share, tuple(counts.tolist()))
            for name, share, counts in zip(e.agent_names, noise, run.histogram, strict=True)
        ]
    )
    title(figure, "Holdings")
    return figure


def _figure(height: float = 3.8) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, height))
    return figure, figure.add_subplot()


def _height(agents: int) -> float:
    return min(12.0, max(3.8, 1.4 + 0.28 * agents))


def _agent_rows(axes: Axes, e: Experiment, runs: Sequence[Run]) -> None:
    labels = [f"{name}, {trait}" for name, trait in zip(e.agent_names, traits(runs), strict=True)]
    step = -(-e.size // 40)
    axes.set_yticks(range(0, e.size, step), labels[::step])
    axes.set_ylim(e.size - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def _mechanism_look(s: Summary) -> dict[str, Any]:
    return _MECHANISMS.get(s.mechanism, _OTHER)
