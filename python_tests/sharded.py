"""What each rank does in the tests of cgsv_ext.distributed: its part of inputs that all of them can make."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from ranks import cuts
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import cgsv_ext
from cgsv_ext import RewardStep, distributed, reference


def pieces(segments: Sequence[int] | None, part: slice) -> list[int] | None:
    """How much of each segment lies in a part of the columns."""
    if segments is None:
        return None
    found, start = [], 0
    for size in segments:
        found.append(max(0, min(start + size, part.stop) - max(start, part.start)))
        start += size
    return found


def part_of(group: Any, d: int, sizes: Sequence[int]) -> slice:
    return cuts(d, sizes)[dist.get_rank(group)]


def rounds(group: Any, cases: Sequence[dict[str, Any]]) -> list[tuple[RewardStep, Tensor]]:
    """For each case one step on this rank's columns, and the download of its selection."""
    done = []
    for case in cases:
        part = part_of(group, case["updates"].shape[1], case["sizes"])
        x = case["updates"][:, part]
        if case["form"] == "rows":
            x = [row.clone() for row in x]
        options = dict(case["options"])
        segments = pieces(options.pop("segments", None), part)
        step = cgsv_ext.reward_step(x, case["importance"], segments=segments, group=group, **options)
        v = cgsv_ext.download(step.aggregate, step.selection, segments=segments, group=group)
        parameters = torch.zeros(len(case["updates"]), part.stop - part.start, dtype=step.aggregate.dtype)
        cgsv_ext.download_(parameters, step.aggregate, step.selection, segments=segments, group=group)
        assert torch.equal(parameters.nan_to_num(), v.nan_to_num())
        done.append((step, v))
    return done


def selections(group: Any, cases: Sequence[dict[str, Any]]) -> list[Tensor]:
    """For each case what agents keep of this rank's columns of a given aggregate, (N, D_rank) bool."""
    kept = []
    for case in cases:
        part = part_of(group, len(case["aggregate"]), case["sizes"])
        u, segments = case["aggregate"][part].clone(), pieces(case["segments"], part)
        selection = cgsv_ext.select(u, case["quotas"], segments=segments, group=group)
        kept.append(reference._keep(u, selection, segments))
    return kept


def split(group: Any, x: Tensor) -> Tensor:
    """This rank's of nearly equal parts of the columns; all of them without a group."""
    return x if group is None else x.tensor_split(dist.get_world_size(group), dim=1)[dist.get_rank(group)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def training(group: Any) -> list[RewardStep]:
    steps, importance = [], torch.zeros(5, dtype=torch.float64)
    for t in range(5):
        x = normal(1, 403, seed=t) + 0.5 * normal(5, 403, seed=100 + t)
        steps.append(cgsv_ext.reward_step(split(group, x), importance, group=group, dense=False))
        importance = steps[-1].importance
    return steps


def one_at_a_time(group: Any) -> bool:
    x, r = split(group, normal(4, 1001)), torch.tensor([0.4, 0.1, 0.2, 0.3])
    step = cgsv_ext.reward_step(x, r, group=group)
    found = cgsv_ext.norms(x, group=group)
    u, cosines, again = cgsv_ext.aggregate(x, r, gamma=0.5, group=group)
    known = cgsv_ext.aggregate(x, r, gamma=0.5, norms=found, group=group)
    q = cgsv_ext.quotas(cgsv_ext.update_importance(r, cosines), 1001)
    selection = cgsv_ext.select(u, q, group=group)
    out = torch.empty_like(x)
    rewards = cgsv_ext.reward_step(x, r, group=group, norms=found, out=out).rewards
    pairs = [
        (found, step.norms),
        (again, step.norms),
        (u, step.aggregate),
        (known.aggregate, u),
        (cosines, step.cosines),
        (known.cosines, cosines),
        (q, step.quotas),
        (selection.magnitude, step.selection.magnitude),
        (selection.last_index, step.selection.last_index),
        (rewards, step.rewards),
        (cgsv_ext.download(u, selection, group=group), step.rewards),
    ]
    return rewards is out and all(torch.equal(a, b) for a, b in pairs)


def differing_importance(group: Any) -> RewardStep:
    r = torch.tensor([0.4, 0.1, 0.2, 0.3], dtype=torch.float64)
    r[1] += dist.get_rank(group) / 100
    return cgsv_ext.reward_step(split(group, normal(4, 1001)), r, group=group)


def agent_rounds(group: Any, cases: Sequence[dict[str, Any]]) -> list[tuple[RewardStep, Tensor]]:
    """For each case one step on this rank's rows, and the download of its selection."""
    done = []
    for case in cases:
        x = case["updates"][part_of(group, len(case["updates"]), case["sizes"])]
        if case["form"] == "rows" and len(x) > 0:
            x = [row.clone() for row in x]
        options = case["options"]
        step = cgsv_ext.reward_step(x, case["importance"], group=group, dim="agents", **options)
        segments = options.get("segments")
        if len(x) > 0:
            v = cgsv_ext.download(step.aggregate, step.selection, segments=segments)
        else:
            v = step.aggregate.new_zeros(0, len(step.aggregate))
        done.append((step, v))
    return done


def agents_one_at_a_time(group: Any) -> bool:
    r = torch.tensor([0.4, 0.1, 0.2, 0.2, 0.1])
    x = normal(5, 301).tensor_split(dist.get_world_size(group))[dist.get_rank(group)]
    options: dict[str, Any] = {"group": group, "dim": "agents"}
    step = cgsv_ext.reward_step(x, r, **options)
    found = cgsv_ext.norms(x, **options)
    u, cosines, again = cgsv_ext.aggregate(x, r, gamma=0.5, norms=found, **options)
    pairs = [(found, step.norms), (again, found), (u, step.aggregate), (cosines, step.cosines)]
    return all(torch.equal(a, b) for a, b in pairs)


class Sent(TorchDispatchMode):
    """Every collective that torch is asked for, and the bytes put in: `distributed.traffic`, counted anew."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            kind = func._schema.name.removeprefix("c10d::")
            own = args[0] if kind == "allreduce_" else args[1]
            tensors = [own] if isinstance(own, Tensor) else own
            self.found.append((kind, sum(t.numel() * t.element_size() for t in tensors)))
        return func(*args, **(kwargs or {}))


def counted(group: Any, n: int, d: int, dtype: torch.dtype, dim: str, options: dict[str, Any]) -> Any:
    """What a step sends, as torch sees it and as this package says."""
    x = normal(n, d).to(dtype)
    x = (
        split(group, x)
        if dim == "columns"
        else x.tensor_split(dist.get_world_size(group))[dist.get_rank(group)]
    )
    options = dict(options)
    if "segments" in options and dim == "columns":
        options["segments"] = [x.shape[1] - options["segments"] + 1, *[1] * (options["segments"] - 1)]
    with Sent() as sent, distributed.traffic() as heard:
        cgsv_ext.reward_step(x, torch.zeros(n), group=group, dim=dim, **options)
    return sent.found, [tuple(c[:3]) for c in heard], all(c.seconds > 0 for c in heard)


MISMATCHES: dict[str, tuple[dict[str, Any], str]] = {
    "agents": (
        {"updates": normal(4, 10)},
        "reward_step(): expected the same number of agents on every rank, got 3 on rank 0 and 4 on rank 1",
    ),
    "dtype": (
        {"updates": normal(3, 10).double()},
        "reward_step(): expected the same dtype of updates on every rank, "
        "got 'float32' on rank 0 and 'float64' on rank 1",
    ),
    "gamma": (
        {"gamma": 0.25},
        "reward_step(): expected the same gamma on every rank, got 0.5 on rank 0 and 0.25 on rank 1",
    ),
    "alpha": (
        {"alpha": 0.5},
        "reward_step(): expected the same alpha on every rank, got 0.95 on rank 0 and 0.5 on rank 1",
    ),
    "beta": (
        {"beta": 1.0000000000000002},
        "reward_step(): expected the same beta on every rank, "
        "got 1.0 on rank 0 and 1.0000000000000002 on rank 1",
    ),
    "floor": (
        {"floor": None},
        "reward_step(): expected the same floor on every rank, got 0.001 on rank 0 and None on rank 1",
    ),
    "segments": (
        {"segments": [4, 6]},
        "reward_step(): expected the same number of segments on every rank, "
        "got None on rank 0 and 2 on rank 1",
    ),
    "weights": (
        {"weights": torch.ones(3)},
        "reward_step(): expected the same shape of weights on every rank, "
        "got None on rank 0 and (3,) on rank 1",
    ),
    "norms": (
        {"norms": torch.ones(3)},
        "reward_step(): expected the same shape of norms on every rank, "
        "got None on rank 0 and (3,) on rank 1",
    ),
    "importance": (
        {"importance": torch.zeros(4)},
        "reward_step(): expected the same shape of importance on every rank, "
        "got (3,) on rank 0 and (4,) on rank 1",
    ),
    "dim": (
        {"dim": "agents"},
        "reward_step(): expected the same dim on every rank, got 'columns' on rank 0 and 'agents' on rank 1",
    ),
    "refused, a number": (
        {"alpha": 2.0},
        "reward_step(): expected alpha to be in [0, 1], got 2 (on rank 1)",
    ),
    "refused, a shape": (
        {"updates": torch.zeros(10)},
        "reward_step(): expected updates of shape (N, D), N ≥ 1, got (10,) (on rank 1)",
    ),
    "refused, a dtype": (
        {"updates": torch.zeros(3, 10, dtype=torch.int64)},
        "reward_step(): expected updates of float64, float32, bfloat16 or float16, got int64 (on rank 1)",
    ),
    "refused, a stride": (
        {"updates": torch.zeros(10, 3).T},
        "reward_step(): expected updates with unit stride along D (call .contiguous()), "
        "got stride 3 (on rank 1)",
    ),
    "refused, segments": (
        {"segments": [4, 5]},
        "reward_step(): expected segments that are not negative and sum to D = 10, got [4, 5] (on rank 1)",
    ),
    "refused, out": (
        {"out": torch.zeros(3, 9)},
        "reward_step(): expected out of shape (3, 10), got (3, 9) (on rank 1)",
    ),
    "refused, another dim": (
        {"dim": "rows"},
        "reward_step(): expected dim to be 'columns' or 'agents', got 'rows' (on rank 1)",
    ),
    "refused, nothing": (
        {"importance": None},
        "reward_step(): expected importance to be a tensor, got NoneType (on rank 1)",
    ),
    "refused, a type": (
        {"importance": [0.0, 0.0, 0.0]},
        "reward_step(): expected importance to be a tensor, got list (on rank 1)",
    ),
}


def mismatch(group: Any, what: str) -> None:
    """A step in which rank 1 has something else."""
    arguments: dict[str, Any] = {"updates": normal(3, 10), "importance": torch.zeros(3)}
    if dist.get_rank(group) == 1:
        arguments |= MISMATCHES[what][0]
    cgsv_ext.reward_step(arguments.pop("updates"), arguments.pop("importance"), group=group, **arguments)


def mismatched_calls(group: Any) -> None:
    if dist.get_rank(group) == 1:
        cgsv_ext.norms(normal(3, 10), group=group)
    else:
        cgsv_ext.aggregate(normal(3, 10), torch.ones(3), gamma=0.5, group=group)


def wrong_everywhere(group: Any, arguments: dict[str, Any]) -> None:
    arguments = {"updates": normal(3, 10), "importance": torch.zeros(3)} | arguments
    cgsv_ext.reward_step(arguments.pop("updates"), arguments.pop("importance"), group=group, **arguments)


def fails(rank: int, path: str, how: int, seconds: float, end: Any) -> None:
    """Two ranks, in processes of their own, of which the second gets a signal in the middle of a step."""
    from ranks import start

    group = start(rank, 2, path, seconds)
    x = normal(3, 100)
    cgsv_ext.reward_step(x, torch.zeros(3), group=group)
    if rank == 1:
        from cgsv_ext.distributed.core import core

        core.partial_norms = lambda _: os.kill(os.getpid(), how)
    began = time.monotonic()
    try:
        cgsv_ext.reward_step(x, torch.zeros(3), group=group)
    except RuntimeError as error:
        end.send((time.monotonic() - began, str(error)))
        os._exit(0)
    end.send((time.monotonic() - began, "no error"))
    os._exit(1)


def uneven_rows(group: Any) -> None:
    cgsv_ext.norms(normal(2, 5 + dist.get_rank(group)), group=group, dim="agents")


def download_into(group: Any, columns: Sequence[int], dtype: torch.dtype) -> Tensor:
    """What is downloaded as `dtype` to a float32 tensor, of so many columns on each rank."""
    d = columns[dist.get_rank(group)]
    all_of_it = cgsv_ext.Selection(torch.zeros(2), torch.full((2,), d - 1))
    return cgsv_ext.download(torch.ones(d), all_of_it, dtype=dtype, out=torch.zeros(2, d), group=group)


def call(group: Any, function: str, arguments: tuple[Any, ...]) -> None:
    options = {"gamma": 0.5} if function == "aggregate" else {}
    getattr(cgsv_ext, function)(*arguments, group=group, **options)
