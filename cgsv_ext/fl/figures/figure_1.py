"""``cgsv figure 1``: the paper's Figure 1, how well and how fast ψ and sampling approximate φ.

§3.3 draws N standard normal vectors of D elements as updates and compares ψ (equation 3) and a sampled
(0.1, 0.1)-approximation with the exact φ (equation 2) over N at D = 1024 and over D at N = 10. Beside the
paper's curves this draws what it lacks: the time of the exact values themselves, and the error of giving
all agents the same share.
"""

from __future__ import annotations

import csv
import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

import cgsv_ext
from cgsv_ext import shapley

from ..environment import environment
from ..metrics import mean_and_error
from ..presets import FIRST_SEED
from ..seeds import generator
from ..table import Table, as_markdown
from ..threads import one_thread
from .look import LOOK

AGENTS = tuple(range(5, 21))
"""N of the left panel, at D = 1024."""
DIMENSIONS = tuple(2**k for k in range(10, 16))
"""D of the right panel, at N = 10."""
LARGE = tuple(2**k for k in range(16, 25))
"""More of them, up to the size of real models."""
REPEATS = 3
"""A time is the least of so many calls, after one that is not timed."""

T = TypeVar("T")


class Trial(NamedTuple):
    """One draw of updates: errors against the exact φ, and times in seconds. A row of the CSV."""

    panel: str
    """``agents`` or ``dimension``: what varies."""
    agents: int
    dimension: int
    trial: int
    permutations: int
    """How many the sampled approximation drew."""
    psi_l1: float
    sampling_l1: float
    equal_l1: float
    """Of 1/N for everyone."""
    psi_l2: float
    sampling_l2: float
    equal_l2: float
    psi_seconds: float
    """From the updates."""
    gram_seconds: float
    """From the updates: what sampling and the exact values both begin with."""
    sampling_seconds: float
    """From the Gram matrix: the sampled permutations alone."""
    exact_seconds: float
    """From the Gram matrix: the 2^N coalitions alone."""


def error(estimate: Tensor, exact: Tensor) -> tuple[float, float]:
    """ℓ1 and ℓ2 distance of an estimate from the exact values, each first divided by its own sum."""
    difference = estimate / estimate.sum() - exact / exact.sum()
    return difference.norm(p=1).item(), difference.norm(p=2).item()


@one_thread()
def measure(panel: str, agents: int, dimension: int, trial: int, seed: int) -> Trial:
    """Draw updates of their own for one trial, value them in all ways on one thread, compare."""
    source = generator(seed, f"figure 1, {panel}, N = {agents}, D = {dimension}, trial {trial}")
    updates = torch.randn(agents, dimension, generator=source)
    psi, psi_seconds = _timed(lambda: shapley.approximate(updates))
    gram, gram_seconds = _timed(lambda: cgsv_ext.gram(updates))
    sample, sampling_seconds = _timed(lambda: shapley.sampled(gram=gram, generator=source))
    exact, exact_seconds = _timed(lambda: shapley.exact(gram=gram))
    errors = [error(values, exact) for values in (psi, sample.values, torch.ones_like(exact))]
    (psi_l1, sampling_l1, equal_l1), (psi_l2, sampling_l2, equal_l2) = zip(*errors, strict=True)
    return Trial(
        panel=panel,
        agents=agents,
        dimension=dimension,
        trial=trial,
        permutations=sample.permutations,
        psi_l1=psi_l1,
        sampling_l1=sampling_l1,
        equal_l1=equal_l1,
        psi_l2=psi_l2,
        sampling_l2=sampling_l2,
        equal_l2=equal_l2,
        psi_seconds=psi_seconds,
        gram_seconds=gram_seconds,
        sampling_seconds=sampling_seconds,
        exact_seconds=exact_seconds,
    )


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    """What a call returns, and how long others like it take at least."""
    value, times = call(), []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return value, min(times)


def figure_1(
    out: Path,
    *,
    trials: int = 10,
    seed: int = FIRST_SEED,
    agents: Sequence[int] = AGENTS,
    dimensions: Sequence[int] = DIMENSIONS,
    command: str = "cgsv figure 1",
) -> str:
    """Measure, write ``trials.csv``, ``figure-1.png`` and ``summary.md``, and return the text of the last.

    Parameters
    ----------
    out : Path
        The folder to write; made if need be.
    trials : int
        Independent draws of updates per N and per D.
    seed : int
        Decides the updates and the permutations.
    agents : sequence of int
        N of the left panel, at most 32.
    dimensions : sequence of int
        D of the right panel.
    command : str
        What regenerates this result, for the text.
    """
    sizes = [("agents", n, 1024) for n in sorted(set(agents))]
    sizes += [("dimension", 10, d) for d in sorted(set(dimensions))]
    out.mkdir(parents=True, exist_ok=True)
    found = []
    # Drawn between trials: a thread that draws would take time from what is timed.
    with Progress(console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("", total=len(sizes) * trials)
        for panel, n, d in sizes:
            bar.update(task, description=f"N = {n}, D = {d}", refresh=True)
            for k in range(trials):
                found.append(measure(panel, n, d, k + 1, seed))
                bar.update(task, advance=1, refresh=True)
    points = [Point([t for t in found if t[:3] == size]) for size in sizes]
    with (out / "trials.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Trial._fields)
        writer.writerows([f"{v:.5g}" if isinstance(v, float) else v for v in t] for t in found)
    draw(points).savefig(out / "figure-1.png", dpi=110)
    text = summary(points, trials, command)
    (out / "summary.md").write_text(text, encoding="utf-8")
    return text


class Point:
    """The mean over the trials of one N and D."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        first = trials[0]
        self.panel, self.agents, self.dimension = first.panel, first.agents, first.dimension
        self.permutations = first.permutations
        self._trials = trials

    @property
    def size(self) -> int:
        """What varies in the point's panel."""
        return self.agents if self.panel == "agents" else self.dimension

    def mean(self, *columns: str) -> float:
        """Of the sum of columns."""
        return mean_and_error([sum(getattr(t, column) for column in columns) for t in self._trials])[0]

    def error(self, method: str, norm: str) -> float:
        """Of ``psi``, ``sampling`` or ``equal``, in ``l1`` or ``l2``."""
        return self.mean(f"{method}_{norm}")

    def seconds(self, method: str) -> float:
        """From the updates to the values: both sampling and ``exact`` pay for a Gram matrix of their own."""
        return self.mean("psi_seconds") if method == "psi" else self.mean("gram_seconds", f"{method}_seconds")


# The picture.

_COLOURS = {"l1": "#1f77b4", "l2": "#ff7f0e", "time": "#2ca02c"}  # the paper's
_MARKERS = {"l1": "o", "l2": "s", "time": "^"}
_STYLES: dict[str, Any] = {"psi": "-", "sampling": "--", "equal": ":", "exact": ":"}
_ERRORS = [(method, norm) for method in ("psi", "sampling", "equal") for norm in ("l1", "l2")]
_TIMED = ("psi", "sampling", "exact")


def draw(points: Sequence[Point]) -> Figure:
    """Errors and times, over N on the left, over D on the right: all logarithmic but N."""
    look: Any = {**LOOK, "lines.markersize": 4}
    with mpl.rc_context(look):
        errors = _decades(p.error(method, norm) for p in points for method, norm in _ERRORS)
        milliseconds = _decades(1e3 * p.seconds(method) for p in points for method in _TIMED)
        figure = Figure(figsize=(9.6, 4.6))
        left, right = figure.subplots(1, 2)
        _panel(left, [p for p in points if p.panel == "agents"], errors, milliseconds)
        left.set(xlabel="number N of agents", title="D = 1024")
        left.xaxis.get_major_locator().set_params(integer=True)
        _panel(right, [p for p in points if p.panel == "dimension"], errors, milliseconds)
        right.set_xscale("log", base=2)
        right.set(xlabel="vector dimension D", title="N = 10")
        colours = [
            Line2D([], [], color=_COLOURS[key], marker=_MARKERS[key], label=label)
            for key, label in (("l1", "ℓ₁ error"), ("l2", "ℓ₂ error"), ("time", "time"))
        ]
        labels = {"psi": "ψ", "sampling": "sampling", "exact": "errors: equal shares; time: exact φ"}
        styles = [
            Line2D([], [], color="black", linestyle=_STYLES[method], label=label)
            for method, label in labels.items()
        ]
        figure.legend(handles=[*colours, *styles], loc="outside lower center", ncols=6)
    return figure


def _panel(
    axes: Axes, points: Sequence[Point], errors: tuple[float, float], milliseconds: tuple[float, float]
) -> None:
    sizes = [p.size for p in points]
    times = axes.twinx()
    times.grid(visible=False)
    times.spines["right"].set_visible(True)
    for method, norm in _ERRORS:
        values = [p.error(method, norm) for p in points]
        axes.plot(sizes, values, _STYLES[method], color=_COLOURS[norm], marker=_MARKERS[norm])
    for method in _TIMED:
        values = [1e3 * p.seconds(method) for p in points]
        times.plot(sizes, values, _STYLES[method], color=_COLOURS["time"], marker=_MARKERS["time"])
    axes.set_yscale("log")
    times.set_yscale("log")
    axes.set_ylim(*errors)
    times.set_ylim(*milliseconds)
    axes.set_ylabel("error of the normalised values (logarithmic)")
    times.set_ylabel("time (ms, logarithmic)")


def _decades(values: Iterable[float]) -> tuple[float, float]:
    """Return powers of ten around values, the same for both panels; a zero has no place on them."""
    exponents = [math.log10(value) for value in values if value > 0]
    return 10 ** math.floor(min(exponents)), 10 ** math.ceil(max(exponents))


# The text.


def summary(points: Sequence[Point], trials: int, command: str) -> str:
    """Where the paper's claim holds, where it does not, and the means behind it, in Markdown."""
    setting = ", ".join(f"{name} {value}" for name, value in environment().items())
    intro = (
        f"Written by `{command}` on {setting}. Every number is a mean over {trials} independent trials: each "
        "draws its own N × D standard normal updates and its own permutations. An error is the distance from "
        "the exact φ after both are divided by their sums. A time runs from the updates to the values: "
        "norms, aggregate and cosines for ψ, which reads the updates twice; a Gram matrix, which reads "
        "them once, and then its own permutations for sampling; a Gram matrix and then all 2^N coalitions "
        f"for exact φ. Each is the least of {REPEATS} calls."
    )
    parts = ["# Figure 1: ψ and sampling against exact φ", intro, "## The paper's claim", _claims(points)]
    parts += ["## What the figure does not say", _remarks(points), "## Means"]
    for panel in ("agents", "dimension"):
        parts.append(as_markdown(_means([p for p in points if p.panel == panel])))
    return "\n\n".join(parts) + "\n"


def _claims(points: Sequence[Point]) -> str:
    smaller = [
        _where(points, lambda p: p.error("psi", "l1") < p.error("sampling", "l1")),
        _where(points, lambda p: p.error("psi", "l2") < p.error("sampling", "l2")),
        _where(points, lambda p: p.seconds("psi") < p.seconds("sampling")),
    ]
    names = ["has the smaller ℓ1 error", "has the smaller ℓ2 error", "takes less time"]
    lines = [f"- ψ {name}: {where}." for name, where in zip(names, smaller, strict=True)]
    ends = [p for p in points if p.panel == "agents"]
    if len(ends) > 1:
        lines += [_gap("ℓ1 error", ends, lambda p, method: p.error(method, "l1"), 1, "")]
        lines += [_gap("ℓ2 error", ends, lambda p, method: p.error(method, "l2"), 1, "")]
        lines += [_gap("time", ends, Point.seconds, 1e3, " ms")]
    return "\n".join(lines)


def _gap(
    name: str, points: Sequence[Point], of: Callable[[Point, str], float], scale: float, unit: str
) -> str:
    """Whether the gap between ψ and sampling widens from the smallest to the largest N."""
    few, many = points[0], points[-1]
    differences = [scale * (of(p, "sampling") - of(p, "psi")) for p in (few, many)]
    quotients = [of(p, "sampling") / of(p, "psi") for p in (few, many)]

    def verdict(ends: Sequence[float]) -> str:
        return "widens" if ends[1] > ends[0] else "narrows"

    return (
        f"- The gap in {name} from N = {few.agents} to {many.agents} {verdict(differences)} as a difference "
        f"({differences[0]:.3g}{unit} to {differences[1]:.3g}{unit}) and {verdict(quotients)} as a quotient "
        f"(sampling / ψ: {quotients[0]:.3g} to {quotients[1]:.3g})."
    )


def _remarks(points: Sequence[Point]) -> str:
    count = points[0].permutations
    more = [p.agents for p in points if math.factorial(p.agents) < count]
    lines = []
    if more:
        n = max(more)
        lines.append(
            f"- At N = {n}, {count} sampled permutations exceed the {math.factorial(n)} that exist: "
            "taking each of those once would be exact."
        )
    visited = sorted({p.agents for p in points if 2**p.agents < count * p.agents})
    if visited:
        n = visited[-1]
        lines.append(
            f"- Up to N = {n} sampling values more coalitions ({count} · {n} = {count * n}) than there are "
            f"(2^{n} = {2**n})."
        )
    faster = _where(points, lambda p: p.seconds("exact") < p.seconds("sampling"))
    lines.append(f"- Exact φ, from the Gram matrix, takes less time than sampling: {faster}.")
    slowest = max(points, key=lambda p: p.seconds("exact") / p.seconds("psi"))
    lines.append(f"- Exact φ takes at most {_times(slowest)}, and {_times(points[-1])}.")
    better = _where(points, lambda p: p.error("equal", "l1") < p.error("sampling", "l1"))
    quotients = [p.error("equal", "l1") / p.error("sampling", "l1") for p in points]
    lines.append(
        "- Random vectors of many elements are nearly orthogonal, so that all agents are worth nearly the "
        f"same: 1/N for everyone, which values no one, has {min(quotients):.2g} to {max(quotients):.2g} "
        f"times the ℓ1 error of sampling, and the smaller one {better}. Updates of agents that learn are "
        "neither orthogonal nor alike; `cgsv demo --log-shapley` compares ψ with φ on those."
    )
    return "\n".join(lines)


def _times(p: Point) -> str:
    exact, psi = 1e3 * p.seconds("exact"), 1e3 * p.seconds("psi")
    times = f"{exact / psi:.3g} times as long as ψ ({exact:.3g} and {psi:.3g} ms)"
    return f"{times} at {'N' if p.panel == 'agents' else 'D'} = {_size(p)}"


def _where(points: Sequence[Point], holds: Callable[[Point], bool]) -> str:
    """Say at which N and at which D something holds."""
    parts = []
    for panel, symbol in (("agents", "N"), ("dimension", "D")):
        held = [(_size(p), holds(p)) for p in points if p.panel == panel]
        runs = [
            [size for size, _ in run] for true, run in itertools.groupby(held, lambda each: each[1]) if true
        ]
        count = sum(map(len, runs))
        if count in (0, len(held)):
            parts.append(f"at {'every' if count else 'no'} {symbol}")
        else:
            names = [run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
            parts.append(f"at {count} of {len(held)} {symbol} ({', '.join(names)})")
    return ", ".join(parts)


def _size(p: Point) -> str:
    """What varies, D as a power of two where it is one."""
    d = p.size
    return f"2^{d.bit_length() - 1}" if p.panel == "dimension" and d & (d - 1) == 0 else str(d)


def _means(points: Sequence[Point]) -> Table:
    over_agents = points[0].panel == "agents"
    head = ["N" if over_agents else "D", "ℓ1: ψ", "sampling", "equal", "ℓ2: ψ", "sampling", "equal"]
    head += ["ms: ψ", "Gram", "sampling with it", "exact with it"]
    rows = []
    for p in points:
        errors = [p.error(method, norm) for norm in ("l1", "l2") for method in ("psi", "sampling", "equal")]
        times = [p.seconds("psi"), p.mean("gram_seconds"), p.seconds("sampling"), p.seconds("exact")]
        cells = [f"{value:.2e}" for value in errors] + [f"{1e3 * value:.3g}" for value in times]
        rows.append([_size(p), *cells])
    title = "Over N, D = 1024" if over_agents else "Over D, N = 10"
    return Table(title, head, rows)
