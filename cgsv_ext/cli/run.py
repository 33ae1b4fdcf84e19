"""``cgsv run``."""

from __future__ import annotations

import argparse

from rich.console import Console

from ..fl.data import load
from ..fl.experiment import Experiment
from ..fl.mechanism import MECHANISMS
from ..fl.partition import describe
from ..fl.presets import preset, sections
from ..fl.report.tables import agents_table, mechanisms_table
from ..fl.spec import Spec
from ..fl.summary import heading, label, summarise
from ..fl.table import Table, show
from .options import add_changes, add_data, add_running, changes
from .running import make, seeds, user_errors


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = (
        "Run one experiment with some mechanisms and seeds, and print what came of it. What was run before "
        "with the same settings is not run again."
    )
    add_data(parser)
    parser.add_argument(
        "--partition", default="UNI", help="such as UNI, POW, CLA, DIR, NOI: by default %(default)s"
    )
    parser.add_argument("--agents", type=int, metavar="N", help="by default 5")
    parser.add_argument(
        "--mechanisms",
        nargs="+",
        default=["standalone", "FedAvg", "CGSV"],
        choices=list(MECHANISMS),
        metavar="M",
        help="by default standalone FedAvg CGSV; there are %(choices)s",
    )
    parser.add_argument(
        "--show-partition",
        action="store_true",
        help="print what each agent holds, for each seed, and run nothing",
    )
    add_running(parser)
    add_changes(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Run it, and print tables of mechanisms and of agents."""
    console = Console()
    with user_errors("run"):
        only = sections(arguments.dataset).get(arguments.partition)
        agents = 5 if arguments.agents is None and only is None else arguments.agents
        e = preset(arguments.dataset, arguments.partition, agents, **changes(arguments))
    if arguments.show_partition:
        with user_errors("run"):
            tables = [_holdings(e, seed, arguments) for seed in seeds(arguments)]
        for table in tables:
            show(table, console)
        return 0
    specs = [Spec(e, name, seed) for seed in seeds(arguments) for name in dict.fromkeys(arguments.mechanisms)]
    runs = make(specs, arguments, console)
    for federation, summaries in summarise(runs).items():
        by_label = {name: [run for run in runs if label(run) == name] for name in summaries}
        title = f"{federation.dataset}, {heading(federation)}"
        show(mechanisms_table(title, summaries), console)
        show(agents_table(title, by_label, summaries), console)
    if not arguments.cache:
        console.print(f"\ncgsv report {arguments.out} makes a page of these runs.", soft_wrap=True)
    return 0


def _holdings(e: Experiment, seed: int, arguments: argparse.Namespace) -> Table:
    data = load(e.dataset, arguments.data, seed)
    rows = [
        [each.agent, str(each.size), f"{100 * each.noise:.1f} %", *map(str, each.counts)]
        for each in describe(data, e, seed)
    ]
    head = ["agent", "samples", "wrong labels", *(f"class {c}" for c in range(data.classes))]
    return Table(f"{e.dataset}, {heading(e)}, seed {seed}: samples by the agents' own labels", head, rows)
