"""The four ops that a rank computes of its own part of the updates, in plain PyTorch: their specification.

:mod:`cgsv_ext.distributed` adds up over ranks what these return. They have the names, arguments and results
of ``torch.ops.cgsv_ext.partial_norms``, ``partial_aggregate``, ``partial_dots`` and ``histogram``;
``updates`` is one (N, D) tensor, as a list of length one, or N tensors of D elements.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def _rows(updates: Sequence[Tensor]) -> list[Tensor]:
    rows = list(updates[0]) if len(updates) == 1 else list(updates)
    return [row.detach().flatten() for row in rows]


def partial_norms(updates: Sequence[Tensor]) -> Tensor:
    """Σ_j x_ij² of each row, (N,) float64."""
    return torch.stack([row.double().square().sum() for row in _rows(updates)])


def partial_aggregate(
    updates: Sequence[Tensor], weights: Tensor, gamma: float, norms: Tensor
) -> tuple[Tensor, Tensor]:
    """u of these columns, (D,), and ⟨Δw_i, u⟩ of each agent with ‖u‖² at the end, (N + 1,) float64.

    ``norms`` are of whole rows. The product of an agent whose norm is not finite and positive is 0.
    """
    rows = _rows(updates)
    valid = ((norms > 0) & norms.isfinite()).tolist()
    coefficients = (weights.double().nan_to_num(0.0, 0.0, 0.0) * gamma / norms.double()).tolist()
    u = torch.zeros(rows[0].numel(), dtype=torch.float64, device=rows[0].device)
    for row, taking_part, coefficient in zip(rows, valid, coefficients, strict=True):
        if taking_part:
            u += coefficient * row.double()
    if rows[0].dtype != torch.float64:
        u = u.float()
    dots = partial_dots([*rows, u], u)
    dots[:-1][~torch.tensor(valid, device=u.device)] = 0
    return u, dots


def partial_dots(updates: Sequence[Tensor], aggregate: Tensor) -> Tensor:
    """⟨Δw_i, u⟩ of every row, (N,) float64: where others hold other agents' rows."""
    return torch.stack([row.double() @ aggregate.double() for row in _rows(updates)])


def keys(magnitudes: Tensor) -> Tensor:
    """Magnitudes as int64 that order as they do: the bits of |u|, every NaN as the one above infinity."""
    integer = torch.int64 if magnitudes.dtype == torch.float64 else torch.int32
    bits = magnitudes.abs().view(integer).long()
    infinity = 0x7FF0000000000000 if magnitudes.dtype == torch.float64 else 0x7F800000
    return bits.clamp(max=infinity + 1)


def histogram(
    aggregate: Tensor, prefixes: Tensor, shift: int, bits: int, segments: Sequence[int] | None = None
) -> Tensor:
    """How many entries of each digit there are below each prefix, (P, 2^bits) or (P, S, 2^bits) int64.

    Of the entries with ``key >> (shift + bits)`` equal to the prefix, how many have each value of
    ``(key >> shift) & (2^bits − 1)``. ``prefixes`` is (P,), or (P, S) with segments, int64; −1 counts
    nothing.
    """
    table = prefixes if segments is not None else prefixes[:, None]
    result = torch.zeros((*table.shape, 1 << bits), dtype=torch.int64, device=aggregate.device)
    sizes = [aggregate.numel()] if segments is None else list(segments)
    for s, key in enumerate(keys(aggregate).split_with_sizes(sizes)):
        digit, above = (key >> shift) & ((1 << bits) - 1), key >> (shift + bits)
        for p, prefix in enumerate(table[:, s].tolist()):
            result[p, s] = torch.bincount(digit[above == prefix], minlength=1 << bits)
    return result if segments is not None else result[:, 0]
