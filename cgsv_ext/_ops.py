"""The compiled ops, torch.ops.cgsv_ext.*, and what torch must know of them beside their code.

Fake kernels give the shapes and dtypes of the results, so that the ops compile and export. No op is
differentiable: the dispatcher falls through autograd, and no result requires grad.
"""

# torch.library's decorators are untyped.
# mypy: disable-error-code="untyped-decorator,no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._load import require
from .types import aggregate_dtype

require()
ops = torch.ops.cgsv_ext


def written(*tensors: Tensor) -> None:
    """Tell autograd of a write that it did not see: ops of the stable ABI do not bump versions."""
    if torch.compiler.is_compiling():
        return
    torch.autograd.graph.increment_version([t for t in tensors if not t.is_inference()])


def array(value: Tensor, dtype: torch.dtype | None = None) -> Any:
    """A tensor as the compiled functions that are no ops take it: contiguous, in NumPy."""
    return value.detach().to("cpu", dtype).resolve_neg().contiguous().numpy()


def _shape(op: str, updates: Sequence[Tensor]) -> tuple[int, int]:
    """N and D of updates as the ops take them."""
    if len(updates) > 1:
        return len(updates), updates[0].numel()
    shape = tuple(updates[0].shape)
    if len(shape) != 2:
        raise ValueError(f"{op}(): expected updates of shape (N, D), N ≥ 1 and D ≥ 1, got {shape}")
    return shape


def _per_agent(like: Tensor, n: int, segments: Sequence[int] | None, dtype: torch.dtype) -> Tensor:
    shape = (n,) if segments is None else (n, len(segments))
    return like.new_empty(shape, dtype=dtype)


_autograd = torch.library.Library("cgsv_ext", "IMPL", "Autograd")


def _fake(name: str) -> Any:
    """Decorate the fake kernel of an op, which the dispatcher is told to take past autograd."""
    _autograd.impl(name, torch.library.fallthrough_kernel)
    return torch.library.register_fake(f"cgsv_ext::{name}")


@_fake("norms")
def _(updates: Sequence[Tensor]) -> Tensor:
    return updates[0].new_empty(_shape("norms", updates)[0], dtype=torch.float64)


@_fake("partial_norms")
def _(updates: Sequence[Tensor]) -> Tensor:
    return updates[0].new_empty(_shape("partial_norms", updates)[0], dtype=torch.float64)


@_fake("pack_row_")
def _(row: Tensor, parts: Sequence[Tensor]) -> Tensor:
    return row.new_empty((), dtype=torch.float64)


@_fake("aggregate")
def _(
    updates: Sequence[Tensor], weights: Tensor, gamma: float, norms: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    n, d = _shape("aggregate", updates)
    like = updates[0]
    return (
        like.new_empty(d, dtype=aggregate_dtype(like.dtype)),
        like.new_empty(n, dtype=torch.float64),
        like.new_empty(n, dtype=torch.float64),
    )


@_fake("partial_aggregate")
def _(updates: Sequence[Tensor], weights: Tensor, gamma: float, norms: Tensor) -> tuple[Tensor, Tensor]:
    n, d = _shape("partial_aggregate", updates)
    like = updates[0]
    return like.new_empty(d, dtype=aggregate_dtype(like.dtype)), like.new_empty(n + 1, dtype=torch.float64)


@_fake("partial_dots")
def _(updates: Sequence[Tensor], aggregate: Tensor) -> Tensor:
    return updates[0].new_empty(_shape("partial_dots", updates)[0], dtype=torch.float64)


@_fake("update_importance")
def _(importance: Tensor, cosines: Tensor, alpha: float, floor: float | None) -> Tensor:
    return importance.new_empty(importance.shape, dtype=torch.float64)


@_fake("quotas")
def _(importance: Tensor, sizes: Sequence[int], beta: float) -> Tensor:
    return importance.new_empty((importance.shape[0], len(sizes)), dtype=torch.int64)


@_fake("select")
def _(aggregate: Tensor, quotas: Tensor, segments: Sequence[int] | None) -> tuple[Tensor, Tensor]:
    n = quotas.shape[0]
    return (
        _per_agent(aggregate, n, segments, aggregate.dtype),
        _per_agent(aggregate, n, segments, torch.int64),
    )


@_fake("histogram")
def _(aggregate: Tensor, prefixes: Tensor, shift: int, bits: int, segments: Sequence[int] | None) -> Tensor:
    return aggregate.new_empty((*prefixes.shape, 1 << bits), dtype=torch.int64)


@_fake("download")
def _(
    aggregate: Tensor, magnitude: Tensor, last_index: Tensor, segments: Sequence[int] | None, out: Tensor
) -> None:
    return None


@_fake("download_")
def _(
    parameters: Sequence[Tensor],
    aggregate: Tensor,
    magnitude: Tensor,
    last_index: Tensor,
    segments: Sequence[int] | None,
    scale: float,
) -> None:
    return None


@_fake("reward_step")
def _(
    updates: Sequence[Tensor],
    importance: Tensor,
    gamma: float,
    alpha: float,
    beta: float,
    floor: float | None,
    weights: Tensor | None,
    norms: Tensor | None,
    segments: Sequence[int] | None,
    out: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    n, d = _shape("reward_step", updates)
    like = updates[0]
    dtype = aggregate_dtype(like.dtype)
    return (
        like.new_empty(n, dtype=torch.float64),
        like.new_empty(n, dtype=torch.float64),
        _per_agent(like, n, segments, torch.int64),
        like.new_empty(d, dtype=dtype),
        _per_agent(like, n, segments, dtype),
        _per_agent(like, n, segments, torch.int64),
        like.new_empty(n, dtype=torch.float64),
        like.new_empty(n, dtype=torch.bool),
    )


@_fake("gram")
def _(updates: Sequence[Tensor]) -> Tensor:
    n = _shape("gram", updates)[0]
    return updates[0].new_empty((n, n), dtype=torch.float64)
