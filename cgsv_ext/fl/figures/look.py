"""How every figure looks. Colours are chosen to be told apart by colour-blind readers and in grey."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .curve import Curve

LOOK: Any = {
    "font.size": 10,
    "axes.titlesize": 10,
    "lines.linewidth": 1.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
"""For ``matplotlib.rc_context``, around all drawing."""

WIDE = 9.6
"""Inches of a figure with panels side by side."""
_AGENTS = ["#E69F00", "#D55E00", "#CC79A7", "#0072B2", "#009E73"]
_STYLES = ["-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1))]


def agent_look(i: int, agents: int) -> dict[str, Any]:
    """Pick a colour and a line style; many agents get shades in order, from dark to light."""
    if agents <= len(_AGENTS):
        return {"color": _AGENTS[i], "linestyle": _STYLES[i]}
    shade = mpl.colormaps["viridis"](0.88 * i / (agents - 1))
    return {"color": mpl.colors.to_hex(shade), "linestyle": "-" if i % 2 else "--"}


def title(figure: Figure, text: str) -> None:
    """Head a figure."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, fontweight="bold")


def start(
    text: str, curves: Sequence[Curve], panels: Collection[str], *, rows: int = 1, sharey: Any = False
) -> tuple[Figure, list[Axes]]:
    """Make a figure with its title and an empty panel for each name, row by row.

    Raises ValueError where there are no curves to draw.
    """
    if not curves:
        raise ValueError(f"draw(): expected runs for '{text}', got none of them; specs() lists them")
    columns = len(panels) // rows
    figure = Figure(figsize=(WIDE if columns > 1 else 6.4, 3.6 + 2.4 * (rows - 1)))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    counts = sorted({c.seeds for c in curves})
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    title(figure, f"{text} ({seeds} seed{'' if counts == [1] else 's'})")
    return figure, list(grid.flat)


def draw_curve(axes: Axes, curve: Curve, *, band: float = 0.2, **look: Any) -> None:
    """Draw a line and its band of one standard error, as opaque as said."""
    axes.plot(curve.x, curve.mean, label=curve.label, clip_on=False, **look)
    if curve.seeds > 1:
        low = [mean - error for mean, error in zip(curve.mean, curve.error, strict=True)]
        high = [mean + error for mean, error in zip(curve.mean, curve.error, strict=True)]
        axes.fill_between(curve.x, low, high, color=look["color"], alpha=band, linewidth=0)


def rounds_axis(axes: Axes, curves: Sequence[Curve]) -> None:
    """Label the x-axis of curves over rounds."""
    axes.set_xlim(1, max(2, *(c.x[-1] for c in curves)))
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("round t")


def legend(figure: Figure, axes: Axes, *, ncols: int, **options: Any) -> None:
    """Put the lines of one panel into a legend under all panels, in so many columns or half as many."""
    handles, labels = axes.get_legend_handles_labels()
    narrow = figure.get_figwidth() < WIDE
    columns = -(-ncols // 2) if narrow else ncols
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, **options)
