"""How far one agent can move the aggregate: Γ p_i, whatever it uploads."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cgsv_ext.server import RewardServer

D, GAMMA = 400, 0.3


def federation(**options: Any) -> RewardServer:
    """Three agents after some rounds, of different importance."""
    server = RewardServer(D, gamma=GAMMA, **options)
    common = torch.randn(D, generator=torch.Generator().manual_seed(0))
    for agent in "abc":
        server.join(agent)
    for t in range(5):
        for i, agent in enumerate("abc"):
            noise = torch.randn(D, generator=torch.Generator().manual_seed(10 * t + i + 1))
            server.upload(agent, common + i * noise)
        server.step()
        for agent in "abc":
            server.acknowledge(agent, server.round)
    return server


def aggregate(server: RewardServer, updates: dict[str, Tensor]) -> Tensor:
    for agent, update in updates.items():
        server.upload(agent, update)
    server.step()
    assert server.aggregate is not None
    return server.aggregate.double()


HONEST = {agent: torch.randn(D, generator=torch.Generator().manual_seed(i)) for i, agent in enumerate("ab")}
ATTACKS = {
    "itself": HONEST["a"],
    "the opposite": -HONEST["b"],
    "one entry": torch.eye(D)[0],
    "constant": torch.ones(D),
    "alternating": torch.tensor([1.0, -1.0]).repeat(D // 2),
}


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.parametrize("length", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("present", ["abc", "ac", "c"])
def test_one_agent_adds_a_vector_of_length_gamma_p(kind: str, length: float, present: str) -> None:
    """Compared with an upload of all zeros, which takes no part with the same weight."""
    attack, shares = ATTACKS[kind] * length, federation().importance
    p = shares["c"] / math.fsum(shares[agent] for agent in present)
    others = {agent: HONEST[agent] for agent in present if agent != "c"}
    without = aggregate(federation(), {**others, "c": torch.zeros(D)})
    with_it = aggregate(federation(), {**others, "c": attack})
    assert torch.linalg.vector_norm(with_it - without).item() == pytest.approx(GAMMA * p, rel=1e-5)
    assert torch.linalg.vector_norm(with_it).item() <= GAMMA * (1 + 1e-5)


@pytest.mark.parametrize("factor", [2.0**-20, 2.0**20])
def test_a_longer_upload_gains_nothing(factor: float) -> None:
    """To the bit, where scaling rounds nothing."""
    updates = {**HONEST, "c": ATTACKS["alternating"] + HONEST["a"]}
    honest, greedy = federation(), federation()
    one = aggregate(honest, updates)
    other = aggregate(greedy, {**updates, "c": updates["c"] * factor})
    assert torch.equal(one, other)
    assert honest.importance == greedy.importance
    assert torch.equal(honest.download("c").flat, greedy.download("c").flat)
