"""The Gram matrix of the unit updates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from oracle import DTYPES, assert_same_bits, f64
from torch import Tensor

import cgsv_ext

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)


def expected_gram(x: Tensor) -> np.ndarray:
    """One pair at a time, with an exactly rounded sum."""
    rows = f64(x)
    with np.errstate(invalid="ignore", over="ignore"):
        lengths = [math.sqrt(math.fsum(row * row)) if np.isfinite(row).all() else math.nan for row in rows]
    gram = np.zeros((len(rows), len(rows)))
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            if lengths[i] > 0 and lengths[j] > 0:
                gram[i, j] = 1 if i == j else math.fsum(a * b) / lengths[i] / lengths[j]
    return gram


def assert_gram(got: Tensor, expected: np.ndarray) -> None:
    assert got.dtype == torch.float64
    np.testing.assert_allclose(f64(got), expected, rtol=0, atol=1e-13)
    assert torch.equal(got, got.T)
    assert (got.abs() <= 1).all()
    assert set(got.diagonal().tolist()) <= {0.0, 1.0}


@dtypes
@settings(max_examples=40)
@given(case=oracle.rounds())
def test_gram_is_that_of_float64(device: torch.device, dtype: torch.dtype, case: dict[str, Any]) -> None:
    x, _, _ = oracle.arguments(case, dtype, device)
    assert_gram(cgsv_ext.gram(x), expected_gram(x))


@dtypes
@pytest.mark.parametrize("n", [*range(1, 14), 16, 17, 31, 32, 33, 36, 40, 64, 65, 70, 100])
def test_any_number_of_agents(device: torch.device, dtype: torch.dtype, n: int) -> None:
    x = oracle.normal(n, 203, seed=n, dtype=dtype)
    x[: n // 2] += x[n // 2]
    assert_gram(cgsv_ext.gram(x.to(device)), expected_gram(x))


@dtypes
@pytest.mark.parametrize("d", [1, 7, 8, 9, 127, 128, 511, 512, 513, 2049, 70_003])
def test_every_column_counts(device: torch.device, dtype: torch.dtype, d: int) -> None:
    for j in sorted({0, d // 2, max(0, d - 9), max(0, d - 2), d - 1}):
        x = torch.zeros(3, d, dtype=dtype, device=device)
        x[0, j], x[1, j], x[2, (j + 1) % d] = 3, -4, 5
        same = 1.0 if d == 1 else 0.0
        assert cgsv_ext.gram(x).tolist() == [[1, -1, same], [-1, 1, -same], [same, -same, 1]]


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=oracle.name)
@pytest.mark.parametrize("d", [7, 3000])
def test_the_length_of_a_row_does_not_matter(device: torch.device, dtype: torch.dtype, d: int) -> None:
    x = oracle.normal(5, d, dtype=torch.float64)
    x = (x * torch.tensor([1e-30, 1e-15, 1.0, 1e15, 1e30], dtype=torch.float64)[:, None]).to(dtype)
    assert_gram(cgsv_ext.gram(x.to(device)), expected_gram(x))


@dtypes
def test_updates_that_cancel_leave_nothing(device: torch.device, dtype: torch.dtype) -> None:
    """Far within the 1e-12 of their squared lengths below which a coalition counts as zero."""
    for seed, d in enumerate([3, 100, 5001, 100_000]):
        x = oracle.normal(1, d, seed=seed, dtype=dtype).to(device)
        gram = cgsv_ext.gram(torch.cat([x, -x, x * 2]))
        signs = torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]], dtype=torch.float64, device=device)
        torch.testing.assert_close(gram, signs, rtol=0, atol=1e-15)


@dtypes
@pytest.mark.parametrize("n", [5, 37])
def test_agents_with_equal_updates_get_equal_bits(device: torch.device, dtype: torch.dtype, n: int) -> None:
    x = oracle.normal(n, 3001, dtype=dtype)
    x[n - 1] = x[0]
    gram = cgsv_ext.gram(x.to(device))
    rest = slice(1, n - 1)
    assert_same_bits(gram[n - 1, rest], gram[0, rest])


@dtypes
@pytest.mark.parametrize("kind", [math.nan, math.inf, -math.inf, 0.0])
def test_an_agent_that_sends_rubbish_changes_no_bit_of_the_others(
    device: torch.device, dtype: torch.dtype, kind: float
) -> None:
    x = oracle.normal(6, 3001, dtype=dtype).to(device)
    before = cgsv_ext.gram(x)
    if kind == 0:
        x[2] = 0
    else:
        x[2, 0], x[2, 1500], x[2, 3000] = kind, 0, kind
    before[2], before[:, 2] = 0, 0
    gram = cgsv_ext.gram(x)
    assert_same_bits(gram + 0.0, before)


def test_agents_are_valid_where_the_norms_are(device: torch.device) -> None:
    x = oracle.normal(4, 100, dtype=torch.float64).to(device)
    x[1] *= 1e200  # whose square overflows
    x[2] *= 1e-200
    norms = cgsv_ext.norms(x)
    valid = norms.isfinite() & (norms > 0)
    assert valid.tolist() == [True, False, False, True]
    assert_same_bits(cgsv_ext.gram(x).diagonal().contiguous(), valid.double())


@dtypes
def test_rows_may_lie_anywhere(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.normal(6, 1003, dtype=dtype).to(device)
    expected = cgsv_ext.gram(x)
    wide = torch.full((6, 1103), math.nan, dtype=dtype, device=device)
    wide[:, 5:1008] = x
    assert_same_bits(cgsv_ext.gram(wide[:, 5:1008]), expected)
    assert_same_bits(cgsv_ext.gram([row.clone().view(17, 59) for row in x]), expected)
    assert_same_bits(cgsv_ext.gram(x.clone().requires_grad_()), expected)
    assert not cgsv_ext.gram(x.clone().requires_grad_()).requires_grad


@pytest.mark.cpu_kernels
@pytest.mark.parametrize("n", [3, 10, 33, 130])
def test_any_number_of_threads(n: int) -> None:
    x = oracle.updates_of("alike", n, 200_003 if n < 20 else 5003, torch.float32, 0)
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(cgsv_ext.gram(x))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@dtypes
def test_the_reference_agrees(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.normal(5, 300, dtype=dtype).to(device)
    x[1, 7] = math.nan
    torch.testing.assert_close(cgsv_ext.reference.gram(x), cgsv_ext.gram(x), rtol=0, atol=1e-13)
