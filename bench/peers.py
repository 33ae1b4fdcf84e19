"""The same results in plain PyTorch, from the paper's letter to the best that its operators allow.

All but those by ranks and by topk select by magnitude alone: equal magnitudes at a boundary are kept or
dropped together.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from cgsv_ext import reference

GAMMA, ALPHA, BETA, FLOOR = 0.5, 0.95, 1.0, 1e-3


# --- value: equations (1), (3) and (4), and the quotas of (5)


def quotas(r: Tensor, cosines: Tensor, d: int) -> Tensor:
    r = (ALPHA * r + (1 - ALPHA) * cosines).clamp(min=FLOOR)
    t = torch.tanh(BETA * r / r.sum())
    return (d * t / t.max()).long()


def norms(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=1)


def aggregate(x: Tensor, r: Tensor, norms: Tensor) -> tuple[Tensor, Tensor]:
    """Two matrix-vector products; the unit rows are never formed."""
    u = (GAMMA * r / norms).to(x.dtype) @ x
    return u, (x @ u) / (norms * u.norm())


def aggregate_literally(x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Normalise each row, sum the rows up, compare each with the sum."""
    units = [GAMMA * row / row.norm() for row in x]
    u = sum((p * unit for p, unit in zip(r.tolist(), units, strict=True)), torch.zeros_like(x[0]))
    return u, torch.stack([cosine_similarity(unit, u, dim=0) for unit in units])


# --- select: the largest magnitude that agent i does not keep, -1 where it keeps all


def by_sort(u: Tensor, q: Tensor) -> Tensor:
    ordered = u.abs().sort(descending=True).values
    return ordered.new_full((), -1).where(q >= u.numel(), ordered[q.clamp(max=u.numel() - 1)])


def by_partition(u: Tensor, q: Tensor) -> Tensor:
    """NumPy's partition at all quotas at once: not PyTorch, but at hand, and it shares the memory."""
    places = u.numel() - 1 - q.numpy()
    parts = np.partition(u.abs().numpy(), places[places >= 0])
    return torch.from_numpy(np.where(places >= 0, parts[places], np.float32(-1)))


def by_topk(u: Tensor, q: Tensor) -> list[Tensor]:
    """To the letter: one topk per agent."""
    magnitude = u.abs()
    return [magnitude.topk(k, sorted=False).indices for k in q.tolist()]


def by_ranks(u: Tensor, q: Tensor) -> Tensor:
    """Place of each entry in the order, ties by index: the mask is ranks < q."""
    order = u.abs().argsort(descending=True, stable=True)
    return torch.empty_like(order).scatter_(0, order, torch.arange(order.numel()))


def kept(u: Tensor, q: Tensor) -> Tensor:
    """That mask, (N, D)."""
    return by_ranks(u, q) < q[:, None]


# --- download


def broadcast_mask(u: Tensor, threshold: Tensor, out: Tensor) -> Tensor:
    return torch.mul(u.abs() > threshold[:, None], u, out=out)


def masked(u: Tensor, mask: Tensor, out: Tensor) -> Tensor:
    return torch.mul(u, mask, out=out)


def hardshrink(u: Tensor, threshold: Tensor, out: Tensor) -> Tensor:
    """A row at a time by the one operator that masks as it writes: it keeps what is above the threshold."""
    for row, t in zip(out, threshold.tolist(), strict=True):
        torch.hardshrink(u, t, out=row)
    return out


def where_mask(u: Tensor, threshold: Tensor, out: Tensor) -> Tensor:
    """For torch.compile, which fuses it all."""
    return out.copy_(torch.where(u.abs() > threshold[:, None], u, 0.0))


def masked_add(parameters: Tensor, u: Tensor, threshold: Tensor) -> None:
    magnitude = u.abs()
    for row, t in zip(parameters, threshold.tolist(), strict=True):
        row.add_(u * (magnitude > t))


def hardshrink_add(parameters: Tensor, u: Tensor, threshold: Tensor) -> None:
    for row, t in zip(parameters, threshold.tolist(), strict=True):
        row.add_(torch.hardshrink(u, t))


def where_add(parameters: Tensor, u: Tensor, threshold: Tensor) -> None:
    parameters.add_(torch.where(u.abs() > threshold[:, None], u, 0.0))


# --- the whole round


def paper_loop(x: Tensor, r: Tensor) -> Tensor:
    """The paper to the letter: normalise, weighted sum, cosine similarity, one topk per agent."""
    u, cosines = aggregate_literally(x, r)
    return reference.rewards_by_topk(u, quotas(r, cosines, u.numel()))


def one_sort(x: Tensor, r: Tensor, out: Tensor) -> Tensor:
    """One sort for all agents, and the fastest mask there is."""
    return _round(x, r, out, by_sort, hardshrink)


def one_partition(x: Tensor, r: Tensor, out: Tensor) -> Tensor:
    """As one_sort, by NumPy's partition."""
    return _round(x, r, out, by_partition, hardshrink)


def one_argsort(x: Tensor, r: Tensor, out: Tensor) -> Tensor:
    """One stable argsort: exactly q_i entries, also where magnitudes tie."""
    return _round(x, r, out, kept, masked)


def one_sort_broadcast(x: Tensor, r: Tensor, out: Tensor) -> Tensor:
    """One sort for all agents, and one mask for all."""
    return _round(x, r, out, by_sort, broadcast_mask)


def one_sort_fused(x: Tensor, r: Tensor, out: Tensor) -> Tensor:
    """As one_sort, for torch.compile."""
    return _round(x, r, out, by_sort, where_mask)


def _round(
    x: Tensor,
    r: Tensor,
    out: Tensor,
    select: Callable[[Tensor, Tensor], Tensor],
    download: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    u, cosines = aggregate(x, r, norms(x))
    return download(u, select(u, quotas(r, cosines, u.numel())), out)


def compiled(function: Callable[..., object], *arguments: Tensor) -> Callable[[], object] | None:
    """`function` by torch.compile, once for all sizes; None where that does not work here."""
    fast = torch.compile(function, fullgraph=True, dynamic=True)
    try:
        fast(*arguments)
    except Exception as failure:
        warnings.warn(f"torch.compile of {function.__name__}: {failure}"[:500], stacklevel=2)
        return None
    return lambda: fast(*arguments)
