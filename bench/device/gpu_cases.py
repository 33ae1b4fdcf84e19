"""The cases that are timed on a GPU: sizes, dtypes, and what takes part in each.

A case is a group of calls that are timed in turn, the first of them the one that the others are compared
with. Inputs are made when a case's turn comes and are gone after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cuda_graph
import floor
import partial_reference
import peers
import torch
from cases import Size
from torch import Tensor

from cgsv_ext import (
    aggregate,
    download,
    download_,
    gram,
    norms,
    pack_row_,
    quotas,
    reward_step,
    select,
    update_importance,
)

ops = torch.ops.cgsv_ext
Call = Callable[[], object]


class Runner(NamedTuple):
    """One call to time, the bytes it has to move, and what to do before it, untimed."""

    what: str
    call: Call
    nbytes: int = 0
    before: Call | None = None
    warm: bool = False


@dataclass(frozen=True)
class Case:
    """`name` is for the command line; the runners are made one by one, as each takes memory."""

    name: str
    step: str
    size: Size
    dtype: torch.dtype = torch.float32
    base: str = "dense, out="

    def tiny(self) -> Case:
        """The same on a size that any CPU can take."""
        size = Size(min(self.size.n, 4), 1009 if self.size.d % 2 else 1000)
        return Case(self.name, self.step, size, self.dtype, self.base)

    @property
    def small(self) -> bool:
        """Launches, not bytes, take the time."""
        return self.size.n * self.size.d <= 20_000_000

    @property
    def nbytes(self) -> int:
        """Memory of the inputs, the output and all a step takes; peers may want more, and say so."""
        n, d = self.size
        return d * (2 * n * self.dtype.itemsize + 3 * 4) + (1 << 30)

    def runners(self, device: torch.device) -> Iterator[Runner]:
        return STEPS[self.step](Inputs(self, device))


@dataclass
class Inputs:
    """Updates with independent normal entries, importance, and a matrix to write to."""

    case: Case
    device: torch.device
    x: Tensor = field(init=False)
    r: Tensor = field(init=False)
    out: Tensor = field(init=False)

    def __post_init__(self) -> None:
        n = self.case.size.n
        self.x = torch.empty(self.case.size, dtype=self.case.dtype, device=self.device)
        self.x.normal_(generator=self.generator())
        self.out = torch.zeros_like(self.x)
        r = torch.linspace(0.1, 1, n, dtype=torch.float64)
        self.r = (r / r.sum()).to(self.device)

    def generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(0)

    def clear(self) -> None:
        """Parameters that grow at every call would leave float16 behind."""
        self.out.zero_()


COPY = 1 << 30
"""Bytes of the copy's source, far beyond any cache."""


def _copy(inputs: Inputs) -> Runner:
    """The ceiling: the device's own copy, bytes read and written."""
    nbytes = COPY if inputs.device.type == "cuda" else 1 << 22
    source = torch.ones(nbytes // 4, device=inputs.device)
    target = torch.zeros_like(source)
    return Runner("copy", lambda: target.copy_(source), 2 * nbytes)


def _replayed(call: Call) -> Call:
    graph, results = cuda_graph.capture(call)

    def replay() -> object:
        graph.replay()
        return results  # alive as long as this is

    return replay


# --- one round


def _reward_step(inputs: Inputs) -> Iterator[Runner]:
    (n, d), b = inputs.case.size, inputs.case.dtype.itemsize
    x, r, out = inputs.x, inputs.r, inputs.out
    found = norms(x)
    dense, lean, once = floor.dense(n, d, b, b), floor.lean(n, d, b), n * d * b

    def into() -> object:
        return reward_step(x, r, out=out)

    def thin() -> object:
        return reward_step(x, r, dense=False)

    def in_place() -> None:
        step = reward_step(x, r, dense=False)
        download_(out, step.aggregate, step.selection)

    yield Runner("dense, out=", into, dense)
    yield _copy(inputs)
    yield Runner("dense, out=, norms=", lambda: reward_step(x, r, norms=found, out=out), dense - once)
    yield Runner("dense=False", thin, lean)
    yield Runner("dense=False, norms=", lambda: reward_step(x, r, norms=found, dense=False), lean - once)
    yield Runner("dense=False, download_", in_place, floor.in_place(n, d, b, b), inputs.clear)
    if n < 1000:
        rows = list(x)
        yield Runner("separate rows, out=", lambda: reward_step(rows, r, out=out), dense)
    if inputs.case.small and inputs.device.type == "cuda":
        yield Runner("graph replay: dense, out=", _replayed(into), dense)
        yield Runner("graph replay: dense, out=, warm cache", _replayed(into), dense, warm=True)
        yield Runner("graph replay: dense=False", _replayed(thin), lean)


# --- the steps one by one


def _ops(inputs: Inputs) -> Iterator[Runner]:
    n, d = inputs.case.size
    x, r, out = inputs.x, inputs.r, inputs.out
    u, cosines, found = aggregate(x, r, gamma=peers.GAMMA)
    q = (torch.linspace(0.1, 1, n, dtype=torch.float64) * d).long().to(inputs.device)
    selection = select(u, q)

    yield Runner("norms", lambda: norms(x), floor.norms(n, d))
    yield _copy(inputs)
    parts = x[0].split([1, *[(d - 1) // 160] * 160, (d - 1) % 160])
    yield Runner("pack_row_, misaligned parts", lambda: pack_row_(out[0], parts), floor.pack_row_(d))
    given = floor.aggregate(n, d)
    yield Runner("aggregate, norms=", lambda: aggregate(x, r, gamma=peers.GAMMA, norms=found), given)
    yield Runner("aggregate", lambda: aggregate(x, r, gamma=peers.GAMMA), given + floor.norms(n, d))
    yield Runner("partial_norms", lambda: ops.partial_norms([x]), floor.norms(n, d))
    yield Runner("partial_aggregate", lambda: ops.partial_aggregate([x], r, peers.GAMMA, found), given)
    yield Runner("partial_dots", lambda: ops.partial_dots([x], u), given)
    yield Runner("update_importance", lambda: update_importance(r, cosines))
    yield Runner("quotas", lambda: quotas(r, d))
    yield Runner("select", lambda: select(u, q), floor.select(d))
    prefixes = partial_reference.keys(selection.magnitude) >> 16
    yield Runner("histogram", lambda: ops.histogram(u, prefixes, 8, 8, None), floor.select(d))
    yield Runner("download, out=", lambda: download(u, selection, out=out), floor.download(n, d))
    yield Runner("download_", lambda: download_(out, u, selection), floor.download_(n, d), inputs.clear)
    yield Runner("gram", lambda: gram(x), floor.norms(n, d))
    yield Runner("PyTorch, vector_norm", lambda: torch.linalg.vector_norm(x, dim=1), floor.norms(n, d))
    yield Runner("PyTorch, one sort", lambda: peers.by_sort(u, q), floor.select(d))


# --- aggregates that are hard to select from


Vector = Callable[[int, torch.Generator], Tensor]


def _uniform(d: int, g: torch.Generator) -> Tensor:
    return torch.rand(d, generator=g, device=g.device)


def _normal(d: int, g: torch.Generator) -> Tensor:
    return torch.randn(d, generator=g, device=g.device)


ADVERSARIAL: dict[str, Vector] = {
    "constant": lambda d, g: torch.ones(d, device=g.device),
    "half zeros": lambda d, g: _normal(d, g) * (_uniform(d, g) < 0.5),
    "one exponent": lambda d, g: 1 + _uniform(d, g),
    "two values": lambda d, g: 1.0 + (_uniform(d, g) < 0.5),
    "linear ramp": lambda d, g: torch.linspace(0, 1, d, device=g.device),
}


def _adversarial(inputs: Inputs) -> Iterator[Runner]:
    """N times one vector, so that the aggregate is of its kind; written anew before each call."""
    n, d = inputs.case.size
    x, r, out = inputs.x, inputs.r, inputs.out

    def runner(kind: str, vector: Vector) -> Runner:
        row = vector(d, inputs.generator())
        return Runner(
            kind, lambda: reward_step(x, r, out=out), floor.dense(n, d), lambda: x.copy_(row.expand(n, d))
        )

    yield runner("random", _normal)
    yield _copy(inputs)
    for kind, vector in ADVERSARIAL.items():
        yield runner(kind, vector)


# --- plain PyTorch


def _peers(inputs: Inputs) -> Iterator[Runner]:
    n, d = inputs.case.size
    x, r, out = inputs.x, inputs.r, inputs.out
    need = floor.dense(n, d)
    yield Runner("dense, out=", lambda: reward_step(x, r, out=out), need)
    yield _copy(inputs)
    yield Runner("PyTorch, one sort", lambda: peers.one_sort(x, r, out), need)
    yield Runner("PyTorch, one sort, broadcast mask", lambda: peers.one_sort_broadcast(x, r, out), need)
    fused = peers.compiled(peers.one_sort_fused, x, r, out) if inputs.device.type == "cuda" else None
    if fused is not None:
        yield Runner("torch.compile, one sort", fused, need)
    yield Runner("PyTorch, paper-literal loop", lambda: peers.paper_loop(x, r), need)


STEPS: dict[str, Callable[[Inputs], Iterator[Runner]]] = {
    "reward_step": _reward_step,
    "ops": _ops,
    "adversarial": _adversarial,
    "peers": _peers,
}

CNN, MILLION, LARGE, TALL, PAIR, MANY, RAGGED, EVEN = (
    Size(10, 104_242),
    Size(10, 1_000_000),
    Size(10, 100_000_000),
    Size(100, 10_000_000),
    Size(2, 1_000_000_000),
    Size(1000, 10_000_000),
    Size(10, 99_999_989),
    Size(10, 99_999_990),  # rows of halves begin at every multiple of 4 bytes
)
BF16 = torch.bfloat16

CASES = [
    Case("10x104242", "reward_step", CNN),
    Case("10x1M", "reward_step", MILLION),
    Case("10x100M", "reward_step", LARGE),
    Case("100x10M", "reward_step", TALL),
    Case("2x1G", "reward_step", PAIR),
    Case("10x100M-bf16", "reward_step", LARGE, BF16),
    Case("ragged", "reward_step", RAGGED),
    Case("1000x10M-bf16", "reward_step", MANY, BF16),
    Case("ragged-bf16", "reward_step", EVEN, BF16),
    Case("adversarial-10x100M", "adversarial", LARGE, base="random"),
    Case("adversarial-10x1M", "adversarial", MILLION, base="random"),
    Case("ops-10x1M", "ops", MILLION, base="norms"),
    Case("ops-10x100M", "ops", LARGE, base="norms"),
    Case("peers-10x100M", "peers", LARGE),
    Case("peers-10x1M", "peers", MILLION),
    Case("peers-10x104242", "peers", CNN),
    Case("peers-100x10M", "peers", TALL),
    Case("peers-2x1G", "peers", PAIR),
]
"""In the order in which they are worth having, should time run out."""


def by_name(names: list[str]) -> list[Case]:
    """The cases of these names; all of them for none."""
    known = {case.name: case for case in CASES}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"unknown case {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names] if names else CASES


# --- what else a step takes


def footprint(inputs: Inputs) -> dict[str, Any]:
    """Memory at the peak above what was there before, and the nodes of the captured graph; needs CUDA."""

    def taken(call: Call) -> dict[str, Any]:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        extra = torch.cuda.max_memory_allocated() - before
        graph, _ = cuda_graph.capture(call)
        return {"extra_bytes": extra, "nodes": cuda_graph.nodes(graph)}

    x, r, out = inputs.x, inputs.r, inputs.out
    return {
        "dense, out=": taken(lambda: reward_step(x, r, out=out)),
        "dense=False": taken(lambda: reward_step(x, r, dense=False)),
    }
