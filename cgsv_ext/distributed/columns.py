"""A round whose columns are spread over ranks: the equations, and sums over ranks in between."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .._ops import ops
from ..types import Selection
from .held import Held
from .ranks import Ranks, root, total
from .selection import local_quotas
from .terms import Shape


def _sum(parts: list[Tensor], like: Tensor, length: int) -> Tensor:
    """Over blocks; zeros where a rank has no column."""
    if not parts:
        return torch.zeros(length, dtype=torch.float64, device=like.device)
    return total(torch.stack(parts)) if len(parts) > 1 else parts[0]


def _filled(held: Held) -> list[list[Tensor]]:
    return [rows for rows, size in zip(held.blocks, held.sizes, strict=True) if size > 0]


class Columns:
    """The ranks that hold the columns of the same agents."""

    def __init__(self, op: str, ranks: Ranks, shapes: Sequence[Shape]) -> None:
        self.ranks = ranks
        self.n = shapes[ranks.rank].rows
        self.columns = sum(shape.columns for shape in shapes)
        if self.columns == 0:
            raise ValueError(f"{op}(): expected D ≥ 1 columns on all ranks together, got 0")

    def exchange(
        self, held: Held, norms: Tensor | None, *given: Tensor | None
    ) -> tuple[Tensor, list[Tensor | None], list[int] | None]:
        """The norms of whole rows, numbers given for each agent, and sizes of whole segments: one collective.

        Every rank goes on with what rank 0 was given: numbers that differ in a last bit would send it another
        way in the selection.
        """
        n, like = held.agents, held.like
        if norms is None:
            own = _sum([ops.partial_norms(rows) for rows in _filled(held)], like, n)
        else:
            own = norms.double()
        parts = [own, *(vector.double() for vector in given if vector is not None)]
        if held.segments is not None:
            parts.append(torch.tensor(held.segments, dtype=torch.float64).to(like.device, non_blocking=True))
        every = self.ranks.gather("norms", torch.cat(parts))
        rest = iter([every[0, start : start + n] for start in range(n, every.shape[1], n)])
        vectors = [None if vector is None else next(rest) for vector in given]
        found = root(total(every[:, :n])) if norms is None else every[0, :n]
        if held.segments is None:
            return found, vectors, None
        return found, vectors, [int(size) for size in total(every[:, -len(held.segments) :]).tolist()]

    def aggregate(self, held: Held, weights: Tensor, gamma: float, norms: Tensor) -> tuple[Tensor, Tensor]:
        """The columns of u that are here, and the cosines of whole rows: one collective."""
        found = [ops.partial_aggregate(rows, weights, gamma, norms) for rows in _filled(held)]
        parts = [u for u, _ in found]
        u = parts[0] if len(parts) == 1 else torch.cat([held.nothing(), *parts])
        own = _sum([products for _, products in found], held.like, held.agents + 1)
        return u, cosines(total(self.ranks.gather("products", own)), norms)

    def select(self, u: Tensor, quotas: Tensor, held: Held) -> Selection:
        """Where each agent's part of this rank's columns ends: a collective a digit, and one for ties."""
        mine = local_quotas(self.ranks, u, quotas, held.segments, *held.pieces)
        return local_selection(u, mine, held.segments)


def local_selection(u: Tensor, quotas: Tensor, segments: Sequence[int] | None) -> Selection:
    """Of the columns, and for the agents, that are here; there may be none."""
    if u.numel() == 0 or len(quotas) == 0:
        return Selection(u.new_full(quotas.shape, math.inf), torch.full_like(quotas, -1))
    return Selection(*ops.select(u, quotas, segments))


def cosines(products: Tensor, norms: Tensor) -> Tensor:
    """cos(u_i, u_N) from ⟨Δw_i, u⟩ and, at the end, ‖u‖²."""
    length = root(products[-1])
    good = is_valid(norms) & is_valid(length)
    return torch.where(good, (products[:-1] / (norms * length)).clamp(-1, 1), 0)


def is_valid(norms: Tensor) -> Tensor:
    """Whether an agent takes part."""
    return (norms > 0) & norms.isfinite()


def weights_of(importance: Tensor, weights: Tensor | None) -> Tensor:
    """p of equation (1): the weights if given, else the importance, else 1/N in the first round."""
    p = (importance if weights is None else weights).nan_to_num(0.0, 0.0, 0.0)
    if weights is not None:
        return p
    return torch.where((p != 0).any(), p, 1 / len(p))
