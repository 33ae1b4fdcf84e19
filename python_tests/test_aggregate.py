"""Steps 2 and 3: the aggregate u_N and the agents' cosines with it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from oracle import DTYPES, f64
from torch import Tensor

import cgsv_ext

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)


def assert_aggregate(got: Tensor, expected: Any) -> None:
    """Within rounding of Σ_i |p_i u_ij|, and below that of the least number of the dtype."""
    wrong = np.abs(f64(got) - expected.aggregate) > 1e-6 * expected.spread + 2e-45
    assert not wrong.any(), np.flatnonzero(wrong)[:5]


@dtypes
@settings(max_examples=60)
@given(case=oracle.rounds())
def test_aggregate_and_cosines_are_those_of_float64(
    device: torch.device, dtype: torch.dtype, case: dict[str, Any]
) -> None:
    x, importance, options = oracle.arguments(case, dtype, device)
    weights = importance if options["weights"] is None else options["weights"]
    u, cosines, norms = cgsv_ext.aggregate(x, weights, gamma=case["gamma"])
    expected = oracle.mechanism(f64(x), importance.tolist(), weights=weights.tolist(), gamma=case["gamma"])
    assert u.dtype == oracle.aggregate_dtype(dtype)
    assert cosines.dtype == norms.dtype == torch.float64
    assert_aggregate(u, expected)
    np.testing.assert_allclose(f64(norms), expected.norms, rtol=1e-6)
    assert (cosines.abs() <= 1).all()
    if expected.well_conditioned:
        np.testing.assert_allclose(f64(cosines), expected.cosines, rtol=0, atol=1e-6)


@dtypes
def test_every_column_of_every_agent_arrives(device: torch.device, dtype: torch.dtype) -> None:
    for n in range(1, 71):
        weights = 2.0 ** -torch.arange(n, dtype=torch.float64, device=device).remainder(9)
        u, cosines, _ = cgsv_ext.aggregate(torch.eye(n, dtype=dtype, device=device) * 4, weights, gamma=0.5)
        assert torch.equal(u.double(), weights / 2), n
        torch.testing.assert_close(cosines, weights / weights.norm(), rtol=0, atol=1e-6)


@dtypes
@pytest.mark.parametrize("d", [512, 2048, 2049, 65_537])
def test_columns_at_the_edges_of_tiles_and_chunks_count(
    device: torch.device, dtype: torch.dtype, d: int
) -> None:
    for j in sorted({0, 127, 128, 511, d // 2, d - 2, d - 1}):
        x = torch.zeros(2, d, dtype=dtype, device=device)
        x[0, j] = 3
        x[1, (j + 1) % d] = -4
        u, cosines, _ = cgsv_ext.aggregate(x, torch.tensor([3.0, 4.0], device=device), gamma=1.0)
        assert u.nonzero().flatten().tolist() == sorted({j, (j + 1) % d})
        assert (u[j].item(), u[(j + 1) % d].item()) == (3.0, -4.0)
        torch.testing.assert_close(cosines.tolist(), [0.6, 0.8], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=oracle.name)
@pytest.mark.parametrize("d", [7, 3000])
def test_the_length_of_a_row_does_not_matter(device: torch.device, dtype: torch.dtype, d: int) -> None:
    x = oracle.normal(5, d, dtype=torch.float64)
    scaled = x * torch.tensor([1e-30, 1e-15, 1.0, 1e15, 1e30], dtype=torch.float64)[:, None]
    weights = torch.tensor([0.1, 0.2, 0.3, 0.2, 0.2], device=device)
    u, cosines, _ = cgsv_ext.aggregate(scaled.to(dtype).to(device), weights, gamma=0.5)
    expected = oracle.mechanism(f64(scaled.to(dtype)), [0.0] * 5, weights=weights.tolist())
    assert_aggregate(u, expected)
    np.testing.assert_allclose(f64(cosines), expected.cosines, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=oracle.name)
@pytest.mark.parametrize("length", [1e-30, 1e-11, 1e-9, 1e9, 1e11, 1e30])
@pytest.mark.parametrize("gamma", [1e-12, 1e-9, 0.5, 1e9, 1e12])
def test_all_rows_may_be_long_or_short_and_u_too(
    device: torch.device, dtype: torch.dtype, length: float, gamma: float
) -> None:
    x = oracle.normal(3, 3000, dtype=torch.float64)
    x = (x / x.norm(dim=1, keepdim=True) * length).to(dtype)
    weights = torch.tensor([0.5, -0.3, 0.2], device=device)
    u, cosines, _ = cgsv_ext.aggregate(x.to(device), weights, gamma=gamma)
    expected = oracle.mechanism(f64(x), [0.0] * 3, weights=weights.tolist(), gamma=gamma)
    assert_aggregate(u, expected)
    np.testing.assert_allclose(f64(cosines), expected.cosines, rtol=0, atol=1e-6)


@dtypes
@pytest.mark.parametrize("d", [511, 512, 10_000])
def test_cosines_are_good_where_all_roundings_agree(device: torch.device, dtype: torch.dtype, d: int) -> None:
    for value in 1 + torch.rand(30, generator=oracle.generator(d), dtype=torch.float64):
        x = torch.full((2, d), value.item(), dtype=dtype)
        x[1, d // 3 :] = 0
        _, cosines, _ = cgsv_ext.aggregate(x.to(device), torch.tensor([0.7, 0.3], device=device), gamma=0.5)
        expected = oracle.mechanism(f64(x), [0.0] * 2, weights=[0.7, 0.3])
        np.testing.assert_allclose(f64(cosines), expected.cosines, rtol=0, atol=5e-7)


@dtypes
@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_cosines_survive_cancellation(device: torch.device, dtype: torch.dtype, noise: float) -> None:
    base = oracle.normal(1, 4000, seed=1, dtype=torch.float64)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)[:, None]
    x = (base * signs + noise * oracle.normal(4, 4000, seed=2, dtype=torch.float64)).to(dtype)
    expected = oracle.mechanism(f64(x), [0.25] * 4)
    assert expected.well_conditioned
    length = np.linalg.norm(expected.aggregate) / (0.5 * 1.0)
    assert length < 0.2
    _, cosines, _ = cgsv_ext.aggregate(x.to(device), torch.full((4,), 0.25, device=device), gamma=0.5)
    np.testing.assert_allclose(f64(cosines), expected.cosines, rtol=0, atol=1e-6)


@dtypes
def test_opposite_updates_cancel_and_have_no_cosine(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.normal(1, 1000, dtype=dtype).to(device)
    u, cosines, _ = cgsv_ext.aggregate(torch.cat([x, -x]), torch.ones(2, device=device), gamma=0.5)
    assert torch.equal(u, torch.zeros_like(u))
    assert cosines.tolist() == [0.0, 0.0]


@dtypes
@pytest.mark.parametrize("d", [1, 2, 3, 100, 5001])
def test_cosines_never_leave_the_unit_interval(device: torch.device, dtype: torch.dtype, d: int) -> None:
    for seed in range(20):
        x = oracle.normal(1, d, seed=seed, dtype=dtype).to(device)
        if not x.any():
            continue
        _, cosines, _ = cgsv_ext.aggregate(torch.cat([x, x, -x]), torch.ones(3, device=device), gamma=0.3)
        assert (cosines.abs() <= 1).all()
        torch.testing.assert_close(cosines.tolist(), [1.0, 1.0, -1.0], rtol=0, atol=1e-6)


def test_norms_given_a_little_too_short_do_not_push_a_cosine_past_one(device: torch.device) -> None:
    x = oracle.normal(2, 50).to(device).repeat(1, 1)
    x[1] = -x[0]
    short = cgsv_ext.norms(x) * (1 - 1e-3)
    cosines = cgsv_ext.aggregate(x, torch.tensor([2.0, 1.0], device=device), gamma=1.0, norms=short).cosines
    assert cosines.tolist() == [1.0, -1.0]


@dtypes
def test_weights_are_used_as_given(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.normal(3, 333, dtype=dtype).to(device)
    weights = torch.tensor([1.0, -0.5, 0.25], device=device)
    u, cosines, norms = cgsv_ext.aggregate(x, weights, gamma=0.5)
    assert_aggregate(u, oracle.mechanism(f64(x), [0.0] * 3, weights=weights.tolist()))
    larger = cgsv_ext.aggregate(x, weights * 4, gamma=0.5)
    oracle.assert_same_bits(larger, (u * 4, larger.cosines, norms))
    torch.testing.assert_close(larger.cosines, cosines, rtol=0, atol=1e-12)


def test_gamma_is_the_length_of_a_single_agent(device: torch.device) -> None:
    x = oracle.normal(1, 777).to(device)
    for gamma in [1e-3, 0.5, 1.0, 40.0]:
        u = cgsv_ext.aggregate(x, torch.ones(1, device=device), gamma=gamma).aggregate
        assert math.isclose(u.double().norm().item(), gamma, rel_tol=1e-6)


@dtypes
@pytest.mark.parametrize("kind", DTYPES, ids=oracle.name)
def test_weights_and_norms_come_in_any_floating_dtype_and_stride(
    device: torch.device, dtype: torch.dtype, kind: torch.dtype
) -> None:
    x = oracle.normal(3, 100, dtype=dtype).to(device)
    weights = torch.tensor([[0.25, 9.0], [0.5, 9.0], [2.0, 9.0]], dtype=kind, device=device)[:, 0]
    norms = torch.tensor([[8.0, 9.0], [16.0, 9.0], [4.0, 9.0]], dtype=kind, device=device)[:, 0]
    expected = cgsv_ext.aggregate(x, weights.double(), gamma=0.5, norms=norms.double())
    oracle.assert_same_bits(cgsv_ext.aggregate(x, weights, gamma=0.5, norms=norms), expected)
    plain = oracle.mechanism(f64(x), [0.0] * 3, weights=weights.tolist(), norms=norms.tolist())
    assert_aggregate(expected.aggregate, plain)
    assert expected.norms.tolist() == [8.0, 16.0, 4.0]


def test_weights_that_negate_lazily_are_resolved(device: torch.device) -> None:
    x = oracle.normal(2, 10).to(device)
    weights = torch.tensor([1 - 2j, 3 - 4j], device=device).conj().imag
    assert weights.is_neg()
    expected = cgsv_ext.aggregate(x, torch.tensor([2.0, 4.0], device=device), gamma=0.5)
    oracle.assert_same_bits(cgsv_ext.aggregate(x, weights, gamma=0.5), expected)


@dtypes
def test_norms_given_are_not_measured_again(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.normal(4, 500, dtype=dtype).to(device)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], device=device)
    measured = cgsv_ext.aggregate(x, weights, gamma=0.5)
    oracle.assert_same_bits(cgsv_ext.aggregate(x, weights, gamma=0.5, norms=measured.norms), measured)
    doubled = cgsv_ext.aggregate(x, weights, gamma=0.5, norms=measured.norms * 2)
    assert torch.equal(doubled.aggregate * 2, measured.aggregate)
    assert torch.equal(doubled.norms, measured.norms * 2)


@dtypes
@pytest.mark.parametrize("n", [1, 3, 4, 5, 8, 9, 70, 300])
def test_any_number_of_agents(device: torch.device, dtype: torch.dtype, n: int) -> None:
    x = oracle.normal(n, 300, seed=n, dtype=dtype)
    weights = (torch.arange(n).remainder(7) + 1).double() / n
    u, cosines, _ = cgsv_ext.aggregate(x.to(device), weights.to(device), gamma=0.5)
    expected = oracle.mechanism(f64(x), [0.0] * n, weights=weights.tolist())
    assert_aggregate(u, expected)
    np.testing.assert_allclose(f64(cosines), expected.cosines, rtol=0, atol=1e-6)


@dtypes
def test_the_order_of_the_agents_does_not_matter(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.normal(7, 2000, dtype=dtype).to(device)
    weights = torch.rand(7, generator=oracle.generator(1)).to(device)
    order = torch.randperm(7, generator=oracle.generator(2)).to(device)
    u, cosines, norms = cgsv_ext.aggregate(x, weights, gamma=0.5)
    shuffled = cgsv_ext.aggregate(x[order], weights[order], gamma=0.5)
    torch.testing.assert_close(shuffled.aggregate, u, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(shuffled.cosines, cosines[order], rtol=0, atol=1e-6)
    torch.testing.assert_close(shuffled.norms, norms[order], rtol=1e-6, atol=0)


@dtypes
def test_the_order_of_the_columns_does_not_matter(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.normal(4, 3001, dtype=dtype).to(device)
    weights = torch.rand(4, generator=oracle.generator(1)).to(device)
    order = torch.randperm(3001, generator=oracle.generator(2)).to(device)
    u, cosines, norms = cgsv_ext.aggregate(x, weights, gamma=0.5)
    shuffled = cgsv_ext.aggregate(x[:, order].contiguous(), weights, gamma=0.5)
    torch.testing.assert_close(shuffled.aggregate, u[order], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(shuffled.cosines, cosines, rtol=0, atol=1e-6)
    torch.testing.assert_close(shuffled.norms, norms, rtol=1e-6, atol=0)
