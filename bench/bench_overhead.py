"""What a call costs where there is next to nothing to compute."""

from __future__ import annotations

import floor
import peers
import torch
from cases import Size, importance, quotas, updates
from race import Entrant, Race

import cgsv_ext

TINY = Size(2, 16)


def bench_overhead(race: Race) -> None:
    x, r, q, out = updates(TINY), importance(TINY.n), quotas(TINY), torch.zeros(TINY)
    u, cosines, _ = cgsv_ext.aggregate(x, r, gamma=peers.GAMMA)
    selection = cgsv_ext.select(u, q)
    entrants = [
        Entrant("reward_step", lambda: cgsv_ext.reward_step(x, r, out=out), floor.dense(*TINY)),
        floor.copy(floor.dense(*TINY)),
        Entrant("norms", lambda: cgsv_ext.norms(x), floor.norms(*TINY)),
        Entrant("aggregate", lambda: cgsv_ext.aggregate(x, r, gamma=peers.GAMMA), floor.aggregate(*TINY)),
        Entrant("update_importance", lambda: cgsv_ext.update_importance(r, cosines)),
        Entrant("quotas", lambda: cgsv_ext.quotas(r, TINY.d)),
        Entrant("select", lambda: cgsv_ext.select(u, q), floor.select(TINY.d)),
        Entrant("download", lambda: cgsv_ext.download(u, selection, out=out), floor.download(*TINY)),
        Entrant("download_", lambda: cgsv_ext.download_(out, u, selection), floor.download_(*TINY)),
        Entrant("reference.update_importance", lambda: cgsv_ext.reference.update_importance(r, cosines)),
        Entrant("reference.quotas", lambda: cgsv_ext.reference.quotas(r, TINY.d)),
        Entrant("PyTorch, importance and quotas", lambda: peers.quotas(r, cosines, TINY.d)),
        Entrant("PyTorch, one sort", lambda: peers.one_sort(x, r, out)),
        Entrant("PyTorch, paper-literal loop", lambda: peers.paper_loop(x, r)),
    ]
    race(TINY.case("overhead"), entrants)
