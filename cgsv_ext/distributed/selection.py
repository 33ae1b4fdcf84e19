"""Where quotas of a sharded aggregate end on this rank: a radix selection over counts that ranks add up.

Magnitudes order as integers, their bits. Digit by digit, from the top: count this rank's entries of each
value of the digit among those that share the digits found so far, add the counts up over the ranks, and find
the digit in which each quota ends. After the last one the magnitude is known, and so is how many entries lie
above it here; entries that equal it go to ranks in their order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._ops import ops
from .ranks import Ranks

DIGITS = {torch.float32: (15, 8, 8), torch.float64: (15, 12, 12, 12, 12)}
"""Bits of the digits of a magnitude, 31 or 63 in all. The first is long: all agents share its counts, and few
entries share one, so that what follows is quick."""


def _histogram(u: Tensor, prefixes: Tensor, shift: int, bits: int, sizes: Sequence[int] | None) -> Tensor:
    if u.numel() == 0:
        return torch.zeros((*prefixes.shape, 1 << bits), dtype=torch.int64, device=u.device)
    counts: Tensor = ops.histogram(u, prefixes, shift, bits, sizes)
    return counts


def local_quotas(
    ranks: Ranks,
    u: Tensor,
    quotas: Tensor,
    segments: Sequence[int] | None,
    pieces: Sequence[int],
    pieces_of: Sequence[int],
) -> Tensor:
    """How many entries of this rank's columns each agent keeps.

    Parameters
    ----------
    ranks : Ranks
        Who holds the other columns.
    u : Tensor
        (D_rank,), this rank's part of the aggregate.
    quotas : Tensor
        (N,) or (N, S) int64, of the whole aggregate and the same on every rank. One beyond its size ends at
        the least magnitude there can be, 0, and keeps everything.
    segments : sequence of int, optional
        This rank's sizes of the segments.
    pieces : sequence of int
        Sizes of consecutive parts of `u`. Entries of equal magnitude go by piece, by rank, by index.
    pieces_of : sequence of int
        How many of the pieces belong to each segment; one number without segments.

    Returns
    -------
    Tensor
        In the shape of the quotas. Ordinary local selection keeps these entries and no others.
    """
    left = quotas.clamp(min=0)
    above = torch.zeros_like(left)  # entries here that are greater than the magnitude a quota ends at
    prefix = torch.zeros_like(left)
    digits = DIGITS[u.dtype]
    shift = sum(digits)
    ties = above
    for place, bits in enumerate(digits):
        shift -= bits
        # No agent has a prefix yet: all of them share one count.
        own = _histogram(u, prefix if place else prefix[:1], shift, bits, segments)
        # Entries of this digit or a greater one, greatest first.
        here = own.flip(-1).cumsum(-1)
        everywhere = ranks.add_("digit", own.clone()).flip(-1).cumsum(-1)
        if place == 0:
            here, everywhere = (t.expand(*left.shape, -1) for t in (here, everywhere))
        end = (everywhere < left.unsqueeze(-1)).sum(-1, keepdim=True).clamp(max=(1 << bits) - 1)
        before = (end - 1).clamp(min=0)
        greater = torch.where(end > 0, everywhere.gather(-1, before), 0).squeeze(-1)
        greater_here = torch.where(end > 0, here.gather(-1, before), 0).squeeze(-1)
        digit = (1 << bits) - 1 - end.squeeze(-1)
        wanted = left > 0
        ties = torch.where(wanted, here.gather(-1, end).squeeze(-1) - greater_here, 0)
        above = above + torch.where(wanted, greater_here, 0)
        left = torch.where(wanted, left - greater, 0)
        prefix = torch.where(wanted, (prefix << bits) + digit, -1)
    return above + _share_of_ties(ranks, u, prefix, ties, left, pieces, pieces_of)


def _share_of_ties(
    ranks: Ranks,
    u: Tensor,
    key: Tensor,
    ties: Tensor,
    left: Tensor,
    pieces: Sequence[int],
    pieces_of: Sequence[int],
) -> Tensor:
    """How many of this rank's entries that equal the last magnitude each agent keeps."""
    if all(count == 1 for count in pieces_of):
        every = ranks.gather("ties", ties).flatten(1)
        return _part(every.T, left.flatten(), every[ranks.rank].unsqueeze(1), ranks).view_as(left)
    # By piece: entries whose key is the whole of it.
    keys = key.view(len(key), -1).repeat_interleave(_on(key, pieces_of), dim=1, output_size=len(pieces))
    found = _histogram(u, keys >> 1, 0, 1, pieces).gather(-1, (keys & 1).unsqueeze(-1)).squeeze(-1)
    every = ranks.gather("ties", found)
    shares, wanted, start = [], left.view(len(left), -1), 0
    for segment, count in enumerate(pieces_of):
        own = found[:, start : start + count]
        in_order = every[:, :, start : start + count].permute(1, 2, 0).flatten(1)
        shares.append(_part(in_order, wanted[:, segment], own, ranks))
        start += count
    return torch.stack(shares, dim=1).view_as(left)


def _on(like: Tensor, values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64).to(like.device, non_blocking=True)


def _part(in_order: Tensor, wanted: Tensor, own: Tensor, ranks: Ranks) -> Tensor:
    """Of ties (rows, pieces · ranks), taken in this order until a row has enough: what is taken here."""
    before = (in_order.cumsum(-1) - in_order)[:, ranks.rank :: ranks.size]
    return torch.minimum((wanted.unsqueeze(1) - before).clamp(min=0), own).sum(1)
