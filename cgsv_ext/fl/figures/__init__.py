"""The paper's figures, one module each, as functions of runs.

Each of Figures 2 to 7 has ``specs`` (which runs it needs), ``curves`` (what is to be seen in them, the CSV)
and ``draw``. Figure 1 has no runs: ``figure_1`` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from ..record import Run
from . import figure_2, figure_3, figure_4, figure_5, figure_6, figure_7
from .curve import write_csv

__all__ = ["FIGURES", "write"]

FIGURES: dict[int, ModuleType] = {
    2: figure_2,
    3: figure_3,
    4: figure_4,
    5: figure_5,
    6: figure_6,
    7: figure_7,
}


def write(number: int, runs: Sequence[Run], out: Path) -> Path:
    """Write a picture, such as ``figure-2-digits.png``, and ``figure-2-digits.csv`` beside it.

    Parameters
    ----------
    number : int
        A key of ``FIGURES``.
    runs : sequence of Run
        Of one dataset; those of ``FIGURES[number].specs`` and any others.
    out : Path
        The folder; made if need be.

    Returns
    -------
    Path
        The picture.
    """
    figure = FIGURES[number].draw(runs)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"figure-{number}-{runs[0].experiment.dataset}.png"
    figure.savefig(path, dpi=150)
    write_csv(FIGURES[number].curves(runs), path.with_suffix(".csv"))
    return path
