"""One whole round, against the paper's letter and against the best plain PyTorch."""

from __future__ import annotations

import floor
import peers
import pytest
import torch
from cases import LARGE, WHOLE, Size, importance, updates
from race import Entrant, Race

from cgsv_ext import download_, norms, reward_step


@pytest.mark.parametrize("size", WHOLE, ids=Size.label)
def bench_reward_step(size: Size, race: Race, quick: bool) -> None:
    n, d = size
    x, r, out = updates(size), importance(n), torch.zeros(size)
    parameters, found = torch.zeros(size), norms(x)
    need = floor.dense(n, d)

    def step_in_place() -> None:
        step = reward_step(x, r, dense=False)
        download_(parameters, step.aggregate, step.selection)

    entrants = [
        Entrant("dense, out=", lambda: reward_step(x, r, out=out), need),
        floor.copy(need),
        Entrant("dense", lambda: reward_step(x, r), need),
        Entrant("dense, out=, norms=", lambda: reward_step(x, r, norms=found, out=out), need - n * d * 4),
        Entrant("dense=False", lambda: reward_step(x, r, dense=False), floor.lean(n, d)),
        Entrant("dense=False, download_", step_in_place, floor.in_place(n, d)),
        Entrant("PyTorch, one sort", lambda: peers.one_sort(x, r, out), need),
        Entrant("PyTorch, one sort, broadcast mask", lambda: peers.one_sort_broadcast(x, r, out), need),
        Entrant("PyTorch, one argsort to ranks", lambda: peers.one_argsort(x, r, out), need),
        Entrant("NumPy, one partition", lambda: peers.one_partition(x, r, out), need),
        Entrant("PyTorch, paper-literal loop", lambda: peers.paper_loop(x, r), need),
    ]
    if not quick and (fused := peers.compiled(peers.one_sort_fused, x, r, out)) is not None:
        entrants.append(Entrant("torch.compile, one sort", fused, need))
    race(size.case("reward_step"), entrants)


@pytest.mark.full
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def bench_dtype(dtype: torch.dtype, race: Race) -> None:
    """Beside float32, in turn."""
    n, d = LARGE
    x, y, r = updates(LARGE), updates(LARGE, dtype), importance(n)
    out_x, out_y = torch.zeros_like(x), torch.zeros_like(y)
    wide = 8 if dtype == torch.float64 else 4
    need = floor.dense(n, d, y.itemsize, y.itemsize, wide)
    name = str(dtype).removeprefix("torch.")
    entrants = [
        Entrant(name, lambda: reward_step(y, r, out=out_y), need),
        floor.copy(need),
        Entrant("float32", lambda: reward_step(x, r, out=out_x), floor.dense(n, d)),
    ]
    race(LARGE.case("reward_step", dtype=name), entrants, base="float32")
