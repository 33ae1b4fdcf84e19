"""The report of a demo: numbers, plots and one page that needs no other file."""

from __future__ import annotations

import base64
import csv
import json
import math
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import torch
from rich.console import Console
from rich.table import Table as RichTable

import cgsv_ext

from ..server import Run
from ..summary import Agreement
from . import plots
from .result import Result
from .tables import (
    Table,
    agents_table,
    agreement_table,
    as_markdown,
    checks_table,
    cost_table,
    mechanisms_table,
    settings_table,
)

__all__ = ["Result", "environment", "show", "write"]


def write(result: Result, out: Path) -> None:
    """Write ``report.html``, the PNGs, ``results.json``, ``rounds.csv`` and ``summary.md``."""
    out.mkdir(parents=True, exist_ok=True)
    figures = plots.draw(result)
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=150)
    images = {name: _inline(out / f"{name}.png") for name in figures}
    (out / "report.html").write_text(_page(result, images), encoding="utf-8")
    (out / "results.json").write_text(json.dumps(_numbers(result), indent=1) + "\n", encoding="utf-8")
    (out / "summary.md").write_text(_markdown(result), encoding="utf-8")
    _write_rounds(result.runs, out / "rounds.csv")


def show(result: Result, console: Console) -> None:
    """Print the closing tables."""
    for table in (*_mechanisms(result), checks_table(result), *_agreement(result)):
        rich = RichTable(title=table.title, title_justify="left", title_style="bold")
        for head in table.head:
            rich.add_column(head)
        for row in table.rows:
            rich.add_row(*row)
        console.print(rich)


def _page(result: Result, images: dict[str, str]) -> str:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    templates = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return templates.get_template("template.html").render(
        result=result,
        images=images,
        mechanisms=_mechanisms(result),
        checks=checks_table(result),
        agreement=_agreement(result),
        cost=cost_table(result),
        sections=[(e, settings_table(e), agents_table(result.summaries[e.name])) for e in result.experiments],
        environment=environment(),
    )


def _markdown(result: Result) -> str:
    tables = [*_mechanisms(result), checks_table(result), *_agreement(result), cost_table(result)]
    tables += [agents_table(result.summaries[e.name]) for e in result.experiments]
    command = f"Written by `{result.command}`; means ± standard errors over {len(result.seeds)} seeds."
    return "\n\n".join(["# Fair rewards on handwritten digits", command, *map(as_markdown, tables)]) + "\n"


def _mechanisms(result: Result) -> list[Table]:
    return [mechanisms_table(mechanisms) for mechanisms in result.summaries.values()]


def _agreement(result: Result) -> list[Table]:
    return [agreement_table(result.summaries[e.name]) for e in result.experiments if result.logged]


def _numbers(result: Result) -> dict[str, Any]:
    """Everything that is reported, per seed and agent."""
    return {
        "command": result.command,
        "environment": environment(),
        "seconds": round(result.seconds, 1),
        "seeds": result.seeds,
        "reward_step_over_training": {
            "batched": result.overhead(plain_loop=False),
            "plain_loop": result.overhead(plain_loop=True),
        },
        "checks": [
            {"expected": check.expected, "found": check.found, "met": check.met} for check in result.checks
        ],
        "experiments": {
            e.name: {
                "settings": asdict(e),
                "plain_loop_seconds_per_round": result.plain_loop[e.name],
                "mechanisms": {
                    name: {
                        "accuracy": _values(s.accuracy),
                        "server_accuracy": _values(s.server_accuracy),
                        "rho": s.rho,
                        "mean_importance": _values(s.importance),
                        "mean_sparsity": _values(s.sparsity),
                        "distance": _values(s.distance),
                        "seconds": s.seconds,
                        "psi_against_shapley": s.agreement and _against(s.agreement),
                    }
                    for name, s in result.summaries[e.name].items()
                },
            }
            for e in result.experiments
        },
    }


def _values(tensor: torch.Tensor) -> Any:
    """Nested lists; null stands for what a mechanism does not have."""
    if tensor.dim() > 1:
        return [_values(row) for row in tensor]
    return [None if math.isnan(value) else value for value in tensor.tolist()]


def _against(agreement: Agreement) -> dict[str, Any]:
    names = ("kendall", "pearson", "l1")
    each = zip(names, agreement.rounds.unbind(2), agreement.means.unbind(1), strict=True)
    return {name: {"by_round": _values(rounds), "of_means": _values(means)} for name, rounds, means in each}


def environment() -> dict[str, str]:
    """What numbers depend on beside the settings."""
    return {
        "processor": _processor(),
        "threads": "1",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cgsv_ext": cgsv_ext.__version__,
        "instruction set": str(cgsv_ext.build_info()["isa"]),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _inline(image: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(image.read_bytes()).decode("ascii")


def _write_rounds(runs: list[Run], path: Path) -> None:
    head = ["experiment", "mechanism", "seed", "round", "agent"]
    quantities = ["accuracy", "importance", "sparsity", "distance", "cosines", "shapley"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*head, *quantities, "server_accuracy"])
        for run in runs:
            tables = [getattr(run, name).tolist() for name in quantities]
            server = run.server_accuracy.tolist()
            for t in range(run.experiment.rounds):
                for i, agent in enumerate(run.experiment.agent_names):
                    values = [*(table[t][i] for table in tables), server[t]]
                    cells = ["" if math.isnan(value) else f"{value:.6g}" for value in values]
                    writer.writerow([run.experiment.name, run.mechanism, run.seed, t + 1, agent, *cells])
