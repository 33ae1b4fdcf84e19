"""Means of the updates, and the mechanisms under which everyone downloads the same one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import cgsv_ext

from .base import Mechanism, Outcome, Server


class Mean(NamedTuple):
    """An average of updates."""

    aggregate: Tensor
    """(D,)."""
    weights: Tensor
    """(N,) float64: the share of each agent's data in all data; 0 for one that takes no part."""
    norms: Tensor
    """(N,) float64: ‖Δw_i‖."""
    takes_part: Tensor
    """(N,) bool."""


def data_weights(server: Server, takes_part: Tensor) -> Tensor:
    """p_i = |D_i| / Σ_j |D_j| over the agents that take part, (N,) float64; 0 for the others."""
    sizes = torch.where(takes_part, server.sizes.to(takes_part.device).double(), 0.0)
    return sizes / sizes.sum().clamp(min=1)


def raw_sum(updates: Tensor, weights: Tensor, norms: Tensor) -> Tensor:
    """Σ_i weight_i · Δw_i, (D,): equation (1) with the updates' lengths put back into the weights.

    A product with the matrix of updates would let a NaN of one agent through, whatever its weight.
    """
    return cgsv_ext.aggregate(updates, weights * norms, gamma=1.0, norms=norms).aggregate


def raw_mean(server: Server, updates: Tensor) -> Mean:
    """Σ_i p_i Δw_i with p_i ∝ |D_i|, over agents with finite updates."""
    norms = cgsv_ext.norms(updates)
    takes_part = norms.isfinite()
    weights = data_weights(server, takes_part)
    return Mean(raw_sum(updates, weights, norms), weights, norms, takes_part)


def normalised_mean(server: Server, updates: Tensor) -> Mean:
    """Equation (1) with p_i ∝ |D_i|: Σ_i p_i Γ Δw_i / ‖Δw_i‖, over agents with a direction."""
    norms = cgsv_ext.norms(updates)
    takes_part = norms.isfinite() & (norms > 0)
    weights = data_weights(server, takes_part)
    aggregate, _, _ = cgsv_ext.aggregate(updates, weights, gamma=server.experiment.gamma, norms=norms)
    return Mean(aggregate, weights, norms, takes_part)


def everything_for_everyone(updates: Tensor, aggregate: Tensor, weights: Tensor, *, unit: bool) -> Outcome:
    """All agents download the whole aggregate."""
    quotas = torch.full_like(weights, aggregate.numel(), dtype=torch.int64)
    return Outcome(aggregate, rewards=aggregate.expand_as(updates), quotas=quotas, weights=weights, unit=unit)


class FedAvg(Mechanism):
    """Vanilla federated learning: all agents download the size-weighted mean of the raw updates.

    McMahan, Moore, Ramage, Hampson and Agüera y Arcas, "Communication-Efficient Learning of Deep Networks
    from Decentralized Data", 2017. Every agent takes part in every round.
    """

    def step(self, updates: Tensor) -> Outcome:
        """u = Σ_i |D_i| Δw_i / Σ_i |D_i|."""
        mean = raw_mean(self.server, updates)
        return everything_for_everyone(updates, mean.aggregate, mean.weights, unit=False)


class FedAvgNormalised(Mechanism):
    """All agents download the size-weighted mean of the updates cut to one length.

    The vanilla federated learning of the paper's §3.1: equation (1) with its "importance p_i ≥ 0 (e.g.,
    proportional to |D_i|)" in every round, and all of u_N for everyone. Weights by data, not 1/N, so that it
    differs from FedAvg in the lengths alone, from CGSV's first round in the downloads alone, and from DW, RR,
    EU, ECI and CFFL in the downloads alone.
    """

    settings = ("gamma",)

    def step(self, updates: Tensor) -> Outcome:
        """u = Σ_i |D_i| Γ Δw_i / ‖Δw_i‖ / Σ_i |D_i|."""
        mean = normalised_mean(self.server, updates)
        return everything_for_everyone(updates, mean.aggregate, mean.weights, unit=True)
