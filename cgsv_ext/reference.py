"""The mechanism in plain PyTorch, obviously right rather than fast.

Every function has the name, the arguments and the result of its twin in :mod:`cgsv_ext` (but for ``out=`` of
``download``, and for ``group`` and ``dim``: it knows one process) and computes in float64 what the paper's
equations say. Two have no twin of their name: ``rewards_by_topk`` is the download step as one would write it
from equation (5), one ``topk`` per agent; ``shapley_exact`` is :func:`cgsv_ext.shapley.exact`, one coalition
at a time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .types import Aggregation, RewardStep, Selection, Updates

__all__ = [
    "aggregate",
    "download",
    "download_",
    "gram",
    "norms",
    "pack_row_",
    "quotas",
    "reward_step",
    "rewards_by_topk",
    "select",
    "shapley_exact",
    "update_importance",
]


def _matrix(updates: Updates) -> Tensor:
    """Updates as one (N, D) matrix."""
    if isinstance(updates, Tensor):
        return updates.detach()
    return torch.stack([update.detach().flatten() for update in updates])


def _finite_or_zero(values: Tensor) -> Tensor:
    """In float64, a non-finite entry counts as 0."""
    return values.detach().double().nan_to_num(0.0, 0.0, 0.0)


def norms(updates: Updates) -> Tensor:
    """‖Δw_i‖ in float64, (N,)."""
    lengths: Tensor = torch.linalg.vector_norm(_matrix(updates).double(), dim=1)
    return lengths


def _rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """To nearest even, rounded once; ``to`` takes a float64 to a half type by way of float32."""
    if x.dtype != torch.float64 or dtype not in (torch.float16, torch.bfloat16):
        return x.to(dtype)
    nearest = x.float()
    # Where that is inexact and its last bit 0, its neighbour on the other side of x rounds on as x would.
    toward = torch.where(nearest.double() > x, -math.inf, math.inf).float()
    even = nearest.view(torch.int32) % 2 == 0
    return torch.where(even & (nearest.double() != x), nearest.nextafter(toward), nearest).to(dtype)


def pack_row_(row: Tensor, parts: Tensor | Sequence[Tensor]) -> Tensor:
    """The parts one after the other in `row`, and its norm in float64."""
    parts = [parts] if isinstance(parts, Tensor) else parts
    pieces = torch.split(row, [part.numel() for part in parts])
    for part, piece in zip(parts, pieces, strict=True):
        piece.copy_(_rounded(part.detach().flatten(), row.dtype))
    norm: Tensor = torch.linalg.vector_norm(row.double())
    return norm


def aggregate(updates: Updates, weights: Tensor, *, gamma: float, norms: Tensor | None = None) -> Aggregation:
    """Equations (1) and (3): u_N = Σ_i weight_i · Γ · Δw_i / ‖Δw_i‖ and ψ_i = cos(u_i, u_N)."""
    x = _matrix(updates)
    found = torch.linalg.vector_norm(x.double(), dim=1) if norms is None else norms.double()
    p = _finite_or_zero(weights)
    u = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    valid = [0.0 < norm < math.inf for norm in found.tolist()]
    for i, taking_part in enumerate(valid):
        if taking_part:
            u += p[i] * gamma / found[i] * x[i].double()
    if x.dtype != torch.float64:
        u = u.float()
    cosines = torch.zeros_like(found)
    length = u.double().norm()
    for i, taking_part in enumerate(valid):
        if taking_part and length > 0:
            cosines[i] = (x[i].double() @ u.double() / (found[i] * length)).clamp(-1, 1)
    return Aggregation(u, cosines, found)


def update_importance(
    importance: Tensor, cosines: Tensor, *, alpha: float = 0.95, floor: float | None = 1e-3
) -> Tensor:
    """Equation (4): the normalised moving average of the cosines."""
    r = alpha * _finite_or_zero(importance) + (1 - alpha) * _finite_or_zero(cosines)
    if floor is not None:
        r = r.clamp(min=floor)
    total = r.sum()
    return r / total if total > 0 else torch.zeros_like(r)


def quotas(importance: Tensor, sizes: int | Sequence[int], *, beta: float = 1.0) -> Tensor:
    """Equation (5): q_i = max(0, ⌊D · tanh(β r_i) / max_j tanh(β r_j)⌋), within each segment."""
    r = _finite_or_zero(importance).tolist()
    t = [math.copysign(math.tanh(beta * abs(r_i)), r_i) if r_i else 0.0 for r_i in r]
    largest = max(t)
    # Negative quotients give no entry; one of -inf has no floor.
    ratios = [max(0.0, t_i / largest) if largest > 0 else 0.0 for t_i in t]
    rows = [[math.floor(d * ratio) for d in _sizes(sizes)] for ratio in ratios]
    q = torch.tensor(rows, dtype=torch.int64, device=importance.device)
    return q[:, 0] if isinstance(sizes, int) else q


def _sizes(sizes: int | Sequence[int]) -> list[int]:
    return [sizes] if isinstance(sizes, int) else list(sizes)


def _ranking(u: Tensor) -> Tensor:
    """Indices of u by magnitude descending, NaN first, then by index ascending."""
    return u.abs().argsort(descending=True, stable=True)


def select(aggregate: Tensor, quotas: Tensor, *, segments: Sequence[int] | None = None) -> Selection:
    """Magnitude and index of the q-th largest entry, per agent (and segment)."""
    q = quotas if segments is not None else quotas[:, None]
    magnitude = aggregate.new_full(q.shape, math.inf)
    last_index = torch.full_like(q, -1)
    start = 0
    for s, size in enumerate(segments if segments is not None else [aggregate.numel()]):
        ranking = _ranking(aggregate[start : start + size])
        for i, count in enumerate(q[:, s].clamp(0, size).tolist()):
            if count > 0:
                last_index[i, s] = start + ranking[count - 1]
                magnitude[i, s] = aggregate[last_index[i, s]].abs()
        start += size
    return Selection(magnitude.reshape(quotas.shape), last_index.reshape(quotas.shape))


def _keep(aggregate: Tensor, selection: Selection, segments: Sequence[int] | None) -> Tensor:
    """(N, D) bool: whether agent i keeps entry j; NaN ranks above infinity."""
    n = selection.magnitude.shape[0]
    keep = torch.zeros(n, aggregate.numel(), dtype=torch.bool, device=aggregate.device)
    magnitude, last_index = selection.magnitude.reshape(n, -1), selection.last_index.reshape(n, -1)
    start = 0
    for s, size in enumerate(segments if segments is not None else [aggregate.numel()]):
        u = aggregate[start : start + size].abs()
        j = torch.arange(start, start + size, device=u.device)
        for i in range(n):
            tau, c = magnitude[i, s], last_index[i, s]
            if c < 0 and tau.isinf():  # nothing, not even a NaN
                continue
            above = (u > tau) | (u.isnan() & ~tau.isnan())
            tied = (u == tau) | (u.isnan() & tau.isnan())
            keep[i, start : start + size] = above | (tied & (j <= c))
        start += size
    return keep


def download(
    aggregate: Tensor,
    selection: Selection,
    *,
    segments: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """v_i: the aggregate where agent i keeps it, +0 elsewhere, (N, D)."""
    keep = _keep(aggregate, selection, segments)
    value = aggregate.to(dtype or aggregate.dtype)
    return torch.where(keep, value, value.new_zeros(()))


def download_(
    parameters: Updates,
    aggregate: Tensor,
    selection: Selection,
    *,
    segments: Sequence[int] | None = None,
    scale: float = 1.0,
) -> None:
    """w_i += scale · v_i on the entries agent i keeps, in the wider dtype, rounded once into w_i."""
    keep = _keep(aggregate, selection, segments)
    for i, row in enumerate(parameters):
        w = row.detach().flatten()
        wide = torch.promote_types(w.dtype, aggregate.dtype)
        step = aggregate.to(wide) * torch.tensor(scale, dtype=wide, device=w.device)
        w = torch.where(keep[i], (w.to(wide) + step).to(w.dtype), w)
        row.detach().copy_(w.view_as(row))


def rewards_by_topk(aggregate: Tensor, quotas: Tensor) -> Tensor:
    """Equation (5) to the letter: one topk per agent over the same vector. Ties fall as topk likes."""
    rewards = aggregate.new_zeros(quotas.numel(), aggregate.numel())
    for i, q in enumerate(quotas.tolist()):
        kept = aggregate.abs().topk(q).indices
        rewards[i, kept] = aggregate[kept]
    return rewards


def weights_of(importance: Tensor, weights: Tensor | None) -> Tensor:
    """p of equation (1): the weights if given, else the importance, else 1/N in the first round."""
    if weights is not None:
        return _finite_or_zero(weights)
    r = _finite_or_zero(importance)
    return r if bool((r != 0).any()) else torch.full_like(r, 1 / r.numel())


def reward_step(
    updates: Updates,
    importance: Tensor,
    *,
    gamma: float = 0.5,
    alpha: float = 0.95,
    beta: float = 1.0,
    floor: float | None = 1e-3,
    weights: Tensor | None = None,
    norms: Tensor | None = None,
    segments: Sequence[int] | None = None,
    out: Tensor | None = None,
    dense: bool = True,
) -> RewardStep:
    """One round: equations (1), (3), (4) and (5)."""
    x = _matrix(updates)
    u, cosines, found = aggregate(x, weights_of(importance, weights), gamma=gamma, norms=norms)
    r = update_importance(importance, cosines, alpha=alpha, floor=floor)
    q = quotas(r, x.shape[1] if segments is None else segments, beta=beta)
    selection = select(u, q, segments=segments)
    rewards = download(u, selection, segments=segments, dtype=x.dtype) if dense else None
    if out is not None and rewards is not None:
        rewards = out.copy_(rewards)
    valid = (found > 0) & found.isfinite()
    return RewardStep(rewards, r, cosines, q, u, selection, found, valid)


def _unit_rows(updates: Updates) -> Tensor:
    """Δw_i / ‖Δw_i‖ in float64, zeros for an agent whose norm is zero or not finite."""
    x = _matrix(updates).double()
    lengths = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return torch.where((lengths > 0) & lengths.isfinite(), x / lengths, 0.0)


def gram(updates: Updates) -> Tensor:
    """⟨Δw_i, Δw_j⟩ / (‖Δw_i‖ ‖Δw_j‖) in float64, (N, N)."""
    x = _unit_rows(updates)
    return x @ x.T


def shapley_exact(updates: Updates, weights: Tensor | None = None) -> Tensor:
    """Equation (2) to the letter, (N,) float64: the mean marginal contribution over all N! permutations.

    v(S) = cos(u_S, u_N) is taken of the vectors themselves; for a handful of agents.
    """
    x = _unit_rows(updates)
    n = x.shape[0]
    w = torch.full_like(x[:, 0], 1 / n) if weights is None else _finite_or_zero(weights)
    w = w * (x != 0).any(dim=1)  # a weight of an agent that takes no part must not lift the bound below

    def aggregate(coalition: frozenset[int]) -> Tensor | None:
        """u_S, or None where it counts as zero."""
        members = sorted(coalition)
        u = w[members] @ x[members]
        return u if u @ u > 1e-12 * w[members].abs().sum() ** 2 else None

    everyone = aggregate(frozenset(range(n)))
    values: dict[frozenset[int], float] = {}

    def value(coalition: frozenset[int]) -> float:
        if coalition not in values:
            u = aggregate(coalition)
            if u is None or everyone is None:
                values[coalition] = 0.0
            else:
                values[coalition] = float((u @ everyone / (u.norm() * everyone.norm())).clamp(-1, 1))
        return values[coalition]

    marginals = [0.0] * n
    for permutation in itertools.permutations(range(n)):
        for k, i in enumerate(permutation):
            before = frozenset(permutation[:k])
            marginals[i] += value(before | {i}) - value(before)
    return torch.tensor(marginals, dtype=torch.float64, device=x.device) / math.factorial(n)
