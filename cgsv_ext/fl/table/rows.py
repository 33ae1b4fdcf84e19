"""All that is measured, in long form: one row per federation, mechanism and seed."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from ..experiment import FIELDS
from ..metrics import correlations, fairness, final_accuracy, gain, theorem_2
from ..record import Run
from ..summary import label, order, pair


def write_csv(runs: Iterable[Run], path: Path) -> None:
    """Write a row per run: its settings, every metric, and what they come from, agent by agent.

    Columns named ``agents: …`` hold N numbers with spaces between them. An empty cell is undefined, or not
    there. Accuracies are in [0, 1], ρ in [-100, 100].
    """
    rows = [_row(run, alone) for run, alone in pair(sorted(runs, key=order))]
    head = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, head, restval="")
        writer.writeheader()
        writer.writerows({name: _text(value) for name, value in row.items()} for row in rows)


def _row(run: Run, alone: Run | None) -> dict[str, Any]:
    e, accuracy = run.experiment, final_accuracy(run)
    row: dict[str, Any] = {
        "label": label(run),
        "mechanism": run.mechanism,
        "seed": run.seed,
        **{name: getattr(e, name) for name in FIELDS},
        "accuracy mean": accuracy.mean(),
        "accuracy max": accuracy.max(),
        "accuracy min": accuracy.min(),
        "server accuracy": run.server_accuracy[-1],
        "server loss": run.server_loss[-1],
    }
    if alone is not None and run is not alone:
        row |= {"rho": fairness(run, alone)}
        row |= {f"gain {name}": value for name, value in gain(run, alone)._asdict().items()}
        for when, importance in (("final", run.importance[-1:]), ("mean", run.importance)):
            found = correlations(importance, run, alone)._asdict()
            row |= {f"r {when} ~ {name}": value for name, value in found.items()}
    counts = theorem_2(run)
    row |= {f"theorem 2 {name}": value for name, value in (counts._asdict() if counts else {}).items()}
    row |= {f"seconds {name}": value for name, value in run.seconds.items()}
    row |= {
        "agents: samples": run.histogram.sum(1),
        "agents: accuracy": run.accuracy[-1],
        "agents: loss": run.loss[-1],
        "agents: training loss": run.training_loss,
        "agents: importance final": run.importance[-1],
        "agents: importance mean": run.importance.mean(0),
        "agents: sparsity mean": run.sparsity.mean(0),
        "agents: distance": run.distance[-1],
    }
    if alone is not None:
        row["agents: standalone accuracy"] = alone.accuracy[-1]
    return row


def _text(value: object) -> str:
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        cells = [_text(each) or "nan" for each in value]
        return "" if set(cells) == {"nan"} else " ".join(cells)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.10g}" if isinstance(value, float) else str(value)
