"""What a rank holds of the agents' updates, and the checks of it and of what comes with it.

In the words of csrc/torch/checks.cpp: there they would come after the first exchange, too late for others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import _checks
from ..types import aggregate_dtype, dtype_name


@dataclass
class Held:
    """Columns of every agent's update that are on this rank, in blocks: one, or one a parameter."""

    blocks: list[list[Tensor]]
    """Rows as the ops take them: one (N, D_block) tensor, or N tensors of D_block elements."""
    agents: int
    """Rows of this rank."""
    sizes: list[int]
    """D_block of each."""
    segments: list[int] | None = None
    """This rank's sizes of the segments."""
    pieces_of: list[int] | None = None
    """How many blocks belong to each segment, where ties go by block first; by default there is one block."""
    aggregate: Callable[[Tensor], Any] = lambda u: u
    """This rank's aggregate, (D_rank,), in the form in which updates came."""
    rewards: Callable[[Tensor], Any] = lambda v: v
    """This rank's rewards, (N, D_rank), in that form."""

    @property
    def like(self) -> Tensor:
        """A tensor of the updates' dtype and device."""
        return self.blocks[0][0]

    @property
    def columns(self) -> int:
        """D_rank."""
        return sum(self.sizes)

    def nothing(self) -> Tensor:
        """An aggregate of no columns."""
        return torch.empty(0, dtype=aggregate_dtype(self.like.dtype), device=self.like.device)

    def flat(self) -> Tensor:
        """The columns of a single row."""
        rows = [rows[0].detach().view(-1) for rows in self.blocks]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    @property
    def pieces(self) -> tuple[list[int], list[int]]:
        """Sizes of the parts by which ties go first, and how many there are in each segment."""
        if self.pieces_of is not None:
            return self.sizes, self.pieces_of
        parts = [self.columns] if self.segments is None else self.segments
        return parts, [1] * len(parts)


def plain(op: str, what: str, value: Any, like: Tensor | None = None, *, least: int = 1) -> Held:
    """Rows that are ordinary tensors, of any number of columns and at least so many rows."""
    rows = _checks.rows(op, what, value, like)
    first = rows[0]
    _checks.floating(op, what, first)
    if len(rows) == 1:
        if first.dim() != 2 or first.shape[0] < least:
            raise ValueError(
                f"{op}(): expected {what} of shape (N, D), N ≥ {least}, got {tuple(first.shape)}"
            )
        if first.shape[1] > 1 and first.stride(1) != 1:
            raise ValueError(
                f"{op}(): expected {what} with unit stride along D (call .contiguous()), "
                f"got stride {first.stride(1)}"
            )
        return Held([rows], first.shape[0], [first.shape[1]])
    for i, row in enumerate(rows):
        if row.dtype != first.dtype or row.numel() != first.numel():
            raise ValueError(
                f"{op}(): expected {what}[{i}] of {first.numel()} elements of {dtype_name(first.dtype)} like "
                f"{what}[0], got {row.numel()} of {dtype_name(row.dtype)}"
            )
        if not row.is_contiguous():
            raise ValueError(f"{op}(): expected {what}[{i}] to be contiguous, got strides {row.stride()}")
    return Held([rows], len(rows), [first.numel()])


def vectors(op: str, like: Tensor, given: Mapping[str, Any], *, needed: str) -> None:
    """Numbers, one of them not optional; how many there are is for :func:`one_per_agent` to check."""
    for what, value in given.items():
        if value is not None or what == needed:
            _checks.floating(op, what, _checks.tensor(op, what, value, like))


def one_per_agent(op: str, n: int, **vectors: Tensor | None) -> None:
    """The length of vectors."""
    for what, t in vectors.items():
        if t is not None and t.shape != (n,):
            raise ValueError(
                f"{op}(): expected {what} of shape ({n},), one entry per agent, got {tuple(t.shape)}"
            )


def output(op: str, value: Any, held: Held, dense: bool) -> Tensor:
    """Where to write the rewards."""
    if not dense:
        raise ValueError(f"{op}(): expected no out with dense=False, got one")
    out = _checks.output(op, "out", value, held.like)
    shape = (held.agents, held.columns)
    if out.shape != shape:
        raise ValueError(f"{op}(): expected out of shape {shape}, got {tuple(out.shape)}")
    if out.dtype != held.like.dtype:
        raise ValueError(
            f"{op}(): expected out of the updates' dtype {dtype_name(held.like.dtype)}, "
            f"got {dtype_name(out.dtype)}"
        )
    if not out.is_contiguous():
        raise ValueError(f"{op}(): expected out to be contiguous, got strides {out.stride()}")
    return out
