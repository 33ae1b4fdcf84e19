"""Pay by Shapley values of validation accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

import cgsv_ext

from .averaging import Mean
from .base import Server
from .coalitions import validate_coalitions
from .proportional import Proportional, shares

SAMPLED_FROM = 10
"""The number of agents from which on permutations are sampled."""
PERMUTATIONS = 16
"""How many, in pairs of opposite order. The paper does not say, but in its Table 3 ECI takes 5 and 10 times
as long with 10 and 20 agents as with 5: if that is 32 coalitions, it is 160 and 320, or 16 permutations."""

Worth: TypeAlias = Callable[[Tensor], Tensor]
"""v: (M, N) bool, who is in, -> (M,) float64."""


class ECI(Proportional):
    """Extended contribution index: quotas in proportion to the Shapley value of validation accuracy.

    Song, Tong and Wei, "Profit Allocation for Federated Learning", 2019, made a download rule as in §4.1 of
    Xu et al. (2021). The game is that of :func:`validate_coalitions`; its value is exact below 10 agents and
    estimated from 16 permutations a round from there on.

    * As in their multi-round index, each round counts the same whatever accuracy it gains: φ_i / Σ_j |φ_j|.
      Without the magnitudes this is their φ_i / Σ_j φ_j, which explodes where gains and losses cancel.
    * The index is averaged over rounds by equation (4) with the same α as CGSV's, in place of their
      geometric weights. A negative φ counts as such in the average; the floor clamps the average alone.
    * A round in which nobody makes a difference leaves the index as it is, but for the floor.
    """

    settings = ("gamma", "alpha", "floor")

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        n, device = server.sizes.numel(), server.parameters.device
        self.index = torch.zeros(n, dtype=torch.float64, device=device)

    def value(self, updates: Tensor, mean: Mean) -> Tensor:
        """r_i = α r_i + (1 − α) φ_i / Σ_j |φ_j|, clamped and normalised."""

        def worth(members: Tensor) -> Tensor:
            return validate_coalitions(self.server, updates, mean, members)

        n = updates.shape[0]
        if n < SAMPLED_FROM:
            contribution = exact(worth, n)
        else:
            contribution = sampled(worth, n, PERMUTATIONS, self.server.generator)
        alpha = self.server.experiment.alpha
        self.index = cgsv_ext.update_importance(
            self.index, shares(contribution), alpha=alpha, floor=self.floor
        )
        return self.index


def exact(worth: Worth, n: int) -> Tensor:
    """Shapley values from all 2^N coalitions, (N,) float64.

    φ_i = Σ_{S∌i} |S|! (N−|S|−1)! / N! · (v(S∪{i}) − v(S)).
    """
    coalition = torch.arange(1 << n)
    members = (coalition[:, None] >> torch.arange(n)) & 1 > 0
    values = worth(members)
    size = members.sum(1)
    chance = torch.tensor([1 / (n * math.comb(n - 1, s)) for s in range(n)], dtype=torch.float64)
    found = []
    for i in range(n):
        without = coalition[~members[:, i]]
        gain = values[without | (1 << i)] - values[without]
        found.append(chance[size[without]].to(values.device) @ gain)
    return torch.stack(found)


def sampled(worth: Worth, n: int, permutations: int, generator: torch.Generator) -> Tensor:
    """Shapley values as mean marginal contributions along random permutations, (N,) float64.

    Every other permutation is the one before it backwards, so that who comes early in one comes late in the
    next. A coalition that several permutations pass through is valued once. Values sum to v(N) − v(∅).
    """
    forwards = torch.rand(-(-permutations // 2), n, generator=generator, dtype=torch.float64).argsort(1)
    order = torch.stack([forwards, forwards.flip(1)], dim=1).flatten(0, 1)[:permutations]
    place = order.argsort(1)
    members = place[:, None, :] < torch.arange(n + 1)[:, None]  # the first 0 to N of each permutation
    distinct, which = torch.unique(members.flatten(0, 1), dim=0, return_inverse=True)
    values = worth(distinct)
    gain = values[which.to(values.device)].view(permutations, n + 1).diff(dim=1)
    return gain.gather(1, place.to(values.device)).mean(0)
