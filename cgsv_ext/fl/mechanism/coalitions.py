"""How good the server's model would be with the updates of some agents only."""

from __future__ import annotations

import torch
from torch import Tensor

from .averaging import Mean
from .base import Server

_MODELS = 64
"""The most models to validate at once, which bounds memory; larger batches were no faster."""


def validate_coalitions(server: Server, updates: Tensor, mean: Mean, members: Tensor) -> Tensor:
    """v(S): validation accuracy of w_{t-1} + u_S.

    A coalition aggregates as if it were alone, u_S = Γ Σ_{i∈S} |D_i| Δw_i / ‖Δw_i‖ / Σ_{i∈S} |D_i|, as in
    Song, Tong and Wei (2019), but with the lengths of equation (1); for all agents it is what the server
    aggregates. The empty one is worth what the server's model is worth as it stands. An agent that takes no
    part adds nothing to any coalition.

    Parameters
    ----------
    server, updates, mean
        As in :meth:`Proportional.value`.
    members : Tensor
        (M, N) bool: who is in. Rows that repeat are validated once for each time.

    Returns
    -------
    Tensor
        (M,) float64.
    """
    data = members.to(updates.device) * mean.weights
    weights = data / data.sum(1, keepdim=True).clamp(min=torch.finfo(data.dtype).tiny)
    scale = server.experiment.gamma / mean.norms
    units = torch.where(mean.takes_part[:, None], updates * scale[:, None].to(updates.dtype), 0.0)
    worth = [
        server.validate(torch.addmm(server.parameters, part.to(units.dtype), units))
        for part in torch.split(weights, _MODELS)
    ]
    return torch.cat(worth).to(updates.device)
