"""What each rank does in the tests of DTensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

import cgsv_ext
from cgsv_ext import distributed

SHAPES = ((3, 7), (3,), (5, 3), (5,), (1, 2))
SIZES = [21, 3, 15, 5, 2]


def mesh_of(group: Any) -> DeviceMesh:
    return DeviceMesh.from_group(group, "cpu")


def full(value: Any) -> Tensor:
    """The whole of a DTensor, or of a structure of them laid end to end."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    leaves = value.values() if isinstance(value, dict) else value
    return torch.cat([full(leaf).flatten() for leaf in leaves])


def distributed_as(x: Tensor, mesh: DeviceMesh, placements: Sequence[Any]) -> DTensor:
    return distribute_tensor(x, mesh, list(placements), src_data_rank=None)


def matrix(
    group: Any, x: Tensor, importance: Tensor, kind: str, segments: list[int] | None
) -> dict[str, Any]:
    """A step of an (N, D) DTensor, its results whole."""
    if kind == "replicated and sharded":
        mesh = init_device_mesh("cpu", (2, 2))
        placements: list[Any] = [Replicate(), Shard(1)]
    else:
        mesh = mesh_of(group)
        placements = {"columns": [Shard(1)], "agents": [Shard(0)], "replicated": [Replicate()]}[kind]
    updates = distributed_as(x, mesh, placements)
    with distributed.traffic() as sent:
        step = cgsv_ext.reward_step(updates, importance, segments=segments)
    parameters = distributed_as(torch.zeros_like(x), mesh, placements)
    with distributed.traffic() as local:
        cgsv_ext.download_(parameters, step.aggregate, step.selection, segments=segments)
        found = cgsv_ext.norms(updates)
    again = cgsv_ext.aggregate(updates, importance, gamma=0.5)
    result = {
        "placements": (str(step.rewards.placements), str(step.aggregate.placements)),
        "step": step._replace(rewards=full(step.rewards), aggregate=full(step.aggregate), selection=None),
        "norms": found,
        "aggregate": full(again.aggregate),
        "parameters": full(parameters),
        "collectives": len(sent),
        "later": len(local),
    }
    if kind == "columns":
        selection = cgsv_ext.select(step.aggregate, step.quotas, segments=segments)
        result["selected"] = all(map(torch.equal, selection, step.selection))
        downloads = cgsv_ext.download(step.aggregate, selection, segments=segments)
        result["download"] = torch.stack([full(v) for v in downloads])
    return result


class Model(torch.nn.Module):
    def __init__(self, flat: Tensor) -> None:
        super().__init__()
        parts = flat.split(SIZES)
        self.parts = torch.nn.ParameterList(
            [torch.nn.Parameter(part.view(shape).clone()) for part, shape in zip(parts, SHAPES, strict=True)]
        )


def states(group: Any, x: Tensor, form: str) -> list[Any]:
    """Each row as the state of a model that FSDP2 has sharded."""
    two = form == "replicated and sharded"
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "shards")) if two else mesh_of(group)
    agents: list[Any] = []
    for row in x:
        model = Model(row)
        fully_shard(model, mesh=mesh)
        agents.append(model.state_dict() if form == "dict" else list(model.parameters()))
    return agents


def fsdp(group: Any, x: Tensor, importance: Tensor, form: str, segments: list[int] | None) -> dict[str, Any]:
    """A step of lists of FSDP2 parameters, its results whole."""
    agents = states(group, x, form)
    with distributed.traffic() as sent:
        step = cgsv_ext.reward_step(agents, importance, segments=segments)
    assert step.rewards is not None
    versions = [p._version for p in agents[0]] if form != "dict" else []
    with distributed.traffic() as local:
        cgsv_ext.download_(agents, step.aggregate, step.selection, segments=segments, scale=2.0)
    bumped = [p._version for p in agents[0]] if form != "dict" else [1]
    selection = cgsv_ext.select(step.aggregate, step.quotas, segments=segments)
    first = agents[0].values() if form == "dict" else agents[0]
    out = step.aggregate.values() if form == "dict" else step.aggregate
    downloads = cgsv_ext.download(step.aggregate, selection, segments=segments)
    return {
        "step": step._replace(
            rewards=torch.stack([full(v) for v in step.rewards]),
            aggregate=full(step.aggregate),
            selection=None,
        ),
        "download": torch.stack([full(v) for v in downloads]),
        "selected": all(map(torch.equal, selection, step.selection)),
        "parameters": torch.stack([full(agent).detach() for agent in agents]),
        "alike": all(
            (a.shape, a.placements, a.device_mesh, a.to_local().shape)
            == (b.shape, b.placements, b.device_mesh, b.to_local().shape)
            for a, b in zip(first, out, strict=True)
        ),
        "keys": list(step.aggregate) == list(agents[0]) if form == "dict" else True,
        "bumped": versions != bumped,
        "sent": [tuple(c[:3]) for c in sent],
        "later": len(local),
        "shards": [p.to_local().numel() for p in first],
    }


def replicated_state(group: Any, x: Tensor, importance: Tensor) -> dict[str, Any]:
    mesh = mesh_of(group)
    agents = [
        [
            distributed_as(p.view(s), mesh, [Replicate()])
            for p, s in zip(row.split(SIZES), SHAPES, strict=True)
        ]
        for row in x
    ]
    with distributed.traffic() as sent:
        step = cgsv_ext.reward_step(agents, importance)
    assert step.rewards is not None
    rewards = torch.stack([full(v) for v in step.rewards])
    return {
        "step": step._replace(rewards=rewards, aggregate=full(step.aggregate), selection=None),
        "sent": len(sent),
    }


def hard_download(group: Any, u: Tensor, quotas: Tensor) -> Tensor:
    """What is added to zeros, for each quota, of an aggregate in five tensors."""
    mesh = mesh_of(group)

    def agent(flat: Tensor) -> list[DTensor]:
        parts = zip(flat.split(SIZES), SHAPES, strict=True)
        return [distributed_as(part.view(shape), mesh, [Shard(0)]) for part, shape in parts]

    aggregate = agent(u)
    selection = cgsv_ext.select(aggregate, quotas)
    parameters = [agent(torch.zeros(sum(SIZES), dtype=u.dtype)) for _ in quotas]
    cgsv_ext.download_(parameters, aggregate, selection)
    return torch.stack([full(row) for row in parameters])


REFUSED = {
    "partial": "sums that are still to be done (call .redistribute() first)",
    "partial in a list": "sums that are still to be done (call .redistribute() first)",
    "two shardings": "sharded along one dimension of the mesh, got (Shard(dim=0), Shard(dim=1))",
    "a list sharded along columns": "by Shard(0) or Replicate() on one mesh, got (Shard(dim=1),)",
    "placed differently": "by Shard(0) or Replicate() on one mesh, got (Replicate(),)",
    "a plain tensor": "to be a DTensor like the first, got Tensor",
    "another shape": "of shape (4, 2) and float32, got (4, 3) and float32",
    "another dtype": "of shape (4, 2) and float32, got (4, 2) and float64",
    "fewer tensors": "of 2 tensors like the first, got 1",
    "a group, too": "expected no group beside DTensors, whose mesh names it, got one",
    "segments across parameters": "made of whole parameters of [8, 8] elements, got [7, 9]",
    "segments too long": "sum to D = 16, got [8, 9]",
    "three dimensions": "of shape (N, D), N ≥ 1, got (2, 4, 2)",
}


def refused(group: Any, what: str) -> None:
    mesh, options = mesh_of(group), {}
    x = torch.ones(4, 2)

    def tensor(*placements: Any, of: Tensor = x) -> DTensor:
        return distributed_as(of, mesh, placements)

    fine = [tensor(Shard(0)), tensor(Shard(0))]
    partial = DTensor.from_local(x, mesh, [Partial()])
    updates: Any = [fine, fine]
    if what == "partial":
        updates = partial
    elif what == "partial in a list":
        updates = [fine, [fine[0], partial]]
    elif what == "two shardings":
        updates = DTensor.from_local(x, init_device_mesh("cpu", (2, 2)), [Shard(0), Shard(1)])
    elif what == "a list sharded along columns":
        updates = [[tensor(Shard(1))], [tensor(Shard(1))]]
    elif what == "placed differently":
        updates = [fine, [fine[0], tensor(Replicate())]]
    elif what == "a plain tensor":
        updates = [fine, [fine[0], x]]
    elif what == "another shape":
        updates = [fine, [fine[0], tensor(Shard(0), of=torch.ones(4, 3))]]
    elif what == "another dtype":
        updates = [fine, [fine[0], tensor(Shard(0), of=x.double())]]
    elif what == "fewer tensors":
        updates = [fine, fine[:1]]
    elif what == "a group, too":
        options = {"group": group}
    elif what == "segments across parameters":
        options = {"segments": [7, 9]}
    elif what == "segments too long":
        options = {"segments": [8, 9]}
    elif what == "three dimensions":
        updates = tensor(Shard(0), of=torch.ones(2, 4, 2))
    cgsv_ext.reward_step(updates, torch.zeros(2), **options)


def saved(group: Any, path: str, x: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
    """A server's state by torch.distributed.checkpoint; what agents get of it."""
    step = cgsv_ext.reward_step(distributed_as(x, mesh_of(group), [Shard(1)]), importance)
    state = {"aggregate": step.aggregate, "importance": step.importance, "quotas": step.quotas}
    dcp.save(state, checkpoint_id=path, process_group=group)
    return full(step.rewards), step.importance


def loaded(group: Any, path: str, n: int, d: int) -> tuple[Tensor, Tensor]:
    """The same on these ranks, however many."""
    local = torch.zeros(d)
    state = {
        "aggregate": distributed_as(local, mesh_of(group), [Shard(0)]),
        "importance": torch.zeros(n, dtype=torch.float64),
        "quotas": torch.zeros(n, dtype=torch.int64),
    }
    dcp.load(state, checkpoint_id=path, process_group=group)
    selection = cgsv_ext.select(state["aggregate"], state["quotas"])
    parameters = distributed_as(torch.zeros(n, d), mesh_of(group), [Shard(1)])
    cgsv_ext.download_(parameters, state["aggregate"], selection)
    return full(parameters), state["importance"]
