"""Step 4: the moving average of the cosines."""

from __future__ import annotations

import math

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import DTYPES, f64

import cgsv_ext
from cgsv_ext import update_importance

unit = st.floats(-1, 1)


@given(
    pairs=st.lists(st.tuples(unit, unit), min_size=1, max_size=12),
    alpha=st.floats(0, 1),
    floor=st.one_of(st.none(), st.floats(0, 0.5)),
)
def test_importance_is_the_normalised_moving_average(
    device: torch.device, pairs: list[tuple[float, float]], alpha: float, floor: float | None
) -> None:
    before, cosines = zip(*pairs, strict=True)
    raw = [alpha * r + (1 - alpha) * c for r, c in pairs]
    expected = oracle.moving_average(before, cosines, alpha=alpha, floor=floor)
    got = update_importance(
        torch.tensor(before, dtype=torch.float64, device=device),
        torch.tensor(cosines, dtype=torch.float64, device=device),
        alpha=alpha,
        floor=floor,
    )
    assert got.dtype == torch.float64
    if floor is None and abs(math.fsum(raw)) < 1e-9 * sum(map(abs, raw)):
        return  # the sum is rounding noise, and with it the quotient
    np.testing.assert_allclose(f64(got), expected, rtol=1e-6, atol=1e-12)
    if expected.any():
        assert math.isclose(got.sum().item(), 1, rel_tol=1e-6)


def test_alpha_one_keeps_the_past_and_alpha_zero_forgets_it(device: torch.device) -> None:
    r = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64, device=device)
    cosines = torch.tensor([0.2, 0.2, 0.4], dtype=torch.float64, device=device)
    assert torch.equal(update_importance(r, cosines, alpha=1.0, floor=None), r)
    expected = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64, device=device)
    torch.testing.assert_close(update_importance(r, cosines, alpha=0.0, floor=None), expected)


def test_the_defaults_are_the_papers(device: torch.device) -> None:
    r = torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64, device=device)
    cosines = torch.tensor([0.9, -0.5, -1.0], dtype=torch.float64, device=device)
    got = update_importance(r, cosines)
    expected = oracle.moving_average(r.tolist(), cosines.tolist(), alpha=0.95, floor=1e-3)
    np.testing.assert_allclose(f64(got), expected, rtol=1e-12)


def test_the_floor_clamps_before_normalising(device: torch.device) -> None:
    r = torch.tensor([0.0, 1.0, 0.0], device=device)
    cosines = torch.tensor([-1.0, 1.0, 0.0], device=device)
    got = update_importance(r, cosines, alpha=0.5, floor=0.25)
    torch.testing.assert_close(f64(got).tolist(), [0.25 / 1.5, 1 / 1.5, 0.25 / 1.5])
    zero = update_importance(r, cosines, alpha=0.5, floor=0.0)
    assert zero.tolist() == [0.0, 1.0, 0.0]


def test_without_a_floor_importance_may_be_negative(device: torch.device) -> None:
    r = torch.tensor([0.0, 1.0], device=device)
    cosines = torch.tensor([-1.0, 1.0], device=device)
    got = update_importance(r, cosines, alpha=0.75, floor=None)
    assert got.tolist() == [-0.25 / 0.75, 1 / 0.75]


@pytest.mark.parametrize(
    ("floor", "cosines"), [(None, [-1.0, 0.5]), (None, [-0.5, 0.5]), (0.0, [-1.0, -1.0])]
)
def test_a_sum_that_is_not_positive_gives_zeros(
    device: torch.device, floor: float | None, cosines: list[float]
) -> None:
    got = update_importance(
        torch.zeros(2, device=device), torch.tensor(cosines, device=device), alpha=0.5, floor=floor
    )
    assert got.tolist() == [0.0, 0.0]
    assert cgsv_ext.quotas(got, 10).tolist() == [0, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_importance_that_is_not_finite_counts_as_zero(device: torch.device, bad: float) -> None:
    cosines = torch.tensor([0.5, 0.5, 0.1], device=device)
    got = update_importance(torch.tensor([0.5, bad, 0.5], device=device), cosines)
    oracle.assert_same_bits(got, update_importance(torch.tensor([0.5, 0.0, 0.5], device=device), cosines))


@pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)
def test_any_floating_dtype_and_stride_is_accepted(device: torch.device, dtype: torch.dtype) -> None:
    r = torch.tensor([[0.5, 7.0], [0.125, 7.0], [0.375, 7.0]], dtype=dtype, device=device)[:, 0]
    cosines = torch.tensor([[0.25, 7.0], [-0.5, 7.0], [1.0, 7.0]], dtype=dtype, device=device)[:, 0]
    expected = update_importance(r.double().contiguous(), cosines.double().contiguous())
    oracle.assert_same_bits(update_importance(r, cosines), expected)


def test_equal_agents_stay_equal(device: torch.device) -> None:
    r = torch.tensor([0.3, 0.2, 0.3, 0.2], device=device)
    cosines = torch.tensor([0.1, 0.7, 0.1, 0.7], device=device)
    got = update_importance(r, cosines)
    oracle.assert_same_bits(got[:2], got[2:])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_cosine_that_is_not_finite_counts_as_zero(device: torch.device, bad: float) -> None:
    r = torch.tensor([0.5, 0.5], device=device)
    got = update_importance(r, torch.tensor([bad, 0.5], device=device))
    expected = update_importance(r, torch.tensor([0.0, 0.5], device=device))
    assert torch.equal(got, expected)
