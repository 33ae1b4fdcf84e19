"""What a figure shows, before it is drawn: curves, and which runs they are means of."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..experiment import Experiment
from ..metrics import mean_and_error
from ..presets import preset
from ..record import Run
from ..summary import known_sections, neutral, title


class Curve(NamedTuple):
    """A line of a figure: means over seeds and their standard errors."""

    panel: str
    label: str
    x: list[float]
    mean: list[float]
    error: list[float]
    """Standard errors of the means; 0 where there is but one seed."""
    seeds: int


def curve(panel: str, label: str, x: Iterable[float], values: Tensor) -> Curve:
    """Condense values of S seeds, (S, X), to a curve of X points."""
    return Curve(panel, label, list(x), *means_and_errors(values), values.shape[0])


def over_rounds(panel: str, label: str, histories: Sequence[Tensor]) -> Curve:
    """Condense what S runs note of every round, (T,) each."""
    values = torch.stack(list(histories))
    return curve(panel, label, range(1, values.shape[1] + 1), values)


def means_and_errors(values: Tensor) -> tuple[list[float], list[float]]:
    """X means over S seeds, of (S, X) values, and their standard errors; 0 where there is but one seed."""
    found = [mean_and_error(of_seeds) for of_seeds in values.T.tolist()]
    return [mean for mean, _ in found], [error or 0.0 for _, error in found]


def write_csv(curves: Sequence[Curve], path: Path) -> None:
    """Write every point of every curve, a row each."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["panel", "curve", "x", "mean", "standard error", "seeds"])
        for c in curves:
            for x, mean, error in zip(c.x, c.mean, c.error, strict=True):
                writer.writerow([c.panel, c.label, f"{x:g}", f"{mean:.9g}", f"{error:.9g}", c.seeds])


def choose(runs: Iterable[Run], section: str, agents: int) -> list[Run]:
    """Pick the runs of CGSV in one experiment, in the order of their seeds.

    Among experiments of this title and N, without adversaries, that is the one with the most settings of the
    preset, and of several such the one with the most seeds. What CGSV does not read tells none apart.

    Parameters
    ----------
    runs : iterable of Run
        Of one dataset.
    section : str
        Of ``presets.toml``, such as ``"POW"`` or ``"figure-2"``.
    agents : int
        N.
    """
    groups: dict[Experiment, dict[int, Run]] = {}
    usual: Experiment | None = None
    for run in runs:
        e = run.experiment
        fits = run.mechanism == "CGSV" and e.agents == agents and not e.adversaries
        if not fits or section not in known_sections(e.dataset):
            continue
        usual = neutral(preset(e.dataset, section, agents), "CGSV")
        if title(e) == usual.title:
            groups.setdefault(neutral(e, "CGSV"), {})[run.seed] = run

    def closeness(e: Experiment) -> tuple[int, int]:
        return sum(getattr(e, f.name) == getattr(usual, f.name) for f in fields(e)), len(groups[e])

    found = max(groups, key=closeness, default=None)
    return [] if found is None else [groups[found][seed] for seed in sorted(groups[found])]
