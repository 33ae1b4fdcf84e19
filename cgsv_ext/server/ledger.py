"""Rewards that agents have earned and not yet acknowledged.

A round's rewards are kept as what they are parts of: one aggregate, and a selection for each agent that is
still owed its part. Nothing is added up before an agent asks, so that it can acknowledge any round it has
seen, however late, and what remains is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..reward import download, download_
from ..types import Selection
from .records import AgentId


@dataclass
class Entry:
    """One round."""

    aggregate: Tensor
    """(D,)."""
    selection: Selection
    """Of all who took part in the round."""
    owed: dict[AgentId, int]
    """Who has yet to acknowledge it, and which row of the selection is theirs."""


class Ledger(dict[int, Entry]):
    """Rounds with rewards that somebody is owed, oldest first."""

    def __init__(self, segments: list[int] | None) -> None:
        super().__init__()
        self.segments = segments

    def pending(self, agent: AgentId) -> tuple[int, ...]:
        """Rounds of which an agent has not acknowledged its reward."""
        return tuple(t for t, entry in self.items() if agent in entry.owed)

    def reward(self, agent: AgentId, t: int) -> Tensor:
        """v of an agent in round t, (D,)."""
        entry, own = self._own(agent, t)
        return download(entry.aggregate, own, segments=self.segments)[0]

    def add_(self, total: Tensor, agent: AgentId, t: int) -> None:
        """Add v of an agent in round t to a tensor (D,)."""
        entry, own = self._own(agent, t)
        download_(total[None], entry.aggregate, own, segments=self.segments)

    def settle(self, agent: AgentId, t: int | None = None) -> None:
        """Strike out what an agent is owed, of all rounds or of those up to t."""
        for each in self.pending(agent):
            if t is None or each <= t:
                del self[each].owed[agent]
                if not self[each].owed:
                    del self[each]

    def sum(self, agent: AgentId) -> Tensor | None:
        """Sum over all rounds pending, (D,), added in their order; None where there are none."""
        rounds = self.pending(agent)
        if not rounds:
            return None
        total = self.reward(agent, rounds[0])
        for t in rounds[1:]:
            self.add_(total, agent, t)
        return total

    def _own(self, agent: AgentId, t: int) -> tuple[Entry, Selection]:
        entry = self[t]
        i = entry.owed[agent]
        magnitude, last_index = entry.selection
        return entry, Selection(magnitude[i : i + 1], last_index[i : i + 1])

    def rows(self, agents: list[AgentId], t: int) -> Selection:
        """Select the rows of some agents in round t."""
        entry = self[t]
        index = torch.tensor([entry.owed[agent] for agent in agents], device=entry.aggregate.device)
        return Selection(*(part.index_select(0, index) for part in entry.selection))
