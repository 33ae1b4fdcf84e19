"""What mechanisms have in common that replace the ratio of equation (5) by one of their own."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

import cgsv_ext

from .averaging import Mean, normalised_mean
from .base import Mechanism, Outcome


def proportional_quotas(importance: Tensor, size: int) -> Tensor:
    """q_i = ⌊D · r_i / max_j r_j⌋, at least 0, (N,) int64; all 0 where no r is positive."""
    r = importance.double().nan_to_num(0.0, 0.0, 0.0)
    largest = r.max()
    ratio = torch.where(largest > 0, r / largest, 0.0).clamp(min=0)
    return (size * ratio).floor().long()


class Proportional(Mechanism):
    """Downloads in proportion to an importance that :meth:`value` finds in place of r.

    The paper says of its baselines that "q_{i,t} in (5) are set to be proportional to" something; the rest is
    read as follows. Aggregation is equation (1) weighed by data in every round, as CGSV's first one is:
    re-weighting by importance is what the paper says its own mechanism has over these. There is no tanh, nor
    a β: q_i = ⌊D · r_i / max_j r_j⌋. Importances sum to 1 and are clamped to the same floor as CGSV's, or to
    0 where it has none. Local training is undone, as in CGSV, and the agent adds the q_i largest entries of
    the aggregate.
    """

    settings: ClassVar[tuple[str, ...]] = ("gamma", "floor")

    @property
    def floor(self) -> float:
        """The least importance of an agent before normalising."""
        return self.server.experiment.floor or 0.0

    def step(self, updates: Tensor) -> Outcome:
        """Aggregate by data, select by importance."""
        mean = normalised_mean(self.server, updates)
        importance = self.value(updates, mean)
        quotas = proportional_quotas(importance, updates.shape[1])
        selection = cgsv_ext.select(mean.aggregate, quotas)
        return Outcome(mean.aggregate, selection, importance=importance, quotas=quotas, weights=mean.weights)

    @abstractmethod
    def value(self, updates: Tensor, mean: Mean) -> Tensor:
        """What stands in the place of r, (N,) float64."""

    def clamped(self, shares: Tensor) -> Tensor:
        """max(floor, x_i), normalised to sum to 1: equation (4) without a past."""
        return cgsv_ext.update_importance(torch.zeros_like(shares), shares, alpha=0.0, floor=self.floor)


def shares(values: Tensor) -> Tensor:
    """Of values that may be negative: x_i / Σ_j |x_j|, or zeros where all are 0."""
    return values / values.abs().sum().clamp(min=torch.finfo(values.dtype).tiny)
