"""The 16-bit types: every number widened, and float32 rounded to each of them and to every tie between."""

from __future__ import annotations

import math

import oracle
import pytest
import torch
from oracle import DTYPES, assert_same_bits, assert_same_but_nans
from torch import Tensor

import cgsv_ext
from cgsv_ext import Selection

HALVES = [torch.bfloat16, torch.float16]
halves = pytest.mark.parametrize("dtype", HALVES, ids=oracle.name)


def every(dtype: torch.dtype) -> Tensor:
    """All 65,536 of them, infinities and NaNs too."""
    return torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16).view(dtype)


def around_ties(dtype: torch.dtype) -> Tensor:
    """Float32: every number of the dtype, every middle between two of them, and the neighbours of both."""
    numbers = every(dtype).double()
    numbers = numbers[numbers.isfinite()].abs().unique()  # in order
    beyond = 2 * numbers[-1:] - numbers[-2:-1]  # where the next one would be: the last tie is with infinity
    middles = (numbers + torch.cat([numbers[1:], beyond])) / 2
    exact = torch.cat([numbers, middles]).float()
    assert torch.equal(exact.double(), torch.cat([numbers, middles]))
    far = torch.tensor(math.inf)
    positive = torch.cat([exact, exact.nextafter(far), exact.nextafter(-far), far[None], far[None] * 0])
    return torch.cat([positive, -positive])


@halves
@pytest.mark.parametrize("to", DTYPES, ids=oracle.name)
def test_every_number_is_packed_as_torch_converts_it(
    device: torch.device, dtype: torch.dtype, to: torch.dtype
) -> None:
    x = every(dtype)
    row = torch.empty(len(x), dtype=to, device=device)
    cgsv_ext.pack_row_(row, [x.to(device)])
    assert_same_but_nans(row.cpu(), x.to(to))


@halves
def test_every_number_is_aggregated_as_what_it_is(device: torch.device, dtype: torch.dtype) -> None:
    x = every(dtype)
    x = x[x.isfinite()]
    one = torch.ones(1, dtype=torch.float64, device=device)
    u, _, _ = cgsv_ext.aggregate(x[None].to(device), one, gamma=1.0, norms=one)
    assert_same_bits(u.cpu(), x.float() + 0.0)  # a sum has no negative zero


@halves
def test_ties_are_rounded_as_torch_rounds_them(device: torch.device, dtype: torch.dtype) -> None:
    x = around_ties(dtype)
    row = torch.empty(len(x), dtype=dtype, device=device)
    cgsv_ext.pack_row_(row, [x.to(device)])
    assert_same_but_nans(row.cpu(), x.to(dtype))
    everything = Selection(torch.tensor([-1.0], device=device), torch.tensor([-1], device=device))
    assert_same_but_nans(cgsv_ext.download(x.to(device), everything, dtype=dtype)[0].cpu(), x.to(dtype))
