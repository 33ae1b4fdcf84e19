"""What a report is made of: runs in groups, their summaries, and each picture drawn once."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ..claims import Claim, claims
from ..experiment import Experiment
from ..figures import FIGURES
from ..figures.look import WIDE
from ..record import Run
from ..spec import Spec
from ..summary import Summary, federation, heading, label, order, summarise
from ..table import TABLES, Table, adversaries, fairness
from . import plots
from .tables import agreement_table, cost_table, mechanisms_table


class Picture:
    """A drawn figure: its PNG, and what is to be said under it."""

    def __init__(self, figure: Figure, caption: str) -> None:
        file = io.BytesIO()
        figure.set_dpi(110)
        # Figure.savefig would lay out and draw it twice.
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        # 256 colours look the same and take a third: the page of the paper's runs holds 120 pictures.
        pixels.quantize(256, dither=Image.Dither.NONE).save(file, "png")
        self.png = file.getvalue()
        self.caption = caption
        self.wide = figure.get_figwidth() >= WIDE


@dataclass
class Federation:
    """One federation, and what became of it under each mechanism."""

    name: str
    """For file names and links; no other federation's."""
    heading: str
    experiment: Experiment
    """As CGSV ran it, or else whichever mechanism did."""
    runs: dict[str, list[Run]]
    """By label, such as ``CGSV β=1.5``."""
    summaries: dict[str, Summary]

    @property
    def cgsv(self) -> str | None:
        """The label of CGSV, with the preset's settings if it was run with them."""
        found = [name for name, s in self.summaries.items() if s.mechanism == "CGSV"]
        return min(found, key=len, default=None)

    @cached_property
    def pictures(self) -> dict[str, Picture]:
        """What can be drawn of these runs, by file name."""
        figures = plots.federation_figures(self.experiment, self.runs, self.summaries, self.cgsv)
        return {f"{self.name}_{plot}": Picture(f, plots.CAPTIONS[plot]) for plot, f in figures.items()}


class Results:
    """All runs of a report.

    Adversaries have tables of their own, :meth:`adversaries_tables`; all else is of ``runs``, where there
    are none: theirs would be another column of every table, and a section for each group of them.

    Parameters
    ----------
    runs : list of Run
        One that is there both with exact Shapley values and without counts once, with them.
    command : str
        What makes the report anew.
    """

    def __init__(self, runs: list[Run], command: str) -> None:
        unique = {_same(run): run for run in sorted(runs, key=lambda run: run.log_shapley)}
        self.every = sorted(unique.values(), key=order)
        self.runs = [run for run in self.every if not run.experiment.adversaries]
        self.command = command
        self.seeds = sorted({run.seed for run in runs})
        self.datasets = list(dict.fromkeys(run.experiment.dataset for run in self.every))
        self.claims: list[Claim] = claims(self.every)

    @cached_property
    def federations(self) -> list[Federation]:
        """The runs by federation, in the order of the tables."""
        groups: dict[Experiment, dict[str, list[Run]]] = {}
        for run in self.runs:
            groups.setdefault(federation(run), {}).setdefault(label(run), []).append(run)
        summaries, found, names = summarise(self.runs), [], set[str]()
        for key, by_label in groups.items():
            each = sorted(by_label.items(), key=lambda item: (item[1][0].mechanism != "CGSV", len(item[0])))
            experiment = each[0][1][0].experiment
            name, k = experiment.name, 1
            while name in names:
                k += 1
                name = f"{experiment.name}-{k}"
            names.add(name)
            text = heading(key)
            if len(self.datasets) > 1:
                text = f"{key.dataset}: {text}"
            found.append(Federation(name, text, experiment, by_label, summaries[key]))
        return found

    @cached_property
    def figures(self) -> dict[str, dict[int, Picture]]:
        """The paper's figures that the runs suffice for, by dataset and number."""
        found: dict[str, dict[int, Picture]] = {}
        for dataset in self.datasets:
            runs = [run for run in self.runs if run.experiment.dataset == dataset]
            for number, module in FIGURES.items():
                if module.curves(runs):
                    picture = Picture(module.draw(runs), module.CAPTION)
                    found.setdefault(dataset, {})[number] = picture
        return found

    @cached_property
    def cost(self) -> Picture | None:
        """What the reward step costs beside training; None without runs of CGSV."""
        figure = plots.cost([(f.heading, f.runs[f.cgsv]) for f in self.federations if f.cgsv])
        return None if figure is None else Picture(figure, plots.CAPTIONS["time"])

    @property
    def pictures(self) -> dict[str, Picture]:
        """Every picture by file name, without its ending."""
        found = {name: picture for f in self.federations for name, picture in f.pictures.items()}
        for dataset, figures in self.figures.items():
            found |= {f"{dataset}_figure-{number}": picture for number, picture in figures.items()}
        return found | ({"time": self.cost} if self.cost else {})

    def overhead(self, kind: str) -> float | None:
        """Time of all reward steps of CGSV over that of its ``"training"``, or of the ``"plain loop"``."""
        runs = [run for run in self.runs if run.mechanism == "CGSV" and run.seconds.get(kind)]
        if not runs:
            return None
        return sum(run.seconds["reward"] for run in runs) / sum(run.seconds[kind] for run in runs)

    def mechanisms_tables(self) -> list[Table]:
        """Accuracy and fairness of every mechanism, a table for each federation."""
        return [mechanisms_table(f.heading, f.summaries) for f in self.federations]

    def paper_tables(self) -> list[Table]:
        """The paper's Tables 1 to 3, and what to read beside ρ."""
        return [table for make in (*TABLES.values(), fairness) for table in make(self.runs)]

    def adversaries_tables(self) -> list[Table]:
        """What adversaries get, and what they cost the others; none where none joined."""
        return adversaries(self.every)

    def agreement_tables(self) -> list[Table]:
        """How far ψ is from φ, a table for each federation in which both were logged."""
        found = [agreement_table(f.heading, f.summaries) for f in self.federations]
        return [table for table in found if table.rows]

    def cost_table(self) -> Table:
        """Where the time goes."""
        return cost_table({f.heading: f.runs for f in self.federations})


def _same(run: Run) -> str:
    return Spec(run.experiment, run.mechanism, run.seed).key
