"""No collaboration at all."""

from __future__ import annotations

from torch import Tensor

from .base import Mechanism, Outcome


class Standalone(Mechanism):
    """No server: every agent keeps its own update and hears of no other.

    What fairness ρ compares with (§4.1). Batches, learning rates and numbers of steps are those of the other
    mechanisms.
    """

    def step(self, updates: Tensor) -> Outcome:
        """Give every agent its own update: v_i = Δw_i."""
        return Outcome(rewards=updates)
