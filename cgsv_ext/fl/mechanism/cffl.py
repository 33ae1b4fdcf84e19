"""Pay by what is lost without an agent."""

from __future__ import annotations

import torch
from torch import Tensor

import cgsv_ext

from .averaging import Mean
from .base import Server
from .coalitions import validate_coalitions
from .proportional import Proportional, shares

SHARPNESS = 5.0
"""Their α: how far the hyperbolic sine sets good agents apart."""
MEMORY = 0.5
"""The weight of the reputation so far."""


class CFFL(Proportional):
    """Collaborative fair federated learning: quotas in proportion to reputation.

    Lyu, Xu and Wang, "Collaborative Fairness in Federated Learning", 2020. In every round the server values
    each agent by validation accuracy, normalises, sharpens by a hyperbolic sine, and averages with the
    reputation so far, half and half; agent i downloads D · c_i / max_j c_j entries.

    * The value is the leave-one-out accuracy m_i = v(N) − v(N∖{i}), as §4.1 of Xu et al. (2021) has it; the
      original takes the accuracy of the model with i's update alone. A coalition's model is that of
      :func:`validate_coalitions`.
    * m_i may be negative, so x_i = m_i / Σ_j |m_j|, and c'_i = sinh(5 x_i) keeps the sign; c' is normalised
      in the same way. A round in which nobody makes a difference leaves reputations as they are, but for the
      floor.
    * Reputations begin at zero, and the floor takes the place of the threshold below which the original
      excludes agents for good: here all stay, as in the other mechanisms.
    * Updates are uploaded whole, not in part, and the agent's own update is not taken out of its download.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        n, device = server.sizes.numel(), server.parameters.device
        self.reputation = torch.zeros(n, dtype=torch.float64, device=device)

    def value(self, updates: Tensor, mean: Mean) -> Tensor:
        """c_i = ½ c_i + ½ c'_i, clamped and normalised."""
        n = updates.shape[0]
        members = torch.ones(n + 1, n, dtype=torch.bool)
        members[:n].fill_diagonal_(False)
        worth = validate_coalitions(self.server, updates, mean, members)
        lost = shares(worth[n] - worth[:n])
        self.reputation = cgsv_ext.update_importance(
            self.reputation,
            shares(torch.sinh(SHARPNESS * lost)),
            alpha=MEMORY,
            floor=self.floor,
        )
        return self.reputation
