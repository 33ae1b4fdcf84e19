"""A partition as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .partition import Holding

# Paul Tol's muted scheme, told apart by colour-blind readers; and cividis, made for them, for more classes.
_MUTED = ["#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499"]
_MUTED += ["#DDDDDD"]


def partition_plot(holdings: Sequence[Holding], title: str = "") -> Figure:
    """Draw what each agent holds as a bar, stacked by class; above it the share of wrong labels, if any.

    Parameters
    ----------
    holdings : sequence of Holding
        As ``partition.describe`` returns them; up to some hundred agents stay readable.
    title : str
        Above the axes.
    """
    n, classes = len(holdings), len(holdings[0].counts)
    colours = _MUTED if classes <= len(_MUTED) else mpl.colormaps["cividis"](np.linspace(0, 1, classes))
    figure = Figure(figsize=(min(16.0, 3.2 + 0.32 * n), 4.2), layout="constrained")
    axes = figure.add_subplot()
    places, bottom = np.arange(1, n + 1), np.zeros(n)
    for c, colour in zip(range(classes), colours, strict=False):
        counts = np.array([holding.counts[c] for holding in holdings])
        axes.bar(places, counts, 0.9, bottom, color=colour, label=str(c), edgecolor="white", linewidth=0.3)
        bottom += counts
    for place, holding in zip(places, holdings, strict=True):
        if holding.noise > 0:
            axes.annotate(
                f"{holding.noise:.0%}",
                (place, holding.size),
                (0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                rotation=90 if n > 12 else 0,
                fontsize="small" if n <= 40 else "xx-small",
            )
    names = [holding.agent for holding in holdings]
    if n <= 40:
        axes.set_xticks(places, names, rotation=90 if max(map(len, names)) * n > 60 else 0)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(20, integer=True))
    axes.set_xlim(0.4, n + 0.6)
    axes.set_ylim(0, 1.12 * bottom.max())
    axes.set_xlabel("agent" + (" (above: wrong labels)" if any(h.noise for h in holdings) else ""))
    axes.set_ylabel("samples")
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    if classes <= 20:
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(
            handles[::-1], labels[::-1], title="class", loc="upper left", bbox_to_anchor=(1, 1), frameon=False
        )
    return figure
