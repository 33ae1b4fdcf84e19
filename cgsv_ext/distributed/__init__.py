"""A round whose updates are spread over the ranks of a torch.distributed process group.

The functions of :mod:`cgsv_ext` come here when they are given ``group=`` or DTensors; nothing imports this
module before that. docs/scale.md has the protocol and its cost.

========== ===================================================================================
ranks      the only place that sends anything, and :func:`traffic`, which lists what is sent
terms      what all ranks must agree on, and one error on all of them where they do not
held       what a rank holds, checked
dtensor    the same from DTensors, and results back into them
columns    a round whose columns are sharded
agents     a round whose agents are
selection  where quotas end: a radix selection over counts that ranks add up
cost       what all of this sends, computed
bench      ``cgsv bench distributed``
========== ===================================================================================
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import _checks, reward
from .._ops import ops
from ..types import Aggregation, RewardStep, Selection, dtype_name
from .agents import Agents
from .columns import Columns, is_valid, weights_of
from .cost import exchanges
from .held import Held, one_per_agent, output, plain, vectors
from .ranks import Collective, Ranks, traffic
from .terms import agree

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from .dtensor import Placed

__all__ = ["Collective", "exchanges", "traffic"]


class _Call:
    """One call: with whom it exchanges, which the updates may say, and then what every rank has read."""

    def __init__(
        self, op: str, what: str, value: Any, group: ProcessGroup | None, dim: str = "columns"
    ) -> None:
        self.op, self.what, self.value = op, what, value
        self.dim, self.by_agents = dim, dim == "agents"
        self.where = _placed(op, what, value)
        if self.where is not None:
            if group is not None:
                raise ValueError(f"{op}(): expected no group beside DTensors, whose mesh names it, got one")
            group = self.where.group
            self.by_agents = isinstance(value, Tensor) and value.dim() == 2 and self.where.dim == 0
        self.ranks = Ranks(op, group)

    def agree(
        self, read: Callable[[Held], dict[str, object]], segments: object = None
    ) -> tuple[Held, Columns | Agents]:
        """Check what was given, here by `read` and then against the other ranks."""

        def terms() -> tuple[Held, tuple[int, int], dict[str, object]]:
            held = self.held(segments)
            common: dict[str, object] = {"dim": "agents" if self.by_agents else "columns"}
            common["dtype of updates"] = dtype_name(held.like.dtype)
            if self.by_agents:
                common |= {"number of columns": held.columns, "segments": _digest(held.segments)}
            else:
                count = None if held.segments is None else len(held.segments)
                common |= {"number of agents": held.agents, "number of segments": count}
                common["number of tensors an agent"] = len(held.blocks)
            return held, (held.agents, held.columns), common | read(held)

        held, shapes = agree(self.op, self.ranks, terms)
        return held, (Agents if self.by_agents else Columns)(self.op, self.ranks, shapes)

    def held(self, segments: object) -> Held:
        """What this rank holds, checked, with its sizes of the segments."""
        if self.dim not in ("columns", "agents"):
            raise ValueError(f"{self.op}(): expected dim to be 'columns' or 'agents', got {self.dim!r}")
        if self.where is None:
            held = plain(self.op, self.what, self.value, least=0 if self.by_agents else 1)
            held.segments = _checks.segments(self.op, segments, held.columns)
            return held
        from . import dtensor

        held = dtensor.held(self.op, self.what, self.value, self.where)
        dtensor.split(self.op, self.value, self.where, held, segments)
        return held


def _placed(op: str, what: str, value: object) -> Placed | None:
    """The layout of DTensors, if these are some; torch's module is not imported to find out."""
    if "torch.distributed.tensor" not in sys.modules:
        return None
    from . import dtensor

    return dtensor.placed(op, what, value)


def _digest(sizes: Sequence[int] | None) -> object:
    """Segments, in few letters."""
    return None if sizes is None else f"{len(sizes)} of checksum {zlib.crc32(repr(list(sizes)).encode()):08x}"


def _row(op: str, aggregate: Any) -> list[Any]:
    """An aggregate, as the updates of a single agent."""
    if type(aggregate) is Tensor and aggregate.dim() != 1:
        # One that is no vector anywhere: a matter of the program, not of a rank.
        raise ValueError(f"{op}(): expected aggregate of shape (D,), got {tuple(aggregate.shape)}")
    return [aggregate]


def _entries(**vectors: Tensor | None) -> dict[str, object]:
    """Terms of vectors: their lengths, since what is in a tensor is never looked at."""
    return {f"shape of {name}": None if t is None else tuple(t.shape) for name, t in vectors.items()}


@torch.no_grad()
def norms(updates: Any, *, group: ProcessGroup | None, dim: str = "columns") -> Tensor:
    """:func:`cgsv_ext.norms` of updates spread over ranks."""
    held, spread = _Call("norms", "updates", updates, group, dim).agree(lambda _: {})
    return spread.exchange(held, None)[0]


@torch.no_grad()
def aggregate(
    updates: Any,
    weights: Tensor,
    *,
    gamma: float,
    norms: Tensor | None = None,
    group: ProcessGroup | None,
    dim: str = "columns",
) -> Aggregation:
    """:func:`cgsv_ext.aggregate` of updates spread over ranks."""
    op = "aggregate"

    def read(held: Held) -> dict[str, object]:
        vectors(op, held.like, given, needed="weights")
        return {"gamma": _checks.gamma(op, gamma), **_entries(**given)}

    given = {"weights": weights, "norms": norms}
    held, spread = _Call(op, "updates", updates, group, dim).agree(read)
    one_per_agent(op, spread.n, **given)
    lengths, (p,), _ = spread.exchange(held, norms, weights)
    assert p is not None
    u, cosines = spread.aggregate(held, p, float(gamma), lengths)
    return Aggregation(held.aggregate(u), cosines, lengths)


@torch.no_grad()
def select(
    aggregate: Any, quotas: Tensor, *, segments: Sequence[int] | None = None, group: ProcessGroup | None
) -> Selection:
    """:func:`cgsv_ext.select` of an aggregate spread over ranks: where this rank's parts end."""
    op = "select"
    call = _Call(op, "aggregate", _row(op, aggregate), group)

    def read(held: Held) -> dict[str, object]:
        if held.like.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"{op}(): expected aggregate of float32 or float64, got {dtype_name(held.like.dtype)}"
            )
        given = _checks.tensor(op, "quotas", quotas, held.like)
        _checks.per_agent(op, "quotas", given, held.segments, torch.int64)
        return {"shape of quotas": tuple(given.shape)}

    held, spread = call.agree(read, segments)
    return spread.select(held.flat(), quotas, held)


@torch.no_grad()
def reward_step(
    updates: Any,
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
    group: ProcessGroup | None,
    dim: str = "columns",
) -> RewardStep:
    """:func:`cgsv_ext.reward_step` of updates spread over ranks."""
    op = "reward_step"

    def read(held: Held) -> dict[str, object]:
        vectors(op, held.like, given, needed="importance")
        if out is not None:
            output(op, out, held, dense)
        numbers = {
            "gamma": _checks.gamma(op, gamma),
            "alpha": _checks.alpha(op, alpha),
            "beta": _checks.beta(op, beta),
            "floor": _checks.floor(op, floor),
        }
        return {**numbers, **_entries(**given)}

    given = {"importance": importance, "weights": weights, "norms": norms}
    held, spread = _Call(op, "updates", updates, group, dim).agree(read, segments)
    one_per_agent(op, spread.n, **given)

    lengths, (r, p), sizes = spread.exchange(held, norms, importance, weights)
    assert r is not None
    u, cosines = spread.aggregate(held, weights_of(r, p), float(gamma), lengths)
    r = ops.update_importance(r, cosines, float(alpha), None if floor is None else float(floor))
    q = ops.quotas(r, [spread.columns] if sizes is None else sizes, float(beta))
    q = q.squeeze(1) if sizes is None else q
    selection = spread.select(u, q, held)
    rewards = None
    if dense:
        if out is None:
            out = torch.empty((held.agents, held.columns), dtype=held.like.dtype, device=u.device)
        rewards = held.rewards(_download(u, selection, held.segments, out))
    return RewardStep(rewards, r, cosines, q, held.aggregate(u), selection, lengths, is_valid(lengths))


def _download(u: Tensor, selection: Selection, segments: Sequence[int] | None, out: Tensor) -> Tensor:
    return reward.download(u, selection, segments=segments, out=out) if out.numel() else out


def download(
    aggregate: Any,
    selection: Selection,
    *,
    segments: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    out: Tensor | None = None,
    group: ProcessGroup | None,
) -> Tensor:
    """:func:`cgsv_ext.download` of this rank's columns. Nothing is exchanged."""
    op = "download"
    call = _Call(op, "aggregate", _row(op, aggregate), group)
    held = call.held(segments)
    u = held.flat()
    selection = _checks.selection(op, selection, u)
    if out is None:
        out = torch.empty((len(selection.magnitude), u.numel()), dtype=dtype or u.dtype, device=u.device)
    else:
        out = _checks.output(op, "out", out, u, dtype)
    v = _download(u, selection, held.segments, out)
    return held.rewards(v) if call.where is not None else v


def download_(
    parameters: Any,
    aggregate: Any,
    selection: Selection,
    *,
    segments: Sequence[int] | None = None,
    scale: float = 1.0,
    group: ProcessGroup | None,
) -> None:
    """:func:`cgsv_ext.download_` of this rank's columns. Nothing is exchanged."""
    op = "download_"
    to, of = _Call(op, "parameters", parameters, group), _Call(op, "aggregate", _row(op, aggregate), group)
    rows, u = to.held(None), of.held(segments)
    if rows.columns != u.columns or (len(rows.blocks) > 1 and rows.sizes != u.sizes):
        raise ValueError(
            f"{op}(): expected parameters of {u.sizes} elements on this rank, like the aggregate, "
            f"got {rows.sizes}"
        )
    flat = u.flat()
    magnitude, last_index = _checks.selection(op, selection, flat)
    parts: Iterable[tuple[list[Tensor], Tensor, Selection, list[int] | None]]
    if len(rows.blocks) == 1:
        parts = [(rows.blocks[0], flat, Selection(magnitude, last_index), u.segments)]
    else:
        parts = _by_block(rows, u, flat, magnitude, last_index)
    for block, part, end, sizes in parts:
        if part.numel() > 0 and len(block[0]) > 0:
            matrix = block[0] if len(block) == 1 else block
            reward.download_(matrix, part, end, segments=sizes, scale=scale)
    if to.where is not None:
        from . import dtensor

        # Their local tensors have been told, but autograd looks at the DTensors.
        torch.autograd.graph.increment_version(
            [leaf for leaf in dtensor.all_leaves(parameters) if not leaf.is_inference()]
        )


def _by_block(
    rows: Held, u: Held, flat: Tensor, magnitude: Tensor, last_index: Tensor
) -> Iterator[tuple[list[Tensor], Tensor, Selection, None]]:
    """A selection's part in each block, whose entries it counts from 0."""
    segment_of = [s for s, count in enumerate(u.pieces_of or []) for _ in range(count)]
    start = 0
    for k, (block, size) in enumerate(zip(rows.blocks, rows.sizes, strict=True)):
        tau, last = magnitude, last_index
        if u.segments is not None:
            tau, last = tau[:, segment_of[k]], last[:, segment_of[k]]
        here = last - start
        # An infinity that ends in an earlier block: (inf, −1) would keep nothing, not even NaNs.
        beyond = tau.isinf() & (last >= 0) & (here < 0)
        end = Selection(tau.masked_fill(beyond, math.nan), here.masked_fill(beyond, size).clamp(min=-1))
        yield block, flat[start : start + size], end, None
        start += size
