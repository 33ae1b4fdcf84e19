"""Pay in turn."""

from __future__ import annotations

import torch
from torch import Tensor

from .averaging import normalised_mean
from .base import Mechanism, Outcome, Server


class RR(Mechanism):
    """Round robin: every round one agent downloads all it has missed, and the others nothing.

    The paper's §4.1, "used in FL to schedule gradient downloads", says no more. Here:

    * A cycle is N rounds, in which each agent has its turn once, in an order drawn anew for each cycle. In a
      fixed order an agent's place would decide how recent its model is at the end, and the partitions sort
      agents by quality. Where N does not divide the number of rounds some agents have one turn less.
    * In its turn an agent downloads the aggregates of all rounds since its last turn, so that it holds the
      server's model, as in the round robin of Shokri and Shmatikov, "Privacy-Preserving Deep Learning", 2015.
      With the one round's aggregate alone agents would make a step in N rounds, and end far below FedAvg, at
      whose level the paper's Table 1 has RR.
    * Every agent uploads in every round, what it has trained from the model it has. Aggregation is equation
      (1) weighed by data.
    """

    settings = ("gamma",)

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        n = server.sizes.numel()
        # On the CPU, where the next turn can be read without waiting for a GPU.
        self.order = torch.arange(n)
        self.turn = torch.tensor(0)
        self.models = server.parameters.repeat(n, 1)

    def step(self, updates: Tensor) -> Outcome:
        """All there is for the agent whose turn it is."""
        n, turn = self.order.numel(), int(self.turn)
        if turn == 0:
            self.order = torch.randperm(n, generator=self.server.generator)
        self.turn = torch.tensor((turn + 1) % n)
        next_up = int(self.order[turn])
        mean = normalised_mean(self.server, updates)
        rewards = torch.zeros_like(updates)
        rewards[next_up] = self.server.parameters + mean.aggregate - self.models[next_up]
        self.models[next_up] += rewards[next_up]  # as the agent does, so that no rounding adds up
        quotas = torch.zeros_like(mean.weights, dtype=torch.int64)
        quotas[next_up] = updates.shape[1]
        return Outcome(mean.aggregate, rewards=rewards, quotas=quotas, weights=mean.weights)
