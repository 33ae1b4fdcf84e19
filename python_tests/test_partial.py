"""What a rank computes of its own columns, against its specification in partial_reference.py."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import oracle
import partial_reference
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import DTYPES, assert_same_bits
from torch import Tensor

import cgsv_ext

ops = torch.ops.cgsv_ext
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)
aggregate_dtypes = pytest.mark.parametrize("dtype", oracle.AGGREGATE_DTYPES, ids=oracle.name)


def root(squares: Tensor) -> Tensor:
    """Rounded correctly, which torch's own is not everywhere."""
    return torch.from_numpy(np.sqrt(squares.cpu().numpy())).to(squares.device)


def as_rows(x: Tensor, listed: bool) -> list[Tensor]:
    return [row.clone() for row in x] if listed and len(x) > 1 else [x]


def spread_of(x: Tensor, u: Tensor) -> Tensor:
    """Σ_j |x_ij u_j|, and Σ_j u_j² at the end: what a sum of products may be off by a part of."""
    wide = torch.cat([x.to(u.dtype), u[None]]).double()
    return (wide.abs() * u.double().abs()).sum(1)


@dtypes
@settings(max_examples=25)
@given(case=oracle.rounds(), listed=st.booleans())
def test_sums_of_any_columns(
    device: torch.device, dtype: torch.dtype, case: dict[str, Any], listed: bool
) -> None:
    x, importance, options = oracle.arguments(case, dtype, device)
    updates = as_rows(x, listed)
    weights = importance if options["weights"] is None else options["weights"]
    squares, norms = ops.partial_norms(updates), cgsv_ext.norms(x)
    torch.testing.assert_close(squares, partial_reference.partial_norms(updates), rtol=1e-6, atol=0)
    assert_same_bits(root(squares), norms)

    u, dots = ops.partial_aggregate(updates, weights, options["gamma"], norms)
    whole, cosines, _ = cgsv_ext.aggregate(x, weights, gamma=options["gamma"], norms=norms)
    assert_same_bits(u, whole)
    length = root(dots[-1:])
    good = (norms > 0) & norms.isfinite() & (length > 0) & length.isfinite()
    assert_same_bits(torch.where(good, (dots[:-1] / (norms * length)).clamp(-1, 1), 0.0), cosines)
    _, expected = partial_reference.partial_aggregate(updates, weights, options["gamma"], norms)
    assert ((dots - expected).abs() <= 2e-6 * spread_of(x, u)).all()


@dtypes
def test_columns_may_be_spread_over_shards(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.updates_of("alike", 5, 3001, dtype, 0).to(device)
    weights = torch.tensor([0.5, -0.25, 1.0, 0.0, 2.0], device=device)
    norms = cgsv_ext.norms(x)
    whole, dots = ops.partial_aggregate([x], weights, 0.5, norms)
    shards = x.split([1, 1300, 700, 1000], dim=1)
    parts = [ops.partial_aggregate([shard], weights, 0.5, norms) for shard in shards]
    assert_same_bits(torch.cat([u for u, _ in parts]), whole)
    # Each shard rounds its products to float32 within a part of a column or two hundred.
    torch.testing.assert_close(sum(part for _, part in parts), dots, rtol=1e-6, atol=1e-6 * float(dots[-1]))
    torch.testing.assert_close(
        sum(ops.partial_norms([shard]) for shard in shards), ops.partial_norms([x]), rtol=1e-6, atol=0
    )


@dtypes
def test_who_takes_no_part_has_no_product(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.normal(6, 500).to(dtype).to(device)
    x[1, 3], x[2, 4], x[3] = math.nan, math.inf, 0
    norms, weights = cgsv_ext.norms(x), torch.ones(6, device=device)
    weights[4] = math.nan  # counts as 0, but takes part
    u, dots = ops.partial_aggregate([x], weights, 0.5, norms)
    assert_same_bits(dots[1:4], torch.zeros(3, dtype=torch.float64, device=device))
    assert (dots[[0, 4, 5]] != 0).all()
    rest = [0, 5]
    alone, _ = ops.partial_aggregate([x[rest]], weights[rest], 0.5, norms[rest])
    assert_same_bits(u, alone)
    # A row without a single entry here has a norm all the same: it lies elsewhere.
    x[5] = 0
    _, dots = ops.partial_aggregate([x], weights, 0.5, norms)
    assert dots[5] == 0
    assert math.isfinite(dots[6])


@dtypes
@settings(max_examples=25)
@given(case=oracle.rounds(), listed=st.booleans())
def test_products_with_any_aggregate(
    device: torch.device, dtype: torch.dtype, case: dict[str, Any], listed: bool
) -> None:
    x, _, _ = oracle.arguments(case, dtype, device)
    # Of any alignment, and not made of these rows.
    u = oracle.normal(x.shape[1] + 1, seed=1, dtype=oracle.aggregate_dtype(dtype)).to(device)[1:]
    dots, expected = ops.partial_dots(as_rows(x, listed), u), partial_reference.partial_dots([x], u)
    assert dots.shape == expected.shape
    finite = expected.isfinite()
    assert_same_bits(dots.isfinite(), finite)
    assert ((dots - expected).abs() <= 2e-6 * spread_of(x, u)[:-1])[finite].all()
    # A row's product has the same bits in any matrix.
    oracle.assert_same_but_nans(ops.partial_dots([x[-1:]], u), dots[-1:])


# Histograms

DIGITS = {torch.float32: 31, torch.float64: 63}


def some_prefixes(u: Tensor, shape: tuple[int, ...], above: int, seed: int) -> Tensor:
    """Those of entries, some more than once, and some of none."""
    g = oracle.generator(seed)
    count = math.prod(shape)
    keys = partial_reference.keys(u)[torch.randint(0, len(u), (count,), generator=g)] >> above
    none = torch.tensor([-1, -(2**63), 2**63 - 1, 2**33, 7])[torch.randint(0, 5, (count,), generator=g)]
    return torch.where(torch.rand(count, generator=g) < 0.2, none, keys).view(shape)


@aggregate_dtypes
@settings(max_examples=60)
@given(
    kind=st.sampled_from(list(oracle.HARD)),
    d=oracle.COLUMNS,
    n=st.sampled_from([1, 2, 5, 16, 17, 40]),
    cuts=st.none() | st.lists(st.floats(0, 1), max_size=4),
    bits=st.integers(1, 12),
    place=st.floats(0, 1),
    seed=st.integers(0, 10**6),
)
def test_counts_of_any_digit(
    device: torch.device,
    dtype: torch.dtype,
    kind: str,
    d: int,
    n: int,
    cuts: list[float] | None,
    bits: int,
    place: float,
    seed: int,
) -> None:
    u = oracle.hard(kind, d, dtype, seed)
    shift = round(place * (DIGITS[dtype] - bits))
    segments = None
    if cuts is not None:
        ends = [0, *sorted(int(cut * d) for cut in cuts), d]
        segments = [end - begin for begin, end in itertools.pairwise(ends)]
    shape = (n,) if segments is None else (n, len(segments))
    prefixes = some_prefixes(u, shape, shift + bits, seed)
    got = ops.histogram(u.to(device), prefixes.to(device), shift, bits, segments)
    assert_same_bits(got.cpu(), partial_reference.histogram(u, prefixes, shift, bits, segments))


@aggregate_dtypes
@pytest.mark.parametrize("kind", ["normal", "half zeros", "nan", "one bin, few values", "all equal"])
def test_digit_by_digit_to_a_selection(device: torch.device, dtype: torch.dtype, kind: str) -> None:
    """The quota-th key, found as ranks find it, is that of the selection."""
    d = 200_003
    u = oracle.hard(kind, d, dtype).to(device)
    quotas = torch.tensor([1, 7, d // 9, d // 3, d // 2 + 1, d - 1, d], device=device)
    prefix, left, shift = torch.zeros_like(quotas), quotas.clone(), DIGITS[dtype]
    while shift > 0:
        bits = min(11, shift)
        shift -= bits
        through = ops.histogram(u, prefix, shift, bits, None).flip(1).cumsum(1)
        place = (through < left[:, None]).sum(1, keepdim=True)
        left -= torch.where(place > 0, through.gather(1, (place - 1).clamp(min=0)), 0)[:, 0]
        prefix = (prefix << bits) + (1 << bits) - 1 - place[:, 0]
    assert_same_bits(prefix, partial_reference.keys(cgsv_ext.select(u, quotas).magnitude))
    ties = ops.histogram(u, prefix >> 1, 0, 1, None).gather(1, (prefix & 1)[:, None])[:, 0]
    assert ((left >= 1) & (left <= ties)).all()


def test_prefixes_may_be_strided(device: torch.device) -> None:
    u = oracle.normal(50).to(device)
    prefixes = some_prefixes(u.cpu(), (3, 2), 20, 0).to(device)
    expected = ops.histogram(u, prefixes, 10, 10, [20, 30])
    assert_same_bits(ops.histogram(u, prefixes.T.contiguous().T, 10, 10, [20, 30]), expected)
    assert_same_bits(ops.histogram(u[:20].clone(), prefixes[:, 0], 10, 10, None), expected[:, 0])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"shift": -1}, r"shift to be in \[0, 21\] for 10 of 31 bits, got -1"),
        ({"shift": 22}, r"shift to be in \[0, 21\] for 10 of 31 bits, got 22"),
        ({"shift": 2**62}, "shift to be in"),
        ({"bits": 0}, r"bits to be in \[1, 16\], got 0"),
        ({"bits": 17}, r"bits to be in \[1, 16\], got 17"),
        ({"prefixes": torch.zeros(2)}, "prefixes of int64, got float32"),
        (
            {"prefixes": torch.zeros(2, 2, dtype=torch.int64)},
            r"prefixes of shape \(N,\) without segments=, got \(2, 2\)",
        ),
        (
            {"prefixes": torch.zeros(0, dtype=torch.int64)},
            r"prefixes of shape \(N,\) without segments=, got \(0,\)",
        ),
        ({"segments": [5, 3]}, r"prefixes of shape \(N, 2\), one column per segment, got \(2,\)"),
        ({"segments": [5, 4]}, "segments that are not negative and sum to D = 8"),
        ({"aggregate": torch.zeros(0)}, "aggregate of shape"),
        ({"aggregate": torch.zeros(8).half()}, "aggregate of float32 or float64"),
    ],
)
def test_a_bad_argument_of_histogram(device: torch.device, change: dict[str, Any], expected: str) -> None:
    arguments = {
        "aggregate": oracle.normal(8),
        "prefixes": torch.tensor([3, -1]),
        "shift": 10,
        "bits": 10,
        "segments": None,
    }
    arguments |= change
    moved = [v.to(device) if isinstance(v, Tensor) else v for v in arguments.values()]
    with pytest.raises(ValueError, match=rf"^histogram\(\): expected {expected}"):
        ops.histogram(*moved)


def test_a_bad_argument_of_the_sums(device: torch.device) -> None:
    x, r = oracle.normal(3, 8).to(device), torch.ones(3, device=device)
    with pytest.raises(ValueError, match=r"^partial_norms\(\): expected updates of shape"):
        ops.partial_norms([x[:, :0]])
    for updates, weights, gamma, norms, expected in [
        ([x.long()], r, 0.5, r, "updates of float64"),
        ([x], r[:2], 0.5, r, r"weights of shape \(3,\)"),
        ([x], r, 0.0, r, "gamma to be finite and > 0"),
        ([x], r, 0.5, r[:, None], r"norms of shape \(3,\)"),
    ]:
        with pytest.raises(ValueError, match=rf"^partial_aggregate\(\): expected {expected}"):
            ops.partial_aggregate(updates, weights, gamma, norms)
    for updates, u, expected in [
        ([x[:, :0]], x[0], "updates of shape"),
        ([x], x[0, :7], "aggregate of D = 8 elements, got 7"),
        ([x.half()], x[0].double(), "aggregate of float32 for these updates, got float64"),
        ([x], x, r"aggregate of shape \(D,\), D ≥ 1"),
    ]:
        with pytest.raises(ValueError, match=rf"^partial_dots\(\): expected {expected}"):
            ops.partial_dots(updates, u)
