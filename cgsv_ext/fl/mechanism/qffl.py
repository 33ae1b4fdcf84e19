"""The same for everyone, with more weight for who fares worse."""

from __future__ import annotations

import torch
from torch import Tensor

import cgsv_ext

from .averaging import data_weights, everything_for_everyone, raw_sum
from .base import Mechanism, Outcome, Server

LEAST_LOSS = 1e-10
"""F is clamped to this, as F^(q−1) has to be finite."""


class QFFL(Mechanism):
    """q-FedAvg: agents of larger loss weigh more, and all download the same.

    Li, Sanjabi, Beirami and Smith, "Fair Resource Allocation in Federated Learning", 2020: with
    g_i = −L Δw_i and F_i the loss of the common model on agent i's data before the round,

        Δ_i = F_i^q g_i,  h_i = q F_i^{q−1} ‖g_i‖² + L F_i^q,  u = −Σ_i p_i Δ_i / Σ_i p_i h_i.

    * L, the Lipschitz constant of the gradient, is estimated as 1/lr, as in their code, with the learning
      rate of the round. For Adam, whose steps do not have the length lr · gradient, this is a convention.
    * They draw a few agents a round with probability p_i and sum without weights; here all take part and the
      sums are weighed by p_i ∝ |D_i|, what theirs are in expectation. q = 0 is then FedAvg.
    * One q for all datasets; they tune it.
    * It has no importance. F_i is a loss on training data: wrong labels are a reason to weigh an agent more.
    """

    settings = ("q",)

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.rounds = torch.tensor(0)

    def step(self, updates: Tensor) -> Outcome:
        """Take their step, with F measured in its largest so that no power overflows."""
        e, q = self.server.experiment, self.server.experiment.q
        lipschitz = 1 / (e.lr * e.decay ** int(self.rounds))
        self.rounds = self.rounds + 1
        norms = cgsv_ext.norms(updates)
        found = self.server.losses().to(norms)
        takes_part = norms.isfinite() & found.isfinite()
        p = data_weights(self.server, takes_part)
        losses = torch.where(takes_part, found, 0.0).clamp(min=LEAST_LOSS)
        gradients = torch.where(takes_part, lipschitz * norms, 0.0)
        largest = losses.amax()
        f = losses / largest
        h = p * (q * f ** (q - 1) / largest * gradients**2 + lipschitz * f**q)
        weights = p * lipschitz * f**q / h.sum().clamp(min=torch.finfo(h.dtype).tiny)
        aggregate = raw_sum(updates, weights, norms)
        return everything_for_everyone(updates, aggregate, weights, unit=False)
