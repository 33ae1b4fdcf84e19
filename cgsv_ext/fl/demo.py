"""``cgsv demo``: the paper's Figure 2 and CLA in one command, with a report."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from . import report, table
from .presets import DEMO, FIRST_SEED
from .spec import Spec
from .store import Store, run_all

MECHANISMS = ("CGSV", "FedAvg", "standalone")


def demo(out: Path, seeds: int, console: Console | None = None, *, log_shapley: bool = False) -> None:
    """Run every experiment with every mechanism over several seeds; write and print what came out.

    Parameters
    ----------
    out : Path
        The folder to write; made if need be. Runs are kept in ``runs`` and not made twice.
    seeds : int
        How many seeds: 2021, 2022, and so on.
    console : rich.console.Console, optional
        Where progress and the closing tables go; by default standard output.
    log_shapley : bool
        Also log exact Shapley values and report how far ψ is from them.
    """
    console = console or Console()
    began = time.perf_counter()
    specs = [
        Spec(experiment, mechanism, seed, log_shapley)
        for experiment in DEMO
        for seed in range(FIRST_SEED, FIRST_SEED + seeds)
        for mechanism in MECHANISMS
    ]
    runs = run_all(specs, Store(out / "runs"), console=console)
    command = f"cgsv demo --seeds {seeds}" + (" --log-shapley" if log_shapley else "")
    results = report.write(runs, out, command=command)
    claims = report.claims_table(results.claims)
    for each in (*results.mechanisms_tables(), claims, *results.agreement_tables()):
        table.show(each, console)
    console.print(f"\n{time.perf_counter() - began:.0f} s in all. Open {out / 'report.html'}", soft_wrap=True)
