"""Step 5, first half: how many entries each agent keeps."""

from __future__ import annotations

import math

import oracle
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from oracle import DTYPES

import cgsv_ext
from cgsv_ext import reference

BETAS = [1.0, 0.5, 2.0, 100.0, 1e-12, 1e6, math.inf]


@given(
    r=st.lists(st.one_of(st.floats(0, 1), st.floats(-1, 1), st.just(0.0)), min_size=1, max_size=20),
    sizes=st.lists(st.one_of(st.integers(0, 10**4), st.integers(0, 2**40)), min_size=1, max_size=4),
    beta=st.sampled_from(BETAS),
)
@example(r=[1e-308, -1.0], sizes=[3, 0], beta=1.0)  # a quotient of -inf
def test_quotas_are_the_formula_in_float64(
    device: torch.device, r: list[float], sizes: list[int], beta: float
) -> None:
    got = cgsv_ext.quotas(torch.tensor(r, dtype=torch.float64, device=device), sizes, beta=beta)
    expected = torch.tensor(oracle.quotas(r, sizes, beta))
    assert got.dtype == torch.int64
    assert got.shape == (len(r), len(sizes))
    # CUDA's tanh differs from the C library's in the last bit.
    assert (got.cpu() - expected).abs().max() <= (0 if device.type == "cpu" else 1)
    assert torch.equal(reference.quotas(torch.tensor(r, dtype=torch.float64), sizes, beta=beta), expected)


@pytest.mark.parametrize("beta", BETAS)
def test_the_largest_importance_gets_exactly_everything(device: torch.device, beta: float) -> None:
    for seed in range(50):
        r = torch.rand(9, generator=oracle.generator(seed), dtype=torch.float64).to(device)
        q = cgsv_ext.quotas(r, [999_999_937, 7, 1], beta=beta)
        assert q[r.argmax()].tolist() == [999_999_937, 7, 1]
        assert (q >= 0).all()
        assert (q <= torch.tensor([999_999_937, 7, 1], device=device)).all()
        assert torch.equal(q[:, 0].sort().values, q[r.argsort()][:, 0])


@pytest.mark.parametrize("d", [2**53 - 1, 2**53 + 1, 2**53 + 3, 2**63 - 1])
def test_sizes_that_float64_cannot_tell_apart_are_not_exceeded(device: torch.device, d: int) -> None:
    r = torch.tensor([0.5, 0.5 - 2**-54, 0.0], dtype=torch.float64, device=device)
    q = cgsv_ext.quotas(r, d).tolist()
    assert q[0] == d
    assert 0 < q[1] <= d
    assert q[2] == 0


def test_an_integer_gives_a_vector_and_a_sequence_a_matrix(device: torch.device) -> None:
    r = torch.tensor([0.5, 0.25], device=device)
    whole = cgsv_ext.quotas(r, 1000)
    assert whole.shape == (2,)
    for sizes in ([1000], (1000,), torch.Size([1000])):
        assert torch.equal(cgsv_ext.quotas(r, sizes), whole[:, None])
    assert cgsv_ext.quotas(r, [1000, 0, 10]).shape == (2, 3)


def test_no_positive_importance_gets_nothing(device: torch.device) -> None:
    for r in ([0.0, 0.0], [-0.5, -0.1], [0.0, -1.0], [math.nan, -math.inf]):
        for beta in BETAS:
            assert cgsv_ext.quotas(torch.tensor(r, device=device), 100, beta=beta).tolist() == [0, 0]


def test_negative_importance_gets_nothing_beside_positive(device: torch.device) -> None:
    assert cgsv_ext.quotas(torch.tensor([0.5, -0.5, 0.0], device=device), 100).tolist() == [100, 0, 0]


@pytest.mark.parametrize("least", [1e-300, 5e-324])
def test_a_largest_importance_next_to_nothing_still_gets_everything(
    device: torch.device, least: float
) -> None:
    r = torch.tensor([least, -0.5, 0.0], dtype=torch.float64, device=device)
    assert cgsv_ext.quotas(r, [100, 0]).tolist() == [[100, 0], [0, 0], [0, 0]]


def test_infinite_beta_gives_everything_to_every_positive_importance(device: torch.device) -> None:
    r = torch.tensor([0.5, 1e-300, 0.0, -0.2, 0.1], dtype=torch.float64, device=device)
    assert cgsv_ext.quotas(r, 50, beta=math.inf).tolist() == [50, 50, 0, 0, 50]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_importance_that_is_not_finite_counts_as_zero(device: torch.device, bad: float) -> None:
    r = torch.tensor([0.5, bad, 0.25], device=device)
    assert cgsv_ext.quotas(r, 100).tolist() == cgsv_ext.quotas(r.nan_to_num(0, 0, 0), 100).tolist()


@pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)
def test_any_floating_dtype_and_stride_is_accepted(device: torch.device, dtype: torch.dtype) -> None:
    r = torch.tensor([[0.5, 9.0], [0.25, 9.0], [0.1, 9.0]], dtype=dtype, device=device)[:, 0]
    assert torch.equal(cgsv_ext.quotas(r, 10**6), cgsv_ext.quotas(r.double().contiguous(), 10**6))


@given(c=st.floats(0.01, 0.99), r=st.lists(st.floats(0.01, 1), min_size=1, max_size=9))
def test_minimum_beta_guarantees_its_ratio(device: torch.device, c: float, r: list[float]) -> None:
    beta = cgsv_ext.minimum_beta(c, min(r))
    assert math.isclose(beta, math.atanh(c) / min(r), rel_tol=1e-9)
    q = cgsv_ext.quotas(torch.tensor(r, dtype=torch.float64, device=device), 10**6, beta=beta)
    assert q.min() >= math.floor(c * 10**6) - 1
