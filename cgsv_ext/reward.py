"""The reward mechanism, one step at a time and all of it at once.

Everything raises before it writes: a TypeError for an argument of the wrong Python type, a ValueError that
says what was expected and what came for everything else. What is in a tensor never raises. Results are
detached. Equation and section numbers are those of Xu et al., "Gradient-Driven Rewards to Guarantee Fairness
in Collaborative Machine Learning", NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import atanh, isfinite
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import _checks
from ._ops import ops, written
from .types import Aggregation, RewardStep, Selection, States, Updates

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def _spread(group: ProcessGroup | None, value: object) -> bool:
    """Whether :mod:`cgsv_ext.distributed` takes the call: for a group, DTensors, or structures of them."""
    if group is not None:
        return True
    while not isinstance(value, Tensor):
        if isinstance(value, (list, tuple)):
            value = value[0] if value else None
        elif isinstance(value, Mapping):
            value = next(iter(value.values()), None)
        elif isinstance(value, torch.nn.ParameterList):
            value = next(iter(value), None)
        else:
            return False
    return type(value) is not Tensor and hasattr(value, "device_mesh")


def norms(updates: Updates | States, *, group: ProcessGroup | None = None, dim: str = "columns") -> Tensor:
    """Length of each agent's update, ‖Δw_i‖.

    Parameters
    ----------
    updates : Tensor or sequence of Tensor
        (N, D) with unit stride along D and any row stride, or N contiguous tensors of D elements each, of
        any shape; float64, float32, bfloat16 or float16. DTensors, and lists or state dicts of DTensors for
        each agent, too; their mesh is the group.
    group : ProcessGroup, optional
        Who holds the rest, of which this rank passes its part: docs/scale.md. None: nobody does.
    dim : {"columns", "agents"}
        What is spread over the group: with "columns" each rank passes some columns of every update, with
        "agents" some agents' whole updates.

    Returns
    -------
    Tensor
        (N,) float64, of all agents; not finite where an update is not.
    """
    if _spread(group, updates) or dim != "columns":
        from . import distributed

        return distributed.norms(updates, group=group, dim=dim)
    rows = _checks.rows("norms", "updates", updates)
    lengths: Tensor = ops.norms(rows)
    return lengths


def aggregate(
    updates: Updates | States,
    weights: Tensor,
    *,
    gamma: float,
    norms: Tensor | None = None,
    group: ProcessGroup | None = None,
    dim: str = "columns",
) -> Aggregation:
    """Aggregate of the normalised updates and each agent's cosine with it, equations (1) and (3).

    ``u_N = Σ_i weights_i · Γ · Δw_i / ‖Δw_i‖`` and ``ψ_i = cos(u_i, u_N)``.

    Parameters
    ----------
    updates : Tensor or sequence of Tensor
        As in :func:`norms`.
    weights : Tensor
        (N,), any floating dtype. Used as given, never renormalised; an entry that is not finite counts as 0.
    gamma : float
        Normalization coefficient Γ > 0.
    norms : Tensor, optional
        (N,), the updates' norms where they are known already; saves one read of the updates. One that is
        not finite and positive leaves its agent out.
    group, dim
        As in :func:`norms`. The aggregate is of this rank's columns.

    Returns
    -------
    Aggregation
        ``aggregate`` (D,), float64 for float64 updates and float32 for all others; ``cosines`` (N,)
        float64; ``norms`` (N,) float64. An agent whose norm is zero or not finite takes no part.
    """
    if _spread(group, updates) or dim != "columns":
        from . import distributed

        return distributed.aggregate(updates, weights, gamma=gamma, norms=norms, group=group, dim=dim)
    rows = _checks.rows("aggregate", "updates", updates)
    weights = _checks.tensor("aggregate", "weights", weights, rows[0])
    gamma = _checks.number("aggregate", "gamma", gamma)
    if norms is not None:
        norms = _checks.tensor("aggregate", "norms", norms, rows[0])
    return Aggregation(*ops.aggregate(rows, weights, gamma, norms))


def update_importance(
    importance: Tensor, cosines: Tensor, *, alpha: float = 0.95, floor: float | None = 1e-3
) -> Tensor:
    """Moving average of the cosines, normalised to sum to 1, equation (4).

    ``r_i ← max(floor, α r_i + (1 − α) ψ_i)``, then ``r_i ← r_i / Σ_j r_j``.

    Parameters
    ----------
    importance : Tensor
        (N,), any floating dtype: r of the round before, zeros in the first. An entry that is not finite
        counts as 0.
    cosines : Tensor
        (N,), any floating dtype: ψ.
    alpha : float
        Weight of the past, in [0, 1].
    floor : float or None
        Least importance before normalising, finite and ≥ 0; None is equation (4) to the letter.

    Returns
    -------
    Tensor
        (N,) float64; all zero where the sum to normalise by is not positive.
    """
    importance = _checks.tensor("update_importance", "importance", importance)
    cosines = _checks.tensor("update_importance", "cosines", cosines, importance)
    alpha = _checks.number("update_importance", "alpha", alpha)
    if floor is not None:
        floor = _checks.number("update_importance", "floor", floor)
    r: Tensor = ops.update_importance(importance, cosines, alpha, floor)
    return r


def quotas(importance: Tensor, sizes: int | Sequence[int], *, beta: float = 1.0) -> Tensor:
    """How many entries each agent keeps, equation (5).

    ``q_i = max(0, ⌊D · tanh(β r_i) / max_j tanh(β r_j)⌋)``, in float64 and in this order.

    Parameters
    ----------
    importance : Tensor
        (N,), any floating dtype: r.
    sizes : int or sequence of int
        D, or the sizes of the segments that each get a quota of their own.
    beta : float
        Altruism degree β > 0. With ``inf`` every agent of positive importance gets everything.

    Returns
    -------
    Tensor
        (N,) int64 for an int, (N, S) for a sequence. The agent with the largest r gets exactly D; all are 0
        where no r is positive.
    """
    importance = _checks.tensor("quotas", "importance", importance)
    whole = not isinstance(sizes, Sequence)
    lengths = _checks.lengths("quotas", "sizes", [sizes] if whole else sizes)
    beta = _checks.number("quotas", "beta", beta)
    q: Tensor = ops.quotas(importance, lengths, beta)
    return q.squeeze(1) if whole else q


def select(
    aggregate: Tensor,
    quotas: Tensor,
    *,
    segments: Sequence[int] | None = None,
    group: ProcessGroup | None = None,
) -> Selection:
    """Which entries each agent keeps: where its quota of the largest |u_N| ends, for all agents at once.

    Entries rank by magnitude descending, then by index ascending; exactly q_i are kept.

    Parameters
    ----------
    aggregate : Tensor
        (D,) contiguous, float32 or float64. A NaN ranks above infinity.
    quotas : Tensor
        (N,) int64, or (N, S) with segments; clamped to [0, D], or [0, segment].
    segments : sequence of int, optional
        Sizes of consecutive parts of the aggregate that are selected from one by one; they sum to D. With a
        group, how much of each is on this rank.
    group : ProcessGroup, optional
        Who holds the other columns; quotas are of the whole and the same on every rank.

    Returns
    -------
    Selection
        ``magnitude`` in the aggregate's dtype and ``last_index`` int64, in the shape of the quotas. With a
        group it is of this rank's columns.
    """
    if _spread(group, aggregate):
        from . import distributed

        return distributed.select(aggregate, quotas, segments=segments, group=group)
    aggregate = _checks.tensor("select", "aggregate", aggregate)
    quotas = _checks.tensor("select", "quotas", quotas, aggregate)
    parts = None if segments is None else _checks.lengths("select", "segments", segments)
    return Selection(*ops.select(aggregate, quotas, parts))


def download(
    aggregate: Tensor,
    selection: Selection,
    *,
    segments: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    out: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """What each agent downloads: v_i, the aggregate on the entries it keeps and +0 elsewhere.

    Parameters
    ----------
    aggregate : Tensor
        (D,) contiguous, float32 or float64.
    selection : Selection
        As :func:`select` returns it.
    segments : sequence of int, optional
        The segments of the selection.
    dtype : torch.dtype, optional
        Of the result; the aggregate's (or that of `out`) by default.
    out : Tensor, optional
        (N, D) contiguous; written to and returned. Shares no memory with any input.
    group : ProcessGroup, optional
        Nothing is exchanged; with one, this rank may have no column.

    Returns
    -------
    Tensor
        (N, D).
    """
    if _spread(group, aggregate):
        from . import distributed

        return distributed.download(
            aggregate, selection, segments=segments, dtype=dtype, out=out, group=group
        )
    aggregate = _checks.tensor("download", "aggregate", aggregate)
    magnitude, last_index = _checks.selection("download", selection, aggregate)
    parts = None if segments is None else _checks.lengths("download", "segments", segments)
    if out is None:
        n = magnitude.shape[0] if magnitude.dim() > 0 else 0
        out = torch.empty((n, aggregate.numel()), dtype=dtype or aggregate.dtype, device=aggregate.device)
    else:
        out = _checks.output("download", "out", out, aggregate, dtype)
    ops.download(aggregate, magnitude, last_index, parts, out)
    written(out)
    return out


def download_(
    parameters: Updates | States,
    aggregate: Tensor,
    selection: Selection,
    *,
    segments: Sequence[int] | None = None,
    scale: float = 1.0,
    group: ProcessGroup | None = None,
) -> None:
    """Add each agent's download to its parameters in place: w_i += scale · v_i, never forming v_i.

    Parameters
    ----------
    parameters : Tensor or sequence of Tensor
        (N, D) with unit stride along D, or N contiguous tensors (Parameters, too) of D elements each, of any
        of the four floating dtypes. Entries that an agent does not keep are not touched.
    aggregate, selection, segments
        As in :func:`download`.
    scale : float
        Step length. Computed in the wider of the two dtypes, product and sum rounded separately, the result
        rounded once to the parameters' dtype. Finite.
    group : ProcessGroup, optional
        As in :func:`download`.
    """
    if _spread(group, parameters):
        from . import distributed

        distributed.download_(parameters, aggregate, selection, segments=segments, scale=scale, group=group)
        return
    aggregate = _checks.tensor("download_", "aggregate", aggregate)
    magnitude, last_index = _checks.selection("download_", selection, aggregate)
    parts = None if segments is None else _checks.lengths("download_", "segments", segments)
    scale = _checks.number("download_", "scale", scale)
    rows = _checks.rows("download_", "parameters", parameters, aggregate)
    ops.download_(rows, aggregate, magnitude, last_index, parts, scale)
    written(*rows)


def reward_step(
    updates: Updates | States,
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
    group: ProcessGroup | None = None,
    dim: str = "columns",
) -> RewardStep:
    """One round of the mechanism: value N updates and decide what each agent downloads.

    Equations (1), (3), (4) and (5) in one go: :func:`norms`, :func:`aggregate`, :func:`update_importance`,
    :func:`quotas`, :func:`select` and :func:`download`, with bits that do not depend on threads.

    Parameters
    ----------
    updates : Tensor or sequence of Tensor
        Δw: (N, D) with unit stride along D and any row stride, or N contiguous tensors of D elements each,
        of any shape (they are never stacked); float64, float32, bfloat16 or float16.
    importance : Tensor
        (N,), any floating dtype: r of the round before, as the last step returned it, not normalised again;
        zeros in the first.
    gamma : float
        Normalization coefficient Γ, finite and > 0.
    alpha : float
        Weight of the past in the moving average of equation (4), in [0, 1].
    beta : float
        Altruism degree β > 0: the greater, the more equal the rewards; ``inf`` is vanilla federated learning.
    floor : float or None
        Least importance before normalising, finite and ≥ 0; None is equation (4) to the letter.
    weights : Tensor, optional
        (N,), any floating dtype: p of equation (1), which sum to 1 there. They are used as given, and the
        aggregate grows with them. The importance by default, and 1/N where that is all zero.
    norms : Tensor, optional
        (N,), any floating dtype: the updates' norms where they are known; saves one of two reads.
    segments : sequence of int, optional
        Sizes of layers, summing to D. The same ratio then applies within each layer.
    out : Tensor, optional
        (N, D) contiguous, of the updates' dtype, sharing no memory with any input: where to write the
        rewards. Reusing it saves the operating system's work on fresh memory, which costs more than the step.
    dense : bool
        False leaves ``rewards`` None: aggregate and selection say the same in O(D).
    group, dim
        As in :func:`norms`. Rewards, aggregate and selection are then of what this rank holds, all else of
        the whole and the same on every rank; `importance`, `weights` and `norms` are of all agents.

    Returns
    -------
    RewardStep
        ``rewards`` (N, D) in the updates' dtype, ``importance`` (N,) float64, ``cosines`` (N,) float64,
        ``quotas`` (N,) or (N, S) int64, ``aggregate`` (D,), ``selection``, ``norms`` (N,) float64 and
        ``valid`` (N,) bool. An agent whose update has a zero or non-finite norm is not valid: it weighs 0,
        its cosine is 0, and nothing of it reaches any result but ``norms``. Nothing is differentiable.

    Examples
    --------
    >>> updates = torch.randn(4, 1000)
    >>> step = cgsv_ext.reward_step(updates, torch.zeros(4))
    >>> step.rewards.count_nonzero(dim=1) == step.quotas
    tensor([True, True, True, True])
    """
    if _spread(group, updates) or dim != "columns":
        from . import distributed

        return distributed.reward_step(
            updates,
            importance,
            gamma=gamma,
            alpha=alpha,
            beta=beta,
            floor=floor,
            weights=weights,
            norms=norms,
            segments=segments,
            out=out,
            dense=dense,
            group=group,
            dim=dim,
        )
    op = "reward_step"
    rows = _checks.rows(op, "updates", updates)
    like = rows[0]
    importance = _checks.tensor(op, "importance", importance, like)
    if weights is not None:
        weights = _checks.tensor(op, "weights", weights, like)
    if norms is not None:
        norms = _checks.tensor(op, "norms", norms, like)
    gamma, alpha, beta = (
        _checks.number(op, "gamma", gamma),
        _checks.number(op, "alpha", alpha),
        _checks.number(op, "beta", beta),
    )
    if floor is not None:
        floor = _checks.number(op, "floor", floor)
    parts = None if segments is None else _checks.lengths(op, "segments", segments)
    if out is not None:
        if not dense:
            raise ValueError(f"{op}(): expected no out with dense=False, got one")
        out = _checks.output(op, "out", out, like)
    rewards = out
    if dense and out is None:
        shape = like.shape if len(rows) == 1 else (len(rows), like.numel())
        rewards = torch.empty(shape, dtype=like.dtype, device=like.device)
    r, cosines, q, u, magnitude, last_index, found, valid = ops.reward_step(
        rows, importance, gamma, alpha, beta, floor, weights, norms, parts, rewards
    )
    if out is not None:
        written(out)
    return RewardStep(rewards, r, cosines, q, u, Selection(magnitude, last_index), found, valid)


def gram(updates: Updates) -> Tensor:
    """Cosines of all agents' updates with each other: ``⟨Δw_i, Δw_j⟩ / (‖Δw_i‖ ‖Δw_j‖)``.

    All there is to know of the updates for the value of any coalition of agents: what
    :mod:`cgsv_ext.shapley` computes with. Up to 32 agents it takes one read of the updates.

    Parameters
    ----------
    updates : Tensor or sequence of Tensor
        As in :func:`norms`.

    Returns
    -------
    Tensor
        (N, N) float64, exactly symmetric, in [−1, 1], and exactly 1 on the diagonal. An agent whose norm is
        zero or not finite has a row and a column of zeros, and nothing of its update reaches the others'.
        Accurate to some 1e-14 (sums are in float64 for every dtype), for rows scaled anywhere from 1e-30
        to 1e30.
    """
    rows = _checks.rows("gram", "updates", updates)
    cosines: Tensor = ops.gram(rows)
    return cosines


def minimum_beta(ratio: float, importance: float) -> float:
    """Altruism degree that leaves no agent of at least this importance less than `ratio` of the aggregate.

    ``β = ln((1 + c) / (1 − c)) / (2 r)``, section 3.4: then tanh(β r) = c, so that q_i ≥ ⌊D · c⌋ for every
    agent with r_i ≥ r, up to the rounding of β and tanh, which may cost one entry.

    Parameters
    ----------
    ratio : float
        c, the least share of the aggregate, in (0, 1).
    importance : float
        r, the least importance of any agent, finite and > 0.
    """
    c = _checks.number("minimum_beta", "ratio", ratio)
    r = _checks.number("minimum_beta", "importance", importance)
    if not 0 < c < 1:
        raise ValueError(f"minimum_beta(): expected ratio in (0, 1), got {c:g}")
    if not (isfinite(r) and r > 0):
        raise ValueError(f"minimum_beta(): expected importance to be finite and > 0, got {r:g}")
    return atanh(c) / r  # the same formula, exact for a small c, too
