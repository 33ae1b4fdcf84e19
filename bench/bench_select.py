from __future__ import annotations

import floor
import peers
import pytest
import torch
from cases import STEPS, Size, quotas
from race import Entrant, Race

from cgsv_ext import reference, select


@pytest.mark.parametrize("size", STEPS, ids=Size.label)
def bench_select(size: Size, race: Race, quick: bool) -> None:
    u = torch.randn(size.d, generator=torch.Generator().manual_seed(0))
    q = quotas(size)
    need = floor.select(size.d)
    entrants = [
        Entrant("select", lambda: select(u, q), need),
        floor.copy(need),
        Entrant("PyTorch, one sort", lambda: peers.by_sort(u, q), need),
        Entrant("PyTorch, one argsort to ranks", lambda: peers.by_ranks(u, q), need),
        Entrant("PyTorch, a topk per agent", lambda: peers.by_topk(u, q), need),
        Entrant("NumPy, one partition", lambda: peers.by_partition(u, q), need),
        Entrant("reference", lambda: reference.select(u, q), need),
    ]
    if not quick and (fused := peers.compiled(peers.by_sort, u, q)) is not None:
        entrants.append(Entrant("torch.compile, one sort", fused, need))
    race(size.case("select"), entrants)
