"""Step 1: the lengths of the updates."""

from __future__ import annotations

import math

import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import DTYPES, f64

import cgsv_ext

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)


@dtypes
@settings(max_examples=40)
@given(kind=st.sampled_from(oracle.KINDS), n=st.integers(1, 9), d=oracle.COLUMNS, seed=st.integers(0, 10**6))
def test_norms_are_those_of_float64(
    device: torch.device, dtype: torch.dtype, kind: str, n: int, d: int, seed: int
) -> None:
    x = oracle.updates_of(kind, n, d, dtype, seed).to(device)
    found = cgsv_ext.norms(x)
    assert found.dtype == torch.float64
    assert found.shape == (n,)
    expected = torch.tensor([math.sqrt(math.fsum(v * v for v in row)) for row in f64(x)])
    torch.testing.assert_close(found.cpu(), expected.double(), rtol=1e-6, atol=0)


@dtypes
@pytest.mark.parametrize("d", [1, 2, 31, 33, 64, 97, 131])
def test_every_column_counts_once(device: torch.device, dtype: torch.dtype, d: int) -> None:
    x = torch.eye(d, dtype=dtype, device=device) * 3
    assert torch.equal(cgsv_ext.norms(x), torch.full((d,), 3.0, dtype=torch.float64, device=device))


@dtypes
@pytest.mark.parametrize("d", [16_384, 16_385, 300_001])
def test_long_rows_are_summed_to_their_ends(device: torch.device, dtype: torch.dtype, d: int) -> None:
    x = torch.ones(3, d, dtype=dtype, device=device)
    x[1, -1] = 0
    x[2, 0] = 0
    expected = torch.tensor([d, d - 1, d - 1], dtype=torch.float64, device=device).sqrt()
    torch.testing.assert_close(cgsv_ext.norms(x), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=oracle.name)
@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1e-10, 1e10, 1e18, 1e19, 1e30])
@pytest.mark.parametrize("d", [5, 1000, 70_000])
def test_rows_may_be_of_any_length(device: torch.device, dtype: torch.dtype, scale: float, d: int) -> None:
    x = (oracle.normal(2, d, dtype=torch.float64) * scale).to(dtype).to(device)
    expected = torch.tensor([math.sqrt((row * row).sum()) for row in f64(x)])
    torch.testing.assert_close(cgsv_ext.norms(x).cpu(), expected.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=oracle.name)
@pytest.mark.parametrize("d", [1, 40, 1000])
def test_subnormal_and_extreme_values_count_as_they_are(
    device: torch.device, dtype: torch.dtype, d: int
) -> None:
    info = torch.finfo(dtype)
    values = [info.smallest_normal * info.eps, -info.smallest_normal / 2, info.smallest_normal, info.max]
    x = torch.tensor(values, dtype=dtype, device=device)[:, None].repeat(1, d)
    expected = torch.tensor([abs(v) * math.sqrt(d) for v in f64(x[:, 0])], dtype=torch.float64)
    torch.testing.assert_close(cgsv_ext.norms(x).cpu(), expected, rtol=1e-6, atol=0)


@dtypes
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", [0, 33, 99])
def test_a_row_that_is_not_finite_says_so_and_harms_no_other(
    device: torch.device, dtype: torch.dtype, bad: float, column: int
) -> None:
    x = oracle.normal(3, 100, dtype=dtype).to(device)
    before = cgsv_ext.norms(x)
    x[1, column] = bad
    after = cgsv_ext.norms(x)
    assert not after[1].isfinite()
    assert torch.equal(after[[0, 2]], before[[0, 2]])


@dtypes
def test_a_row_of_zeros_has_norm_zero(device: torch.device, dtype: torch.dtype) -> None:
    x = torch.tensor([[0.0, -0.0, 0.0], [3.0, 0.0, -4.0]], dtype=dtype, device=device)
    assert cgsv_ext.norms(x).tolist() == [0.0, 5.0]


@dtypes
def test_nothing_between_the_rows_is_read(device: torch.device, dtype: torch.dtype) -> None:
    padded = torch.full((4, 203), math.nan, dtype=dtype, device=device)
    padded[:, 1:102] = 1
    expected = torch.full((4,), math.sqrt(101), dtype=torch.float64, device=device)
    torch.testing.assert_close(cgsv_ext.norms(padded[:, 1:102]), expected, rtol=1e-12, atol=0)


def test_tensors_of_any_shape_are_rows(device: torch.device) -> None:
    x = oracle.normal(3, 24).to(device)
    shaped = [x[0], x[1].view(4, 6), x[2].view(2, 3, 4)]
    oracle.assert_same_bits(cgsv_ext.norms(shaped), cgsv_ext.norms(x))
    oracle.assert_same_bits(cgsv_ext.norms(tuple(shaped)), cgsv_ext.norms(x))
    oracle.assert_same_bits(cgsv_ext.norms([x[1].view(6, 4)]), cgsv_ext.norms(x[1:2]))
