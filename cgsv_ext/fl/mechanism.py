"""What a server does with a round's updates: one small class per mechanism.

A mechanism keeps its own state from round to round. Given the updates it says how the server's model
moves and what each agent downloads; ``download_`` then hands the downloads out. ``MECHANISMS`` lists
them under their names.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

import cgsv_ext
from cgsv_ext.types import Selection

from .presets import Experiment


class Outcome(NamedTuple):
    """What one round comes to; None where a mechanism has no such thing.

    Downloads are either parts of the aggregate, given by ``selection`` and never written out, or
    ``rewards`` as they stand.
    """

    aggregate: Tensor | None = None
    """(D,): what the server's own model moves by."""
    selection: Selection | None = None
    """Which entries of the aggregate each agent downloads."""
    rewards: Tensor | None = None
    """(N, D): v_i, where a selection does not say it."""
    importance: Tensor | None = None
    """(N,) float64: r_i."""
    quotas: Tensor | None = None
    """(N,) int64: q_i, how many entries each agent downloads."""
    weights: Tensor | None = None
    """(N,): p_i, what the updates in the aggregate are weighed by."""
    unit: bool = True
    """Whether these weigh updates of equal length, as equation (1) does, or raw ones."""


class Mechanism(Protocol):
    """One round of the server."""

    def __init__(self, experiment: Experiment, sizes: Tensor) -> None:
        """Start a run with agents who hold ``sizes`` samples, (N,) int64."""

    def step(self, updates: Tensor) -> Outcome:
        """Decide on a round's updates, (N, D): Δw_i in row i."""


class CGSV:
    """The paper's mechanism: rewards in proportion to each agent's cosine gradient Shapley value.

    r_0 = 0 would make the first aggregate zero, so the first round weighs agents by their data, as
    FedAvg does; from then on r_{t-1} weighs them (equation 1).
    """

    def __init__(self, experiment: Experiment, sizes: Tensor) -> None:
        self.experiment = experiment
        self.importance = torch.zeros(sizes.numel(), dtype=torch.float64)
        self.weights: Tensor | None = sizes.double() / sizes.sum()

    def step(self, updates: Tensor) -> Outcome:
        """Equations (1) and (3) to (5), by :func:`cgsv_ext.reward_step`."""
        e = self.experiment
        weights = self.importance if self.weights is None else self.weights
        step = cgsv_ext.reward_step(
            updates,
            self.importance,
            gamma=e.gamma,
            alpha=e.alpha,
            beta=e.beta,
            weights=self.weights,
            dense=False,
        )
        self.importance, self.weights = step.importance, None
        return Outcome(step.aggregate, step.selection, None, step.importance, step.quotas, weights)


class FedAvg:
    """Vanilla federated learning: all agents download the size-weighted mean of the raw updates."""

    def __init__(self, experiment: Experiment, sizes: Tensor) -> None:
        self.weights = (sizes.double() / sizes.sum()).float()

    def step(self, updates: Tensor) -> Outcome:
        """Weigh raw updates by data: u = Σ_i |D_i| Δw_i / Σ_i |D_i|."""
        aggregate = self.weights @ updates
        quotas = torch.full((len(updates),), aggregate.numel())
        return Outcome(
            aggregate, rewards=aggregate.expand_as(updates), quotas=quotas, weights=self.weights, unit=False
        )


class Standalone:
    """No server: every agent keeps its own update and hears of no other."""

    def __init__(self, experiment: Experiment, sizes: Tensor) -> None:
        pass

    def step(self, updates: Tensor) -> Outcome:
        """Give every agent its own update: v_i = Δw_i."""
        return Outcome(rewards=updates)


MECHANISMS: dict[str, type[Mechanism]] = {"CGSV": CGSV, "FedAvg": FedAvg, "standalone": Standalone}


def download_(parameters: Tensor, outcome: Outcome) -> None:
    """Take the gradient download step: w_i += v_i in every row of the (N, D) parameters."""
    if outcome.aggregate is not None and outcome.selection is not None:
        cgsv_ext.download_(parameters, outcome.aggregate, outcome.selection)
    elif outcome.rewards is not None:
        parameters += outcome.rewards
