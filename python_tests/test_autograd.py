"""Autograd: outputs never require grad, writes are seen, and every mode works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import oracle
import pytest
import torch
from oracle import DTYPES, assert_same_bits
from torch import Tensor, nn

import cgsv_ext

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)
ops = torch.ops.cgsv_ext


def everything(x: Any, r: Tensor) -> tuple[Any, ...]:
    step = cgsv_ext.reward_step(x, r, weights=r, norms=r + 1)
    aggregation = cgsv_ext.aggregate(x, r, gamma=0.5)
    importance = cgsv_ext.update_importance(r, r)
    quotas = cgsv_ext.quotas(r, x[0].numel())
    selection = cgsv_ext.select(step.aggregate, quotas)
    packed = cgsv_ext.pack_row_(torch.empty_like(x[0]).detach().flatten(), x[0])
    return step, cgsv_ext.norms(x), packed, aggregation, importance, quotas, selection


def flat(results: Any) -> list[Tensor]:
    return [results] if isinstance(results, Tensor) else [t for part in results for t in flat(part)]


@dtypes
def test_inputs_may_require_grad_and_outputs_never_do(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.normal(3, 40, dtype=dtype).to(device)
    r = torch.tensor([0.5, 0.3, 0.2], device=device)
    expected = everything(x, r)
    leaf, r_leaf = x.clone().requires_grad_(), r.clone().requires_grad_()
    rows = [nn.Parameter(row.clone()) for row in x]
    for updates in (leaf, leaf * 1, rows, list(leaf)):
        got = everything(updates, r_leaf)
        assert_same_bits(got, expected)
        assert not any(t.requires_grad or t.grad_fn for t in flat(got))


def test_download_of_an_aggregate_that_requires_grad(device: torch.device) -> None:
    u = oracle.normal(40).to(device).requires_grad_()
    selection = cgsv_ext.select(u, torch.tensor([30, 2], device=device))
    v = cgsv_ext.download(u, selection)
    assert not v.requires_grad
    w = torch.zeros(2, 40, device=device)
    cgsv_ext.download_(w, u, selection)
    assert not w.requires_grad
    assert_same_bits(w, v)


def test_the_ops_themselves_give_no_grad_either(device: torch.device) -> None:
    x = oracle.normal(3, 40).to(device).requires_grad_()
    r = torch.tensor([0.5, 0.3, 0.2], device=device, requires_grad=True)
    results = [
        ops.norms([x]),
        ops.partial_norms([x]),
        *ops.partial_aggregate([x], r, 0.5, r),
        ops.partial_dots([x], x[0].detach()),
        ops.histogram(x[0], torch.tensor([3, -1], device=device), 20, 9, None),
        ops.pack_row_(torch.empty(40, device=device), [x[0], r[:0]]),
        *ops.aggregate([x], r, 0.5, None),
        ops.update_importance(r, r, 0.95, 1e-3),
        ops.quotas(r, [40], 1.0),
        *ops.select(x[0], torch.tensor([3, 4], device=device), None),
        *ops.reward_step([x], r, 0.5, 0.95, 1.0, 1e-3, r, None, None, None),
    ]
    assert not any(t.requires_grad for t in results)


# Each writes to a tensor through one of the doors.


def _reward_step(target: Tensor) -> None:
    n, d = target.shape
    cgsv_ext.reward_step(oracle.normal(n, d).to(target), torch.zeros(n, device=target.device), out=target)


def _selection(target: Tensor) -> tuple[Tensor, cgsv_ext.Selection]:
    n, d = target.shape
    u = oracle.normal(d).to(target.device)
    return u, cgsv_ext.select(u, torch.arange(1, n + 1, device=target.device))


def _download(target: Tensor) -> None:
    cgsv_ext.download(*_selection(target), out=target)


def _download_(target: Tensor) -> None:
    cgsv_ext.download_(target, *_selection(target))


def _download_rows(target: Tensor) -> None:
    cgsv_ext.download_(list(target), *_selection(target))


def _download_first(target: Tensor) -> None:
    u, selection = _selection(target)
    cgsv_ext.download_([target[0]], u, cgsv_ext.Selection(*(t[:1] for t in selection)))


def _pack_row_(target: Tensor) -> None:
    cgsv_ext.pack_row_(target[1], oracle.normal(target.shape[1]).to(target.device))


writes = pytest.mark.parametrize(
    "write",
    [_reward_step, _download, _download_, _download_rows, _download_first, _pack_row_],
    ids=lambda f: f.__name__,
)


@writes
def test_writing_bumps_the_version(device: torch.device, write: Callable[[Tensor], None]) -> None:
    target = torch.ones(3, 20, device=device)
    before = target._version
    write(target)
    assert target._version > before
    assert not torch.equal(target, torch.ones_like(target))


@writes
def test_backward_through_an_overwritten_tensor_raises(
    device: torch.device, write: Callable[[Tensor], None]
) -> None:
    target = torch.ones(3, 20, device=device)
    leaf = torch.ones(3, 20, device=device, requires_grad=True)
    loss = (target * leaf).sum()  # saves target for the gradient of leaf
    write(target)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_reading_bumps_no_version(device: torch.device) -> None:
    x = oracle.normal(3, 40).to(device)
    r = torch.tensor([0.5, 0.3, 0.2], device=device)
    step, *_ = everything(x, r)
    cgsv_ext.download(step.aggregate, step.selection)
    cgsv_ext.download_(torch.zeros_like(x), step.aggregate, step.selection)
    assert [t._version for t in (x, r, *flat(tuple(step)))] == [0] * 11


def test_refused_writes_bump_no_version(device: torch.device) -> None:
    target = torch.ones(3, 20, device=device)
    u, selection = _selection(target)
    with pytest.raises(ValueError, match="expected"):
        cgsv_ext.download_(target, u[:-1].clone(), selection)
    with pytest.raises(ValueError, match="expected"):
        cgsv_ext.download(u, selection, out=target[:2])
    with pytest.raises(ValueError, match="expected"):
        cgsv_ext.pack_row_(target[0], target[1, 1:])
    assert target._version == 0


@dtypes
def test_parameters_are_leaves_before_and_after(device: torch.device, dtype: torch.dtype) -> None:
    models = [nn.Linear(4, 5, dtype=dtype, device=device) for _ in range(3)]
    weights = [model.weight for model in models]
    u = oracle.normal(20).to(device, oracle.aggregate_dtype(dtype))
    selection = cgsv_ext.select(u, torch.tensor([20, 10, 0], device=device))
    before = [w.detach().clone() for w in weights]
    cgsv_ext.download_(weights, u, selection, scale=0.5)
    assert all(w.is_leaf and w.requires_grad and w.grad is None for w in weights)
    assert not torch.equal(weights[0], before[0])
    assert torch.equal(weights[2], before[2])
    loss = models[0](torch.ones(1, 4, dtype=dtype, device=device)).sum()
    loss.backward()
    assert weights[0].grad is not None
    matrix = nn.Parameter(torch.stack(before).flatten(1))
    cgsv_ext.download_(matrix, u, selection, scale=0.5)
    assert_same_bits(matrix.detach(), torch.stack([w.detach().flatten() for w in weights]))


def test_models_that_are_views_of_one_matrix_train_on(device: torch.device) -> None:
    """As the federated loop keeps them: rows of an (N, D) matrix are the agents' parameters."""
    matrix = oracle.normal(2, 20).to(device)
    models = [nn.Linear(4, 5, bias=False, device=device) for _ in range(2)]
    for model, row in zip(models, matrix, strict=True):
        model.weight.data = row.view(5, 4)
    u, selection = _selection(matrix)
    before = matrix.clone()
    cgsv_ext.download_(matrix, u, selection)
    assert not torch.equal(matrix, before)
    assert torch.equal(models[0].weight.flatten(), matrix[0])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_every_grad_mode(device: torch.device, mode: Callable[[], Any]) -> None:
    x = oracle.normal(3, 40).to(device)
    r = torch.tensor([0.5, 0.3, 0.2], device=device)
    expected = everything(x, r)
    with mode():
        assert_same_bits(everything(x.clone(), r.clone()), expected)
        step = expected[0]
        w, out = torch.zeros_like(x), torch.empty_like(x)
        assert cgsv_ext.reward_step(x, r, weights=r, norms=r + 1, out=out).rewards is out
        assert_same_bits(out, step.rewards)
        cgsv_ext.download_(w, step.aggregate, step.selection)
        assert_same_bits(w, step.rewards)
        cgsv_ext.download_(
            [w[0].clone()], step.aggregate, cgsv_ext.Selection(*(t[:1] for t in step.selection))
        )


def test_an_inference_tensor_is_an_input_like_any_other(device: torch.device) -> None:
    x = oracle.normal(3, 40).to(device)
    r = torch.zeros(3, device=device)
    with torch.inference_mode():
        inference = x.clone()
        target = torch.zeros_like(x)
    assert_same_bits(cgsv_ext.reward_step(inference, r), cgsv_ext.reward_step(x, r))
    cgsv_ext.reward_step(inference, r, out=target)
    assert_same_bits(target, cgsv_ext.reward_step(x, r).rewards)
