"""``cgsv demo``: the paper's Figure 2 and CLA in one command, with a report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from . import report
from .mechanism import MECHANISMS
from .presets import DEMO, Experiment
from .progress import Progress
from .seeds import generator
from .server import Run, federation, run
from .threads import one_thread

FIRST_SEED = 2021
"""Settings were chosen on other seeds (100 to 109)."""


def demo(out: Path, seeds: int, console: Console | None = None, *, log_shapley: bool = False) -> None:
    """Run every experiment with every mechanism over several seeds; write and print what came out.

    Parameters
    ----------
    out : Path
        The folder to write; made if need be.
    seeds : int
        How many seeds: 2021, 2022, and so on.
    console : rich.console.Console, optional
        Where progress and the closing tables go; by default standard output.
    log_shapley : bool
        Also log exact Shapley values and report how far ψ is from them.
    """
    console = console or Console()
    began = time.perf_counter()
    runs = run_all(DEMO, range(FIRST_SEED, FIRST_SEED + seeds), console, log_shapley=log_shapley)
    plain_loop = {e.name: plain_loop_seconds(e, FIRST_SEED) for e in DEMO}
    result = report.Result(runs, plain_loop, seconds=time.perf_counter() - began)
    report.write(result, out)
    report.show(result, console)
    console.print(f"\n{time.perf_counter() - began:.0f} s in all. Open {out / 'report.html'}", soft_wrap=True)


def run_all(
    experiments: Sequence[Experiment], seeds: Sequence[int], console: Console, *, log_shapley: bool = False
) -> list[Run]:
    """Every experiment × seed × mechanism, one after the other."""
    for experiment in experiments:
        for mechanism in MECHANISMS:
            run(replace(experiment, rounds=1), mechanism, seeds[0])  # first calls would distort timings
    runs = []
    with Progress(experiments, len(seeds) * len(MECHANISMS), console) as progress:
        for experiment in experiments:
            for seed in seeds:
                for mechanism in MECHANISMS:
                    on_round = progress.start(experiment, mechanism, seed)
                    runs.append(run(experiment, mechanism, seed, on_round, log_shapley=log_shapley))
                    progress.finish(runs[-1])
    return runs


@one_thread()
def plain_loop_seconds(experiment: Experiment, seed: int, rounds: int = 10) -> float:
    """Time a round of local training in which agents train one after another: the least of a few.

    The demo trains all agents together, which is faster; this is what the same steps cost otherwise.
    """
    agents, batches = federation(experiment, seed), generator(seed, "batches")
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        agents.train_one_by_one(experiment.steps, experiment.batch_size, experiment.lr, batches)
        times.append(time.perf_counter() - began)
    return min(times)
