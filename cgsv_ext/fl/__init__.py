"""Federated learning in pure Python that reproduces the paper.

A newcomer's path: ``presets`` (every setting), ``server`` (the rounds, as in the paper's pseudocode),
``mechanism`` (what the server decides), ``agent`` and ``model`` (local training in the rows of one matrix),
``partition`` and ``data`` (who knows what), ``metrics`` (fairness), ``report`` (tables, plots, one page).

>>> from cgsv_ext import fl
>>> result = fl.run(fl.FIGURE_2, "CGSV", seed=1)
>>> result.importance.mean(0)  # doctest: +SKIP
"""

from .data import Dataset, digits
from .mechanism import MECHANISMS, Mechanism, Outcome
from .metrics import rho
from .partition import PARTITIONS
from .presets import CLA_10, FIGURE_2, Experiment
from .server import Run, run

__all__ = [
    "CLA_10",
    "FIGURE_2",
    "MECHANISMS",
    "PARTITIONS",
    "Dataset",
    "Experiment",
    "Mechanism",
    "Outcome",
    "Run",
    "digits",
    "rho",
    "run",
]
