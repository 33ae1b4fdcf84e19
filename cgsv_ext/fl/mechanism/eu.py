"""Pay by nearness to the aggregate."""

from __future__ import annotations

import torch
from torch import Tensor

import cgsv_ext

from .averaging import Mean
from .proportional import Proportional


class EU(Proportional):
    """Quotas by Euclidean distance: the nearer an agent's raw update to the aggregate, the more it downloads.

    The paper's §4.1: "proportional to the [...] negative Euclidean distance of their unnormalized parameter
    updates from that of the server". That of the server is read as what its model moves by,
    d_i = ‖Δw_i − u_N‖, and q_i as belonging to one round alone, without equation (4)'s moving average.

    Quotas cannot be proportional to negative numbers: to the letter, −d_i / max_j −d_j = d_i / min_j d_j
    would reward the farthest. So x_i = d_max + d_min − d_i takes the place of −d_i, which is linear in it and
    does not depend on the unit of length: q_i = ⌊D · (1 − (d_i − d_min) / d_max)⌋ before the floor. The
    nearest gets everything, the farthest d_min / d_max of it, and agents at the same distance the same.

    u_N is about Γ long, and the updates are as long as they are. Where they are much shorter all distances
    are about Γ, and those that go farthest along u_N are nearest; where they are much longer, the shortest.
    """

    def value(self, updates: Tensor, mean: Mean) -> Tensor:
        """x_i / Σ_j x_j."""
        distances = cgsv_ext.norms(updates - mean.aggregate)
        counts = mean.takes_part & distances.isfinite()
        nearest = torch.where(counts, distances, torch.inf).amin()
        farthest = torch.where(counts, distances, 0.0).amax()
        nearness = torch.where(farthest > 0, farthest + nearest - distances, 1.0)
        nearness = torch.where(counts, nearness, 0.0)
        return self.clamped(nearness / nearness.sum().clamp(min=torch.finfo(torch.float64).tiny))
