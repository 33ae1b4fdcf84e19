"""Federated learning in pure Python that reproduces the paper.

A newcomer's path: ``presets`` and ``experiment`` (every setting), ``rounds`` (as in the paper's
pseudocode), ``mechanism`` (what the server decides), ``agent`` and ``model`` (local training in the rows
of one matrix), ``partition``, ``adversary`` and ``data`` (who knows what and does what), ``record`` and
``store`` (what is kept of a run), ``metrics``, ``table``, ``figures``, ``claims`` and ``report`` (what is
made of the runs).

>>> from cgsv_ext import fl
>>> result = fl.run(fl.FIGURE_2, "CGSV", seed=1)
>>> result.importance.mean(0)  # doctest: +SKIP
"""

from .adversary import ADVERSARIES
from .data import DATASETS, Dataset, load
from .experiment import Experiment
from .mechanism import MECHANISMS, Mechanism, Outcome
from .metrics import rho
from .model import MODELS
from .partition import PARTITIONS
from .presets import CLA_10, FIGURE_2, preset
from .record import Run
from .rounds import run
from .store import Spec, Store, run_all

__all__ = [
    "ADVERSARIES",
    "CLA_10",
    "DATASETS",
    "FIGURE_2",
    "MECHANISMS",
    "MODELS",
    "PARTITIONS",
    "Dataset",
    "Experiment",
    "Mechanism",
    "Outcome",
    "Run",
    "Spec",
    "Store",
    "load",
    "preset",
    "rho",
    "run",
    "run_all",
]
