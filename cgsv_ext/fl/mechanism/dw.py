"""Pay by the amount of data."""

from __future__ import annotations

from torch import Tensor

from .averaging import Mean
from .proportional import Proportional


class DW(Proportional):
    """Dataset-weighted download: quotas in proportion to the agents' dataset sizes.

    The paper's §4.1. An agent's size is what it says it is. One without a usable update in a round counts as
    one of no data in it.
    """

    def value(self, updates: Tensor, mean: Mean) -> Tensor:
        """|D_i| / Σ_j |D_j|."""
        return self.clamped(mean.weights)
