"""A round whose agents are spread over ranks, each with all columns: u is added up over the ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._ops import ops
from ..types import Selection
from .columns import cosines, local_selection
from .held import Held
from .ranks import Ranks, root
from .terms import Shape


class Agents:
    """The ranks that hold whole rows of different agents, in rank order."""

    def __init__(self, op: str, ranks: Ranks, shapes: Sequence[Shape]) -> None:
        self.ranks = ranks
        self.rows = [shape.rows for shape in shapes]
        self.n = sum(self.rows)
        self.columns = shapes[0].columns
        if self.n == 0 or self.columns == 0:
            raise ValueError(f"{op}(): expected N ≥ 1 agents and D ≥ 1, got {self.n} and {self.columns}")
        before = sum(self.rows[: ranks.rank])
        self.own = slice(before, before + self.rows[ranks.rank])

    def _gather(self, what: str, own: Tensor, *first: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Numbers of all agents from each rank's, and rank 0's further vectors."""
        most = max(self.rows)
        every = self.ranks.gather(what, torch.cat([own, own.new_zeros(most - len(own)), *first]))
        whole = torch.cat([row[:count] for row, count in zip(every, self.rows, strict=True)])
        return whole, list(every[0, most:].split_with_sizes([len(vector) for vector in first]))

    def exchange(
        self, held: Held, norms: Tensor | None, *given: Tensor | None
    ) -> tuple[Tensor, list[Tensor | None], list[int] | None]:
        """The norms of all rows, numbers given for each agent, sizes of segments: one collective.

        Every rank goes on with what rank 0 was given.
        """
        own = torch.zeros(held.agents, dtype=torch.float64, device=held.like.device)
        if norms is None and held.agents > 0:
            own = ops.partial_norms(held.blocks[0])
        squares, first = self._gather("norms", own, *(t.double() for t in (norms, *given) if t is not None))
        rest = iter(first)
        found = root(squares) if norms is None else next(rest)
        return found, [None if vector is None else next(rest) for vector in given], held.segments

    def aggregate(self, held: Held, weights: Tensor, gamma: float, norms: Tensor) -> tuple[Tensor, Tensor]:
        """u, and the cosines of all rows: two collectives, one of them of D elements."""
        own = norms[self.own]
        u = torch.zeros(held.columns, dtype=held.nothing().dtype, device=held.like.device)
        if held.agents > 0:
            u, _ = ops.partial_aggregate(held.blocks[0], weights[self.own], gamma, own)
        u = self.ranks.add_("aggregate", u)
        products = ops.partial_dots(held.blocks[0], u) if held.agents > 0 else own
        whole, (square,) = self._gather("products", products, ops.partial_norms([u[None]]))
        return u, cosines(torch.cat([whole, square]), norms)

    def select(self, u: Tensor, quotas: Tensor, held: Held) -> Selection:
        """Where the parts of this rank's agents end."""
        return local_selection(u, quotas[self.own], held.segments)
