from __future__ import annotations

import floor
import peers
import pytest
from cases import STEPS, Size, importance, updates
from race import Entrant, Race

from cgsv_ext import aggregate, reference


@pytest.mark.parametrize("size", STEPS, ids=Size.label)
def bench_aggregate(size: Size, race: Race, quick: bool) -> None:
    x, r = updates(size), importance(size.n)
    norms = peers.norms(x)
    need = floor.aggregate(*size)
    entrants = [
        Entrant("aggregate, norms=", lambda: aggregate(x, r, gamma=peers.GAMMA, norms=norms), need),
        floor.copy(need),
        Entrant("aggregate", lambda: aggregate(x, r, gamma=peers.GAMMA), need + floor.norms(*size)),
        Entrant("PyTorch, two products, norms=", lambda: peers.aggregate(x, r, norms), need),
        Entrant("PyTorch, paper-literal loop", lambda: peers.aggregate_literally(x, r), need),
        Entrant("reference", lambda: reference.aggregate(x, r, gamma=peers.GAMMA, norms=norms), need),
    ]
    if not quick and (fused := peers.compiled(peers.aggregate, x, r, norms)) is not None:
        entrants.append(Entrant("torch.compile, two products, norms=", fused, need))
    race(size.case("aggregate"), entrants)
