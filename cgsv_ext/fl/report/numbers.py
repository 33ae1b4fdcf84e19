"""What the page shows, for programs and for other pages."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..environment import environment
from ..summary import Agreement
from ..table import as_markdown
from .results import Results
from .tables import agents_table, claims_table


def write_numbers(results: Results, out: Path) -> None:
    """Write the PNGs, ``results.json``, ``rounds.csv`` and ``summary.md`` into a folder."""
    for name, picture in results.pictures.items():
        (out / f"{name}.png").write_bytes(picture.png)
    numbers = json.dumps(_plain(_numbers(results)), indent=1, allow_nan=False)
    (out / "results.json").write_text(numbers + "\n", encoding="utf-8")
    (out / "summary.md").write_text(_markdown(results), encoding="utf-8")
    _write_rounds(results, out / "rounds.csv")


def _markdown(results: Results) -> str:
    tables = [*results.mechanisms_tables(), claims_table(results.claims), *results.paper_tables()]
    tables += [*results.adversaries_tables(), *results.agreement_tables(), results.cost_table()]
    tables += [agents_table(f.heading, f.runs, f.summaries) for f in results.federations]
    count = len(results.seeds)
    command = f"Written by `{results.command}`; means ± standard errors over {count} seed{'s' * (count > 1)}."
    head = ["# Fair rewards in federated learning", command]
    return "\n\n".join([*head, *(as_markdown(table) for table in tables if table.rows)]) + "\n"


def _numbers(results: Results) -> dict[str, Any]:
    """What is reported of runs without adversaries, per seed and agent."""
    return {
        "command": results.command,
        "environment": environment(),
        "seeds": results.seeds,
        "reward_step_over_training": {
            "as_run": results.overhead("training"),
            "plain_loop": results.overhead("plain loop"),
        },
        "claims": [{"expected": c.expected, "found": c.found, "met": c.met} for c in results.claims],
        "experiments": {
            f.name: {
                "settings": asdict(f.experiment),
                "mechanisms": {
                    name: {
                        "seeds": s.seeds,
                        "accuracy": s.accuracy,
                        "server_accuracy": s.server_accuracy,
                        "rho": s.rho,
                        "mean_importance": s.importance,
                        "mean_sparsity": s.sparsity,
                        "distance": s.distance,
                        "seconds": s.seconds,
                        "psi_against_shapley": s.agreement and _against(s.agreement),
                    }
                    for name, s in f.summaries.items()
                },
            }
            for f in results.federations
        },
    }


def _plain(value: Any) -> Any:
    """What JSON can hold: null for NaN, which stands for what a mechanism does not have; infinity as text."""
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _against(agreement: Agreement) -> dict[str, Any]:
    names = ("kendall", "pearson", "l1")
    each = zip(names, agreement.rounds.unbind(2), agreement.means.unbind(1), strict=True)
    return {name: {"by_round": rounds, "of_means": means} for name, rounds, means in each}


def _write_rounds(results: Results, path: Path) -> None:
    head = ["experiment", "mechanism", "seed", "round", "agent"]
    quantities = ["accuracy", "importance", "sparsity", "distance", "cosines", "shapley"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*head, *quantities, "server_accuracy"])
        every = (
            (f.name, name, r) for f in results.federations for name, runs in f.runs.items() for r in runs
        )
        for experiment, mechanism, run in every:
            tables = [getattr(run, name).tolist() for name in quantities]
            server = run.server_accuracy.tolist()
            for t in range(run.experiment.rounds):
                for i, agent in enumerate(run.experiment.agent_names):
                    values = [*(table[t][i] for table in tables), server[t]]
                    cells = ["" if math.isnan(value) else f"{value:.6g}" for value in values]
                    writer.writerow([experiment, mechanism, run.seed, t + 1, agent, *cells])
