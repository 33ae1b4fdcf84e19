"""From finished runs to one page that needs no other file, and its numbers beside it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..record import Run
from ..store import Store
from .numbers import write_numbers
from .page import page
from .results import Results
from .tables import claims_table

__all__ = ["Results", "claims_table", "report", "write"]


def report(folder: Path, out: Path | None = None) -> Path:
    """Gather the runs in a folder into a page.

    Parameters
    ----------
    folder : Path
        Where a command wrote its results, with the runs under ``runs``; or a store itself.
    out : Path, optional
        The page; by default ``report.html`` in the folder.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ValueError
        Where there are no runs.
    """
    places = [folder / "runs", folder]
    runs = next((found for place in places if (found := list(Store(place).runs()))), [])
    if not runs:
        raise ValueError(
            f"report(): expected finished runs in {places[0]} or {places[1]}, got none; "
            f"cgsv demo, run, table and figure with --out {folder} leave them there"
        )
    out = out or folder / "report.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(Results(runs, f"cgsv report {folder}")), encoding="utf-8")
    return out


def write(runs: Iterable[Run], out: Path, *, command: str) -> Results:
    """Write the page and, beside it, its pictures and numbers.

    These are ``report.html``, a PNG for every picture, ``results.json``, ``rounds.csv`` and ``summary.md``.

    Parameters
    ----------
    runs : iterable of Run
        Any runs; what they suffice for is shown.
    out : Path
        The folder; made if need be.
    command : str
        What makes all this anew.
    """
    results = Results(list(runs), command)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.html").write_text(page(results), encoding="utf-8")
    write_numbers(results, out)
    return results
