"""What the step is compared with computes what the step computes."""

from __future__ import annotations

from collections.abc import Callable

import peers
import pytest
import torch
from cases import CNN, importance, quotas, updates
from torch import Tensor

import cgsv_ext

THRESHOLDS = [peers.by_sort, peers.by_partition]
WRITES = [peers.broadcast_mask, peers.hardshrink, peers.where_mask]
ADDS = [peers.masked_add, peers.hardshrink_add, peers.where_add]


@pytest.mark.parametrize(
    "peer",
    [
        peers.one_sort,
        peers.one_sort_broadcast,
        peers.one_sort_fused,
        peers.one_partition,
        peers.one_argsort,
        peers.paper_loop,
    ],
)
def check_round(peer: Callable[..., Tensor]) -> None:
    """But for the few entries at a boundary that float32 cosines move."""
    x, r = updates(CNN), importance(CNN.n)
    expected = cgsv_ext.reward_step(x, r).rewards
    assert expected is not None
    found = peer(x, r) if peer is peers.paper_loop else peer(x, r, torch.zeros(CNN))
    different = (found - expected).abs() > 1e-5 * expected.abs().max()
    assert different.sum(dim=1).max() <= 5


@pytest.mark.parametrize("by", THRESHOLDS)
def check_select_and_download(by: Callable[[Tensor, Tensor], Tensor]) -> None:
    u, q = torch.randn(CNN.d, generator=torch.Generator().manual_seed(0)), quotas(CNN)
    selection = cgsv_ext.select(u, q)
    expected = cgsv_ext.download(u, selection)
    parameters = torch.ones(CNN)
    cgsv_ext.download_(parameters, u, selection)
    for write in WRITES:
        assert torch.equal(write(u, by(u, q), torch.ones(CNN)), expected)
    for add in ADDS:
        added = torch.ones(CNN)
        add(added, u, by(u, q))
        assert torch.equal(added, parameters)
    assert torch.equal(peers.masked(u, peers.kept(u, q), torch.ones(CNN)), expected)
    for row, kept in zip(expected, peers.by_topk(u, q), strict=True):
        assert torch.equal(torch.zeros_like(u).index_copy_(0, kept, u[kept]), row)
