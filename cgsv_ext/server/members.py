"""Who takes part, and how importance goes round when not everybody does.

Importances r_j of all members sum to 1, or are all zero while the next round is a first one. A round is
played by those present, S, among themselves, with r_i / s for s = Σ_S r; what comes out is theirs times s, so
that the absent neither gain nor lose by it. With nobody absent that is equation (4) and nothing more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum

from .records import AgentId


@dataclass
class Member:
    """One agent."""

    samples: int | None
    """How much data it says it has, the measure of its first importance."""
    settled: int
    """The last round it has acknowledged, or before which it was not there."""
    importance: float = 0.0
    """r."""
    fetched: int | None = None
    """The round of a reward it has been given and has not acknowledged."""


class Members(dict[AgentId, Member]):
    """All agents, in the order they joined."""

    def join(self, agent: AgentId, samples: int | None, settled: int) -> None:
        """Add an agent: of no importance before the first round, later of its part of all samples, or 1/n."""
        begun = any(member.importance for member in self.values())
        self[agent] = Member(samples, settled)
        if begun:
            part = self.part([agent])
            self._scale(1 - part)
            self[agent].importance = part

    def leave(self, agent: AgentId) -> None:
        """Take an agent out; the others get its importance in proportion to their own."""
        del self[agent]
        self._fill()

    @property
    def total(self) -> float:
        """Σ r over all members."""
        return fsum(member.importance for member in self.values())

    def part(self, agents: Iterable[AgentId]) -> float:
        """Share of all samples that agents hold, or share of all members where samples are not told."""
        if all(member.samples is not None for member in self.values()):
            return sum(self[agent].samples or 0 for agent in agents) / sum(
                member.samples or 0 for member in self.values()
            )
        return len(list(agents)) / len(self)

    def among(self, present: Sequence[AgentId]) -> list[float]:
        """r_i / s of those present: the importance they go into the round with."""
        r = [self[agent].importance for agent in present]
        s = fsum(r)
        if len(present) == len(self):
            return r
        return [each / s for each in r] if s > 0 else [0.0] * len(r)

    def settle(self, present: Sequence[AgentId], found: Sequence[float], decay: float) -> float:
        """Give those present what came out of the round, r_i ← s · found_i, and return the sum of it.

        Parameters
        ----------
        present : sequence of AgentId
            S.
        found : sequence of float
            What :func:`~cgsv_ext.update_importance` made of r_S / s and ψ_S: sums to 1, or is all zero.
        decay : float
            What the absent's importance is multiplied with; the rest of it goes to those present.
        """
        s = self._share(present, decay) if any(found) else 0.0
        for agent, importance in zip(present, found, strict=True):
            self[agent].importance = s * importance
        if s == 0:  # the absent hold everything, if they hold anything
            self._fill()
        return s

    def _share(self, present: Sequence[AgentId], decay: float) -> float:
        """S's part of all importance in this round, the others holding the rest."""
        absent = self.keys() - set(present)
        if not absent:
            return 1.0
        if self.total == 0:  # the first round: nobody's absence is counted against them
            for agent in absent:
                self[agent].importance = self.part([agent])
            return self.part(present)
        s = fsum(self[agent].importance for agent in present)
        rest = self.total - s
        if s > 0:
            for agent in absent:
                self[agent].importance *= decay
            return s + (1 - decay) * rest
        s = self.part(present)  # those present start anew
        for agent in absent:
            self[agent].importance *= (1 - s) / rest
        return s

    def _fill(self) -> None:
        """Scale all to sum 1, or to 0 where that cannot be: then the next round is a first one."""
        total = self.total
        self._scale(1 / total if total > 0 else 0.0)

    def _scale(self, factor: float) -> None:
        for member in self.values():
            member.importance *= factor

    def importances(self) -> list[float]:
        """r of all members, in their order."""
        return [member.importance for member in self.values()]

    def restore(self, importances: Sequence[float]) -> None:
        """Set r of all members, in their order."""
        for member, importance in zip(self.values(), importances, strict=True):
            member.importance = importance
