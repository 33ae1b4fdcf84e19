from __future__ import annotations

import floor
import peers
import pytest
import torch
from cases import STEPS, Size, quotas
from race import Entrant, Race
from torch import Tensor

from cgsv_ext import Selection, download, download_, reference, select


def _inputs(size: Size) -> tuple[Tensor, Tensor, Selection, Tensor]:
    u = torch.randn(size.d, generator=torch.Generator().manual_seed(0))
    q = quotas(size)
    return u, q, select(u, q), peers.by_sort(u, q)


@pytest.mark.parametrize("size", STEPS, ids=Size.label)
def bench_download(size: Size, race: Race, quick: bool) -> None:
    u, q, selection, threshold = _inputs(size)
    out = torch.zeros(size)
    need = floor.download(*size)
    entrants = [
        Entrant("download, out=", lambda: download(u, selection, out=out), need),
        floor.copy(need),
        Entrant("download", lambda: download(u, selection), need),
        Entrant("PyTorch, broadcast mask", lambda: peers.broadcast_mask(u, threshold, out), need),
        Entrant("PyTorch, a hardshrink per agent", lambda: peers.hardshrink(u, threshold, out), need),
        Entrant("reference", lambda: reference.download(u, selection), need),
        Entrant("reference, a topk per agent", lambda: reference.rewards_by_topk(u, q), need),
    ]
    if not quick and (fused := peers.compiled(peers.where_mask, u, threshold, out)) is not None:
        entrants.append(Entrant("torch.compile, broadcast mask", fused, need))
    race(size.case("download"), entrants)


@pytest.mark.parametrize("size", STEPS, ids=Size.label)
def bench_download_(size: Size, race: Race, quick: bool) -> None:
    u, _, selection, threshold = _inputs(size)
    parameters = torch.zeros(size)
    need = floor.download_(*size)
    entrants = [
        Entrant("download_", lambda: download_(parameters, u, selection), need),
        floor.copy(need),
        Entrant("PyTorch, a masked add per agent", lambda: peers.masked_add(parameters, u, threshold), need),
        Entrant("PyTorch, hardshrink and add", lambda: peers.hardshrink_add(parameters, u, threshold), need),
        Entrant("reference", lambda: reference.download_(parameters, u, selection), need),
    ]
    if not quick and (fused := peers.compiled(peers.where_add, parameters, u, threshold)) is not None:
        entrants.append(Entrant("torch.compile, broadcast mask", fused, need))
    race(size.case("download_"), entrants)
