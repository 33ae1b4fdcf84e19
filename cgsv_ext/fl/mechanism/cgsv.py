"""The paper's mechanism."""

from __future__ import annotations

import torch
from torch import Tensor

import cgsv_ext
from cgsv_ext.types import Selection

from .base import Mechanism, Outcome, Server


class CGSV(Mechanism):
    """Rewards in proportion to each agent's cosine gradient Shapley value.

    Xu, Lyu, Ma, Miao, Foo and Low, "Gradient-Driven Rewards to Guarantee Fairness in Collaborative Machine
    Learning", 2021: §3.4. Choices it leaves open are those of the authors' released code:

    * r_0 = 0 would make the first aggregate zero, so the first round weighs agents by their data, as FedAvg
      does; from then on r_{t−1} weighs them (equation 1).
    * r is clamped to ``floor`` before it is normalised (equation 4).

    Where paper and code differ the paper is followed, but for the masks there is a choice. ``masks="whole"``
    is equation (5): of the whole aggregate agent i keeps the ⌊D · ratio_i⌋ largest, exactly so many. With
    ``masks="layers"``, as in the code, it keeps of each layer l the min(⌈D_l · ratio_i⌉, D_l − 1) largest,
    and all others as large as the least of these; so not even the agent of the largest r gets all, unless for
    ties. Quotas do not count such ties. A layer of one entry, on which the code fails, goes to everyone with
    ratio_i > 0. (Ratios are float64 here and float32 there.)
    """

    settings = ("gamma", "alpha", "beta", "floor", "masks")

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        sizes = server.sizes.to(server.parameters.device).double()
        self.first = sizes / sizes.sum()
        self.importance = torch.zeros_like(sizes)

    def step(self, updates: Tensor) -> Outcome:
        """Equations (1) and (3) to (5)."""
        e = self.server.experiment
        # Decided on the device: a GPU is not waited for.
        weights = torch.where(self.importance.any(), self.importance, self.first)
        if e.masks == "layers":
            return self._step_by_layers(updates, weights)
        step = cgsv_ext.reward_step(
            updates,
            self.importance,
            gamma=e.gamma,
            alpha=e.alpha,
            beta=e.beta,
            floor=e.floor,
            weights=weights,
            dense=False,
        )
        self.importance = step.importance
        return Outcome(
            step.aggregate,
            step.selection,
            importance=step.importance,
            quotas=step.quotas,
            weights=weights,
        )

    def _step_by_layers(self, updates: Tensor, weights: Tensor) -> Outcome:
        e, layers = self.server.experiment, self.server.layers
        aggregate, cosines, _ = cgsv_ext.aggregate(updates, weights, gamma=e.gamma)
        r = cgsv_ext.update_importance(self.importance, cosines, alpha=e.alpha, floor=e.floor)
        self.importance = r
        t = torch.where(r == 0, 0.0, torch.tanh(e.beta * r))
        ratio = torch.where(t.amax() > 0, t / t.amax(), 0.0).clamp(min=0)
        lengths = torch.tensor(layers, device=ratio.device)
        most = (lengths - 1).clamp(min=1)  # the one entry of such a layer included
        quotas = torch.minimum((ratio[:, None] * lengths).ceil().long(), most)
        magnitude, last_index = cgsv_ext.select(aggregate, quotas, segments=layers)
        # Every tie counts as kept if the last place is the layer's.
        last_index = torch.where(last_index >= 0, lengths.cumsum(0) - 1, last_index)
        return Outcome(
            aggregate,
            Selection(magnitude, last_index),
            segments=layers,
            importance=r,
            quotas=quotas.sum(1),
            weights=weights,
        )
