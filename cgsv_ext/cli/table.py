"""``cgsv table``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

from rich.console import Console

from ..fl.mechanism import MECHANISMS
from ..fl.record import Run
from ..fl.spec import Spec
from ..fl.table import (
    BETAS,
    PARTITIONS,
    TABLES,
    Table,
    adversaries,
    adversary,
    adversary_specs,
    as_markdown,
    fairness,
    show,
    table_specs,
    write_csv,
)
from .options import add_changes, add_data, add_running, changes, positive
from .running import make, seeds, user_errors

_TABLES: dict[str, Callable[[Iterable[Run]], list[Table]]] = {
    **{str(number): table for number, table in TABLES.items()},
    "fairness": fairness,
    "adversaries": adversaries,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = (
        "Table 1: average (maximum) accuracy; 2: fairness ρ; 3: time overhead; fairness: gains over "
        "standalone, what importance goes along with, Theorem 2; adversaries: what is given to "
        "who sends noise, copies and so on. Prints it and writes "
        "table-NUMBER-DATASET.md and .csv, the latter with all that was measured in every run. Tables share "
        "their runs, and what was run before is not run again."
    )
    parser.add_argument("number", choices=list(_TABLES), help="of the table")
    add_data(parser)
    parser.add_argument(
        "--agents", type=positive, nargs="+", default=[5, 10], metavar="N", help="by default 5 10"
    )
    parser.add_argument(
        "--partitions",
        nargs="+",
        metavar="P",
        help=f"sections of the dataset in presets.toml: by default {' '.join(PARTITIONS)}, or of adversaries "
        f"{' '.join(adversary.PARTITIONS)}",
    )
    parser.add_argument(
        "--mechanisms",
        nargs="+",
        choices=list(MECHANISMS),
        metavar="M",
        help=f"by default all, %(choices)s, or of adversaries {', '.join(adversary.NAMES)}",
    )
    parser.add_argument(
        "--betas",
        nargs="+",
        metavar="β",
        help=f"of CGSV: by default {' '.join(f'{beta:g}' for beta in BETAS)}, or of adversaries 1; N and "
        "10N grow with the agents",
    )
    add_running(parser)
    add_changes(parser, "beta")


def execute(arguments: argparse.Namespace) -> int:
    """Run what it takes; print and write the table."""
    console, number = Console(), arguments.number
    with user_errors("table"):
        specs = _specs(arguments)
    runs = make(specs, arguments, console)
    tables = _TABLES[number](runs)
    for table in tables:
        show(table, console)
    with user_errors("table"):
        arguments.out.mkdir(parents=True, exist_ok=True)
        path = arguments.out / f"table-{number}-{arguments.dataset}.md"
        path.write_text("\n\n".join(map(as_markdown, tables)) + "\n", encoding="utf-8")
        write_csv(runs, path.with_suffix(".csv"))
    console.print(f"Written to {path} and {path.with_suffix('.csv')}", highlight=False, soft_wrap=True)
    return 0


def _specs(arguments: argparse.Namespace) -> list[Spec]:
    number = arguments.number
    if number == "adversaries":
        return adversary_specs(
            arguments.dataset,
            arguments.agents,
            arguments.partitions or adversary.PARTITIONS,
            arguments.mechanisms or adversary.NAMES,
            seeds(arguments),
            arguments.betas or (),
            changes(arguments),
        )
    return table_specs(
        int(number) if number.isdigit() else number,
        arguments.dataset,
        arguments.agents,
        arguments.partitions or PARTITIONS,
        arguments.mechanisms,
        seeds(arguments),
        arguments.betas or BETAS,
        changes(arguments),
    )
