"""Time rounds on gloo ranks of this machine, one core each: what ``cgsv bench distributed`` prints."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import tempfile
import time
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
import torch.distributed as dist

import cgsv_ext

from .ranks import Collective, traffic


class Case(NamedTuple):
    """What to time."""

    agents: int
    columns: int
    dtype: str = "float32"
    dim: str = "columns"
    rounds: int = 5
    dense: bool = False


class Times(NamedTuple):
    """What one rank measured, in seconds and bytes a round."""

    seconds: list[float]
    waiting: list[float]
    """In collectives, for the slower rank too."""
    collectives: list[Collective]
    """Each with the seconds of the round in which it was quickest."""
    loopback: float | None
    """Bytes that all ranks together sent over this machine's loopback, where the system says."""


def _core(rank: int) -> None:
    """Keep this process on one core."""
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})


def _loopback() -> int | None:
    """Bytes sent so far."""
    try:
        line = re.search(r"^\s*lo:(.*)$", Path("/proc/net/dev").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(line[1].split()[8]) if line else None


def _measure(rank: int, ranks: int, path: str, case: Case, grouped: bool, end: Connection) -> None:
    _core(rank)
    group = None
    if grouped:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group(
            "gloo", init_method=f"file://{path}", rank=rank, world_size=ranks, timeout=timedelta(minutes=5)
        )
        group = dist.group.WORLD
    dtype = getattr(torch, case.dtype)
    whole = case.columns if case.dim == "columns" else case.agents
    own = whole * (rank + 1) // ranks - whole * rank // ranks
    shape = (case.agents, own) if case.dim == "columns" else (own, case.columns)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(rank)).to(dtype)
    importance = torch.rand(case.agents, generator=torch.Generator().manual_seed(0))
    out = torch.zeros_like(x) if case.dense else None

    def step() -> list[Collective]:
        with traffic() as sent:
            cgsv_ext.reward_step(
                x, importance, out=out, dense=case.dense, group=group, dim=case.dim if grouped else "columns"
            )
        return sent

    for _ in range(2):
        step()
    seconds, waiting = [], []
    quickest: list[Collective] = []
    before = _loopback()
    for _ in range(case.rounds):
        if grouped:
            dist.barrier()
        start = time.perf_counter()
        sent = step()
        seconds.append(time.perf_counter() - start)
        waiting.append(sum(c.seconds for c in sent))
        quickest = [min(pair, key=lambda c: c.seconds) for pair in zip(quickest or sent, sent, strict=True)]
    if grouped:
        dist.barrier()
    after = _loopback()
    wire = None if before is None or after is None else (after - before) / case.rounds
    end.send_bytes(json.dumps(Times(seconds, waiting, quickest, wire)).encode())
    if grouped:
        dist.barrier()
        dist.destroy_process_group()


def measure(ranks: int, case: Case, *, grouped: bool = True) -> list[Times]:
    """Run the rounds on so many new processes; what each measured.

    Raises
    ------
    RuntimeError
        If one of them died.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for rank in range(ranks):
            here, there = context.Pipe(duplex=False)
            arguments = (rank, ranks, f"{folder}/store", case, grouped, there)
            process = context.Process(target=_measure, args=arguments, daemon=True)
            process.start()
            there.close()
            runs.append((here, process))
        try:
            found = [Times(*json.loads(here.recv_bytes())) for here, _ in runs]
        except EOFError:
            raise RuntimeError("a rank of the benchmark died; its error is above") from None
        finally:
            for _, process in runs:
                process.join(30)
                process.kill()
    return found


def report(counts: list[int], case: Case) -> str:
    """Time each number of ranks, and one process without a group, in that order; a table."""
    alone = median(measure(1, case, grouped=False)[0].seconds)
    every = {ranks: measure(ranks, case) for ranks in counts}
    lines = [
        f"{case.agents} × {case.columns:,} {case.dtype}, dim={case.dim!r}, dense={case.dense}, one core a "
        f"rank, medians of {case.rounds} rounds",
        "",
        f"{'ranks':>8} {'ms':>9} {'speed':>7} {'in collectives':>15}"
        f" {'put in':>12} {'sent a rank':>12} {'loopback':>12}",
        f"{'no group':>8} {alone * 1e3:9.2f} {1:6.2f}× {'':>15} {'':>12} {'':>12} {'':>12}",
    ]
    for ranks, found in every.items():
        slowest = [max(times) for times in zip(*(t.seconds for t in found), strict=True)]
        waited = [min(times) for times in zip(*(t.waiting for t in found), strict=True)]
        sent = [Collective(*c) for c in found[0].collectives]
        put, ring = sum(c.bytes for c in sent), sum(c.sent(ranks) for c in sent)
        wire = found[0].loopback
        lines.append(
            f"{ranks:>8} {median(slowest) * 1e3:9.2f} {alone / median(slowest):6.2f}× "
            f"{median(waited) * 1e3:12.2f} ms {put:12,} {ring:12,.0f} "
            f"{'' if wire is None else format(wire, ',.0f'):>12}"
        )
    lines += ["", f"{'collective':<20} {'bytes put in':>12}" + "".join(f"{f'{r} ranks':>12}" for r in counts)]
    for k, (what, kind, size, _) in enumerate(every[counts[-1]][0].collectives):
        least = [min(t.collectives[k][3] for t in found) for found in every.values()]
        times = "".join(f"{seconds * 1e6:9.0f} µs" for seconds in least)
        lines.append(f"{what + ', ' + kind:<20} {size:12,}{times}")
    lines += [
        "",
        "In collectives: on the rank that waited least; of one, in its quickest round.",
        "Put in: by each rank. Sent a rank: computed, around a ring.",
        "Loopback: counted by the system, all ranks together and whatever else this machine sends itself.",
    ]
    return "\n".join(lines)
