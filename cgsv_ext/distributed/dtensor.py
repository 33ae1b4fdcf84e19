"""DTensors in, DTensors out: an (N, D) one, or for each agent the DTensors of its parameters.

Every rank works on its local tensors as they lie; updates are never redistributed nor copied. The mesh names
the group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from .. import _checks
from ..types import dtype_name
from .held import Held


class Placed:
    """Where DTensors of one layout lie: on which mesh, and sharded along which of its dimensions."""

    def __init__(self, op: str, what: str, value: DTensor) -> None:
        self.mesh, self.placements = value.device_mesh, value.placements
        sharded = [k for k, placement in enumerate(self.placements) if type(placement) is Shard]
        for placement in self.placements:
            if isinstance(placement, Partial):
                raise ValueError(
                    f"{op}(): expected {what} placed by Shard or Replicate, got {placement}: sums that are "
                    "still to be done (call .redistribute() first)"
                )
            if not isinstance(placement, (Shard, Replicate)):
                raise ValueError(f"{op}(): expected {what} placed by Shard or Replicate, got {placement}")
        if len(sharded) > 1:
            raise ValueError(
                f"{op}(): expected {what} sharded along one dimension of the mesh, got {self.placements}"
            )
        self.along = sharded[0] if sharded else None

    @property
    def dim(self) -> int | None:
        """The dimension of the tensor that is sharded."""
        if self.along is None:
            return None
        shard = self.placements[self.along]
        assert isinstance(shard, Shard)
        return shard.dim

    @property
    def group(self) -> ProcessGroup | None:
        """The ranks that hold other parts; none where every rank holds all."""
        return None if self.along is None else self.mesh.get_group(self.along)

    def wrap(self, local: Tensor, shape: Sequence[int], dim: int | None) -> DTensor:
        """A tensor of this shape from each rank's part, sharded along `dim` where the updates are."""
        shard = Replicate() if dim is None else Shard(dim)
        placements = [shard if k == self.along else Replicate() for k in range(len(self.placements))]
        size = torch.Size(shape)
        strides = [*accumulate(reversed(size[1:]), lambda a, b: a * b, initial=1)][::-1]
        return DTensor.from_local(
            local, self.mesh, placements, run_check=False, shape=size, stride=tuple(strides)
        )

    def overlaps(self, op: str, sizes: Sequence[int], columns: int, local: int) -> list[int]:
        """How much of each segment of so many columns lies on this rank."""
        if self.along is None:
            return list(sizes)
        # As DTensor chunks: equal parts, the last ones smaller or empty.
        chunk = -(-columns // self.mesh.size(self.along))
        begin = min(columns, chunk * self.mesh.get_local_rank(self.along))
        end = min(columns, begin + chunk)
        if end - begin != local:
            raise ValueError(
                f"{op}(): expected columns sharded in equal chunks, as segments of the whole require, "
                f"got {local} of {columns} columns where the chunk has {end - begin}"
            )
        ends = list(accumulate(sizes))
        starts = [stop - size for stop, size in zip(ends, sizes, strict=True)]
        return [max(0, min(stop, end) - max(start, begin)) for start, stop in zip(starts, ends, strict=True)]


def first_leaf(value: object) -> object:
    """The first tensor of the first agent."""
    while not isinstance(value, Tensor):
        if isinstance(value, Mapping):
            value = next(iter(value.values()), None)
        elif (
            isinstance(value, (Sequence, torch.nn.ParameterList))
            and len(value)
            and not isinstance(value, str)
        ):
            value = value[0]
        else:
            return None
    return value


def placed(op: str, what: str, value: object) -> Placed | None:
    """The layout of the first DTensor, if these are some."""
    leaf = first_leaf(value)
    return Placed(op, what, leaf) if isinstance(leaf, DTensor) else None


def held(op: str, what: str, value: Any, where: Placed) -> Held:
    """What this rank holds of updates, checked."""
    return (
        _matrix(op, what, value, where) if isinstance(value, DTensor) else _structures(op, what, value, where)
    )


def _matrix(op: str, what: str, value: DTensor, where: Placed) -> Held:
    local = local_of(value)
    _checks.floating(op, what, local)
    if value.dim() != 2 or value.shape[0] == 0:
        raise ValueError(f"{op}(): expected {what} of shape (N, D), N ≥ 1, got {tuple(value.shape)}")
    if local.shape[1] > 1 and local.stride(1) != 1:
        raise ValueError(f"{op}(): expected {what} with unit stride along D, got stride {local.stride(1)}")
    columns = 0 if where.dim == 1 else None
    return Held(
        [[local]],
        local.shape[0],
        [local.shape[1]],
        aggregate=lambda u: where.wrap(u, value.shape[1:], columns),
        rewards=lambda v: where.wrap(v, value.shape, where.dim),
    )


def local_of(value: Tensor) -> Tensor:
    """The local tensor, detached."""
    with torch.no_grad():
        local: Tensor = value.to_local() if isinstance(value, DTensor) else value
        return local.detach()


def leaves(agent: Any, like: Any = None) -> list[Any]:
    """An agent's tensors; those of a mapping in the order of `like`."""
    if isinstance(agent, Tensor):
        return [agent]
    if isinstance(agent, Mapping):
        return [agent.get(key) for key in (like if isinstance(like, Mapping) else agent)]
    return list(agent)


def all_leaves(agents: Any) -> list[Tensor]:
    """Every agent's tensors."""
    return [leaf for agent in ([agents] if isinstance(agents, Tensor) else agents) for leaf in leaves(agent)]


def shaped(like: Any, tensors: Sequence[Any]) -> Any:
    """Tensors in the structure of an agent."""
    if isinstance(like, Tensor):
        return tensors[0]
    if isinstance(like, Mapping):
        return dict(zip(like, tensors, strict=True))
    return list(tensors)


def _structures(op: str, what: str, agents: Any, where: Placed) -> Held:
    first = agents[0]
    parameters = leaves(first)
    table = [
        _checked(op, f"{what}[{i}]", leaves(agent, first), parameters, where)
        for i, agent in enumerate(agents)
    ]
    columns = [[row.view(-1) for row in rows] for rows in zip(*table, strict=True)]
    sizes = [rows[0].numel() for rows in columns]
    shapes = [parameter.shape for parameter in parameters]

    def aggregate(u: Tensor) -> Any:
        parts = zip(u.split_with_sizes(sizes), table[0], shapes, strict=True)
        return shaped(
            first, [where.wrap(part.view(row.shape), shape, where.dim) for part, row, shape in parts]
        )

    return Held(
        [rows if len(rows) > 1 else [rows[0].unsqueeze(0)] for rows in columns],
        len(table),
        sizes,
        pieces_of=[len(sizes)],
        aggregate=aggregate,
        rewards=lambda v: [aggregate(row) for row in v],
    )


def _checked(op: str, what: str, agent: list[Any], parameters: list[Any], where: Placed) -> list[Tensor]:
    """Local tensors of one agent's parameters, which are like the first agent's."""
    if len(agent) != len(parameters):
        raise ValueError(
            f"{op}(): expected {what} of {len(parameters)} tensors like the first, got {len(agent)}"
        )
    found = []
    for k, (value, like) in enumerate(zip(agent, parameters, strict=True)):
        if not isinstance(value, DTensor):
            kind = type(value).__name__
            raise TypeError(
                f"{op}(): expected tensor {k} of {what} to be a DTensor like the first, got {kind}"
            )
        _checks.floating(op, what, value)
        here = Placed(op, f"tensor {k} of {what}", value)
        if (here.mesh, here.placements) != (where.mesh, where.placements) or here.dim not in (None, 0):
            raise ValueError(
                f"{op}(): expected tensor {k} of {what} placed like the first, by Shard(0) or Replicate() on "
                f"one mesh, got {here.placements}"
            )
        if value.shape != like.shape or value.dtype != parameters[0].dtype:
            raise ValueError(
                f"{op}(): expected tensor {k} of {what} of shape {tuple(like.shape)} and "
                f"{dtype_name(parameters[0].dtype)}, got {tuple(value.shape)} and {dtype_name(value.dtype)}"
            )
        local = local_of(value)
        if not local.is_contiguous():
            raise ValueError(f"{op}(): expected tensor {k} of {what} to be contiguous, got {local.stride()}")
        found.append(local)
    return found


def split(op: str, value: Any, where: Placed, given: Held, segments: Any) -> None:
    """Note this rank's sizes of segments of the whole: of D columns, or of whole parameters."""
    if segments is None:
        return
    parts = [value] if isinstance(value, DTensor) else leaves(value[0])
    matrix = isinstance(value, DTensor)
    whole = [value.shape[1]] if matrix else [leaf.numel() for leaf in parts]
    sizes = _checks.segments(op, segments, sum(whole)) or []
    if len(parts) == 1 and parts[0].dim() == 1 + matrix:
        given.pieces_of = None
        given.segments = (
            where.overlaps(op, sizes, whole[0], given.columns) if where.dim == int(matrix) else sizes
        )
        return
    local = iter(given.sizes)
    given.pieces_of, given.segments = [], []
    for count in _grouped(op, whole, sizes):
        given.pieces_of.append(count)
        given.segments.append(sum(next(local) for _ in range(count)))


def _grouped(op: str, whole: Sequence[int], segments: Sequence[int]) -> Iterator[int]:
    """How many parameters each segment is made of."""
    rest = list(whole)
    for segment in segments:
        count = 0
        while segment > 0 and rest:
            segment -= rest.pop(0)
            count += 1
        if segment != 0:
            break
        yield count
    else:
        if not rest:
            return
    raise ValueError(
        f"{op}(): expected segments made of whole parameters of {list(whole)} elements, got {list(segments)}"
    )
