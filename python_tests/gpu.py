"""What the tests of CUDA share: every kind of call, and what to call with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import oracle
import pytest
import torch
from torch import Tensor

import cgsv_ext

needs_cuda = pytest.mark.skipif(
    not (torch.cuda.is_available() and cgsv_ext.build_info()["cuda"]),
    reason="needs a GPU and a build for it",
)

ops = torch.ops.cgsv_ext
Call = Callable[[Tensor, Tensor, Tensor], Any]
"""Of updates (N, D), importance (N,) and a matrix like the updates to write to; returns all it decides."""


def _u(x: Tensor) -> Tensor:
    """Something to select from."""
    return x[0].to(oracle.aggregate_dtype(x.dtype))


def _q(x: Tensor, r: Tensor) -> Tensor:
    return (r * x.shape[1]).long()


def _parts(x: Tensor, count: int = 3) -> list[int]:
    """Segments of different sizes, one of them empty."""
    d = x.shape[1]
    sizes = [d // (2 * count) + (i % 2) for i in range(count - 1)]
    return [0, *sizes, d - sum(sizes)]


def _select(x: Tensor, r: Tensor, w: Tensor) -> Any:
    return cgsv_ext.select(_u(x), _q(x, r))


def _select_in_segments(x: Tensor, r: Tensor, w: Tensor) -> Any:
    parts = _parts(x)
    return cgsv_ext.select(_u(x), cgsv_ext.quotas(r, parts), segments=parts)


def _download_(x: Tensor, r: Tensor, w: Tensor) -> Any:
    parameters = w.copy_(x)
    cgsv_ext.download_(parameters, _u(x), _select(x, r, w), scale=0.3)
    return parameters


def _download_to_rows(x: Tensor, r: Tensor, w: Tensor) -> Any:
    parts, rows = _parts(x), list(w.copy_(x))
    cgsv_ext.download_(rows, _u(x), _select_in_segments(x, r, w), segments=parts)
    return tuple(rows)


def _pack_row_(x: Tensor, r: Tensor, w: Tensor) -> Any:
    parts = x[0].split(_parts(x, 300))
    return cgsv_ext.pack_row_(w[0], [part.half() if i % 3 else part for i, part in enumerate(parts)]), w[0]


def _histogram(x: Tensor, r: Tensor, w: Tensor) -> Any:
    prefixes = torch.full((3, len(_parts(x))), 127 << 3, device=x.device)
    prefixes[0], prefixes[1, 0] = 126 << 3, -1
    return ops.histogram(_u(x).float(), prefixes, 10, 10, _parts(x))


OPS: dict[str, Call] = {
    "norms": lambda x, r, w: cgsv_ext.norms(x),
    "partial_norms": lambda x, r, w: ops.partial_norms([x]),
    "partial_aggregate": lambda x, r, w: ops.partial_aggregate([x], r, 0.5, r + 1),
    "partial_dots": lambda x, r, w: ops.partial_dots([x], _u(x)),
    "histogram": _histogram,
    "pack_row_": _pack_row_,
    "gram": lambda x, r, w: cgsv_ext.gram(x),
    "aggregate": lambda x, r, w: cgsv_ext.aggregate(x, r, gamma=0.5),
    "update_importance": lambda x, r, w: cgsv_ext.update_importance(r, r - 0.1),
    "quotas": lambda x, r, w: cgsv_ext.quotas(r, _parts(x)),
    "select": _select,
    "select, segments": _select_in_segments,
    "download": lambda x, r, w: cgsv_ext.download(_u(x), _select(x, r, w), out=w.to(_u(x).dtype)),
    "download_": _download_,
    "download_, rows, segments": _download_to_rows,
}
STEPS: dict[str, Call] = {
    "dense": lambda x, r, w: cgsv_ext.reward_step(x, r),
    "out=": lambda x, r, w: cgsv_ext.reward_step(x, r, out=w),
    "dense=False": lambda x, r, w: cgsv_ext.reward_step(x, r, dense=False),
    "norms=": lambda x, r, w: cgsv_ext.reward_step(x, r, norms=cgsv_ext.norms(x)),
    "weights=": lambda x, r, w: cgsv_ext.reward_step(x, r, weights=r + 1),
    "first round": lambda x, r, w: cgsv_ext.reward_step(x, torch.zeros_like(r)),
    "rows": lambda x, r, w: cgsv_ext.reward_step(list(x), r),
    "segments": lambda x, r, w: cgsv_ext.reward_step(x, r, segments=_parts(x)),
    "many segments": lambda x, r, w: cgsv_ext.reward_step(x, r, segments=_parts(x, 700), out=w),
    "rows, segments": lambda x, r, w: cgsv_ext.reward_step(list(x), r, segments=_parts(x), dense=False),
}
CALLS = STEPS | OPS

each_call = pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
each_step = pytest.mark.parametrize("call", STEPS.values(), ids=list(STEPS))


def inputs(
    n: int = 5, d: int = 20_011, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """What a Call takes, on the GPU."""
    x = oracle.updates_of("alike", n, d, dtype, seed).cuda()
    r = torch.rand(n, generator=oracle.generator(seed), dtype=torch.float64).cuda()
    return x, r, torch.full_like(x, 7.0)


def normal(n: int, d: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Updates and importance made on the GPU, for sizes that would take the CPU long."""
    g = torch.Generator("cuda").manual_seed(0)
    return torch.empty(n, d, dtype=dtype, device="cuda").normal_(generator=g), torch.ones(n, device="cuda")


def copied(value: Any) -> Any:
    """A copy of what a call returned, with memory of its own."""
    if isinstance(value, Tensor):
        return value.clone()
    return tuple(copied(part) for part in value) if isinstance(value, tuple) else value
