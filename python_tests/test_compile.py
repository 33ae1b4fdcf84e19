"""The ops under torch.compile, opcheck, export and fake tensors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import oracle
import pytest
import torch
from oracle import DTYPES, assert_same_bits
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

import cgsv_ext
from cgsv_ext import RewardStep, Selection

ops = torch.ops.cgsv_ext
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


# opcheck: schema (no hidden mutation or alias), fake kernels, autograd registration, AOT dispatch.


def samples(op: str, dtype: torch.dtype, device: torch.device) -> list[tuple[Any, ...]]:
    """Arguments for one op: as a matrix and as rows, with and without segments and the optional tensors."""
    n, d = 3, 40
    segments = [30, 0, 10]
    x = oracle.normal(n, d, dtype=dtype).to(device)
    r = torch.tensor([0.5, 0.3, 0.2], dtype=dtype, device=device)
    u = oracle.normal(d, seed=1, dtype=oracle.aggregate_dtype(dtype)).to(device)
    q = torch.tensor([40, 20, 0], device=device)
    qs = torch.tensor([[30, 0, 10], [15, 0, 5], [0, 0, 0]], device=device)
    whole, parts = cgsv_ext.select(u, q), cgsv_ext.select(u, qs, segments=segments)
    rows = [x[0].clone(), x[1].clone().view(5, 8), x[2].clone()]
    return {
        "norms": [([x],), (rows,)],
        "partial_norms": [([x],), (rows,)],
        "partial_aggregate": [([x], r, 0.5, r + 1), (rows, r, 0.5, r + 1)],
        "partial_dots": [([x], u), (rows, u)],
        "histogram": [(u, q, 20, 11, None), (u, qs, 3, 4, segments)],
        "pack_row_": [(u.to(dtype), [x[0], x[1, :0]]), (x[2].clone(), [*rows[0].split([1, 9, 30])])],
        "gram": [([x],), (rows,)],
        "aggregate": [([x], r, 0.5, None), (rows, r, 0.5, r + 1)],
        "update_importance": [(r, r, 0.95, 1e-3), (r, r, 0.95, None)],
        "quotas": [(r, [40], 1.0), (r, segments, 2.0)],
        "select": [(u, q, None), (u, qs, segments)],
        "download": [(u, *whole, None, x.clone()), (u, *parts, segments, x.clone())],
        "download_": [([x], u, *whole, None, 0.5), (rows, u, *parts, segments, 1.0)],
        "reward_step": [
            ([x], r, 0.5, 0.95, 1.0, 1e-3, None, None, None, None),
            (rows, r, 0.5, 0.95, 1.0, None, r + 1, r + 2, segments, torch.empty_like(x)),
        ],
    }[op]


OPS = [
    "norms",
    "partial_norms",
    "partial_aggregate",
    "partial_dots",
    "histogram",
    "pack_row_",
    "aggregate",
    "update_importance",
    "quotas",
    "select",
    "download",
    "download_",
    "reward_step",
    "gram",
]


@dtypes
@pytest.mark.parametrize("op", OPS)
def test_opcheck(device: torch.device, op: str, dtype: torch.dtype) -> None:
    for arguments in samples(op, dtype, device):
        torch.library.opcheck(getattr(ops, op).default, arguments)


@pytest.mark.parametrize("op", OPS)
def test_opcheck_of_arguments_that_require_grad(device: torch.device, op: str) -> None:
    def with_grad(value: Any) -> Any:
        if isinstance(value, list):
            return [with_grad(v) for v in value]
        return value.requires_grad_() if isinstance(value, Tensor) and value.is_floating_point() else value

    written = {"pack_row_": [0], "download": [4], "download_": [0], "reward_step": [9]}.get(op, [])
    for arguments in samples(op, torch.float32, device):
        changed = tuple(v if i in written else with_grad(v) for i, v in enumerate(arguments))
        torch.library.opcheck(getattr(ops, op).default, changed)


def test_every_op_is_checked() -> None:
    registered = torch._C._dispatch_get_all_op_names()
    assert {name.split("::")[1] for name in registered if name.startswith("cgsv_ext::")} == set(OPS)


# Fake and meta tensors


def facts(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.is_contiguous()
    return tuple(facts(v) for v in value) if isinstance(value, tuple) else value


def whole_api(x: Any, r: Tensor, segments: list[int] | None) -> tuple[Any, ...]:
    step = cgsv_ext.reward_step(x, r, segments=segments)
    thin = cgsv_ext.reward_step(x, r, weights=r, norms=r, segments=segments, dense=False)
    aggregation = cgsv_ext.aggregate(x, r, gamma=0.5)
    importance = cgsv_ext.update_importance(r, aggregation.cosines)
    quotas = cgsv_ext.quotas(importance, x[0].numel() if segments is None else segments)
    selection = cgsv_ext.select(aggregation.aggregate, quotas, segments=segments)
    rewards = cgsv_ext.download(aggregation.aggregate, selection, segments=segments, dtype=x[0].dtype)
    cgsv_ext.download_(rewards, step.aggregate, step.selection, segments=segments)
    packed = cgsv_ext.pack_row_(rewards[0], [x[0].flatten()[:10], x[1].flatten()[10:]])
    return (
        step,
        thin,
        cgsv_ext.norms(x),
        cgsv_ext.gram(x),
        aggregation,
        importance,
        quotas,
        selection,
        rewards,
        packed,
    )


@pytest.mark.parametrize("op", ["norms", "gram", "reward_step"])
def test_meta_updates_of_another_rank_are_refused_in_the_ops_own_words(op: str) -> None:
    x = torch.empty(5, device="meta")
    with pytest.raises(ValueError, match=rf"{op}\(\): expected updates of shape \(N, D\).* got \(5,\)"):
        getattr(cgsv_ext, op)(x, *[x] * (op == "reward_step"))


@dtypes
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("segments", [None, [30, 0, 10]], ids=["whole", "segments"])
def test_fake_and_meta_tensors_give_the_real_shapes_and_dtypes(
    device: torch.device, dtype: torch.dtype, listed: bool, segments: list[int] | None
) -> None:
    x = oracle.normal(3, 40, dtype=dtype).to(device)
    r = torch.tensor([0.5, 0.3, 0.2], device=device)
    real = whole_api(list(x.clone()) if listed else x, r, segments)
    meta = x.to("meta")
    got = whole_api(list(meta) if listed else meta, r.to("meta"), segments)
    assert facts(got) == facts(real)
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(x)
        got = whole_api(list(fake) if listed else fake, mode.from_tensor(r), segments)
    assert facts(got) == facts(real)
    assert got[0].rewards.device == device


@pytest.mark.skipif(not cgsv_ext.build_info()["cuda"], reason="needs a build with CUDA")
@pytest.mark.parametrize("segments", [None, [30, 0, 10]], ids=["whole", "segments"])
def test_fake_cuda_tensors_stay_on_their_device(segments: list[int] | None) -> None:
    with FakeTensorMode():
        got = whole_api(torch.empty(3, 40, device="cuda"), torch.empty(3, device="cuda"), segments)
    assert {t.device for t in tree_leaves(got) if t is not None} == {torch.device("cuda:0")}


# torch.compile


def round_of(
    x: Tensor, r: Tensor, out: Tensor | None = None, weights: Tensor | None = None, **options: Any
) -> RewardStep:
    return cgsv_ext.reward_step(x * 2, r, out=out, weights=weights, **options)


VARIANTS: dict[str, dict[str, Any]] = {
    "dense": {},
    "thresholds": {"dense": False},
    "segments": {"segments": [100, 0, 200, 1]},
    "hyperparameters": {"gamma": 0.2, "alpha": 0.5, "beta": 2.0, "floor": None},
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_round_compiles_without_a_break(device: torch.device, variant: str, dynamic: bool) -> None:
    compiled = torch.compile(round_of, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    x = oracle.normal(3, 301).to(device)
    r = torch.tensor([0.5, 0.3, 0.2], device=device)
    options = VARIANTS[variant]
    assert_same_bits(compiled(x, r, **options), round_of(x, r, **options))
    assert_same_bits(compiled(x, r, weights=r + 1, **options), round_of(x, r, weights=r + 1, **options))


@dtypes
def test_compiled_rounds_write_to_out(device: torch.device, dtype: torch.dtype) -> None:
    compiled = torch.compile(round_of, fullgraph=True, backend="aot_eager")
    x = oracle.normal(3, 301, dtype=dtype).to(device)
    r = torch.tensor([0.5, 0.3, 0.2], device=device)
    out = torch.full((3, 301), 7.0, dtype=dtype, device=device)
    step = compiled(x, r, out)
    assert_same_bits(step, round_of(x, r))
    assert_same_bits(out, step.rewards)


def test_rows_and_parameters_compile(device: torch.device) -> None:
    def agents(rows: list[Tensor], r: Tensor) -> RewardStep:
        step = cgsv_ext.reward_step(rows, r, dense=False)
        cgsv_ext.download_(rows, step.aggregate, step.selection, scale=0.5)
        return step

    r = torch.tensor([0.5, 0.3, 0.2], device=device)
    plain = [nn.Parameter(row.view(5, 8)) for row in oracle.normal(3, 40).to(device)]
    rows = [nn.Parameter(p.detach().clone()) for p in plain]
    step = torch.compile(agents, fullgraph=True, backend="aot_eager")(rows, r)
    assert_same_bits(step, agents(plain, r))
    assert_same_bits(tuple(p.detach() for p in rows), tuple(p.detach() for p in plain))


def train(w: Tensor, x: Tensor, y: Tensor, r: Tensor) -> tuple[Tensor, RewardStep]:
    """One federated round of linear regression: local step, reward step, download."""
    before = w.clone()
    gradient = torch.einsum("nbd,nb->nd", x, torch.einsum("nbd,nd->nb", x, w) - y)
    w.sub_(0.01 * gradient)
    step = cgsv_ext.reward_step(w - before, r, dense=False)
    w.copy_(before)
    cgsv_ext.download_(w, step.aggregate, step.selection)
    return w.norm(dim=1), step


BACKENDS = ["aot_eager"] + ["inductor"] * bool(shutil.which("g++") or shutil.which("clang++"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_training_round_compiles_and_trains_alike(device: torch.device, backend: str) -> None:
    compiled = torch.compile(train, fullgraph=True, backend=backend)
    n, batch, d = 4, 6, 33
    x, y = oracle.normal(n, batch, d).to(device), oracle.normal(n, batch, seed=1).to(device)
    w = torch.zeros(n, d, device=device)
    w_compiled = w.clone()
    r = r_compiled = torch.zeros(n, dtype=torch.float64, device=device)
    for _ in range(3):
        _, step = train(w, x, y, r)
        _, step_compiled = compiled(w_compiled, x, y, r_compiled)
        r, r_compiled = step.importance, step_compiled.importance
        torch.testing.assert_close(r_compiled, r, rtol=0, atol=1e-5)
    # The gradients are rounded otherwise by another backend, so an entry may fall off an agent's quota.
    torch.testing.assert_close(w_compiled, w, rtol=0, atol=0.05 if backend == "inductor" else 1e-6)


def test_one_dynamic_graph_serves_many_shapes(device: torch.device) -> None:
    graphs = []

    def count(module: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(module)
        return module.forward

    compiled = torch.compile(round_of, fullgraph=True, backend=count, dynamic=True)
    for n, d in ((3, 301), (4, 50), (7, 1000)):
        x, r = oracle.normal(n, d).to(device), torch.rand(n, generator=oracle.generator(n)).to(device)
        assert_same_bits(compiled(x, r), round_of(x, r))
    assert len(graphs) == 1


def test_the_steps_compile_one_at_a_time(device: torch.device) -> None:
    def steps(x: Tensor, r: Tensor) -> tuple[Any, ...]:
        return whole_api(x + 1, r, None)

    x = oracle.normal(3, 40).to(device)
    r = torch.tensor([0.5, 0.3, 0.2], device=device)
    for dynamic in (False, True):
        compiled = torch.compile(steps, fullgraph=True, backend="aot_eager", dynamic=dynamic)
        assert_same_bits(compiled(x, r), steps(x, r))


def test_gradients_flow_around_a_compiled_round(device: torch.device) -> None:
    """A reward step inside a differentiated function is a constant."""

    def loss(w: Tensor, r: Tensor) -> Tensor:
        step = cgsv_ext.reward_step(w, r)
        assert step.rewards is not None
        return (w * step.rewards).sum()

    r = torch.tensor([0.5, 0.3, 0.2], device=device)
    gradients = []
    for f in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        w = oracle.normal(3, 40).to(device).requires_grad_()
        f(w, r).backward()
        assert w.grad is not None
        gradients.append(w.grad)
    assert_same_bits(gradients[0], cgsv_ext.reward_step(w, r).rewards)
    assert_same_bits(gradients[1], gradients[0])


# Export


class Round(nn.Module):
    def forward(self, x: Tensor, r: Tensor) -> tuple[Tensor, ...]:
        step = cgsv_ext.reward_step(x, r)
        assert step.rewards is not None
        return step.rewards, step.importance, step.quotas, *step.selection


@pytest.mark.parametrize("strict", [True, False])
def test_a_round_exports_for_any_shape(device: torch.device, strict: bool) -> None:
    n, d = torch.export.Dim("n", min=2), torch.export.Dim("d", min=2)
    x, r = oracle.normal(3, 40).to(device), torch.tensor([0.5, 0.3, 0.2], device=device)
    program = torch.export.export(Round(), (x, r), dynamic_shapes=({0: n, 1: d}, {0: n}), strict=strict)
    larger = oracle.normal(5, 99).to(device), torch.rand(5, generator=oracle.generator(1)).to(device)
    for arguments in ((x, r), larger):
        assert_same_bits(tuple(program.module()(*arguments)), Round()(*arguments))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_a_round_traces(device: torch.device, mode: str) -> None:
    def whole(x: Tensor, r: Tensor) -> tuple[Tensor, ...]:
        step = cgsv_ext.reward_step(x, r, segments=[x.shape[1] - 10, 10])
        w = torch.zeros_like(x)
        cgsv_ext.download_(w, step.aggregate, step.selection, segments=[x.shape[1] - 10, 10])
        q = cgsv_ext.quotas(step.importance, x.shape[1])
        return w, step.importance, q, *Selection(*step.selection)

    x, r = oracle.normal(3, 40).to(device), torch.tensor([0.5, 0.3, 0.2], device=device)
    traced = make_fx(whole, tracing_mode=mode)(x, r)
    assert_same_bits(tuple(traced(x, r)), whole(x, r))
    if mode == "symbolic":
        wider = oracle.normal(3, 77).to(device)
        assert_same_bits(tuple(traced(wider, r)), whole(wider, r))
