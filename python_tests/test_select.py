"""Step 5, second half: where the q_i largest of |u_N| end."""

from __future__ import annotations

import math
import os

import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import AGGREGATE_DTYPES, HARD, Ranks, assert_same_selection, hard, some_quotas
from torch import Tensor

import cgsv_ext

dtypes = pytest.mark.parametrize("dtype", AGGREGATE_DTYPES, ids=oracle.name)


def check(u: Tensor, quotas: Tensor, segments: list[int] | None = None) -> None:
    got = cgsv_ext.select(u, quotas, segments=segments)
    assert got.magnitude.shape == got.last_index.shape == quotas.shape
    assert got.last_index.dtype == torch.int64
    assert_same_selection(got, Ranks(u, segments).selection(quotas))


@dtypes
@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("d", [1, 2, 17, 1024, 1025, 5003, 70_001])
def test_selection_ends_at_the_quota_th_entry(
    device: torch.device, dtype: torch.dtype, kind: str, d: int
) -> None:
    u = hard(kind, d, dtype).to(device)
    check(u, some_quotas(d, 4).to(device))


@dtypes
@pytest.mark.parametrize("kind", ["normal", "few values", "nan", "one bin, few values"])
@pytest.mark.parametrize("d", [40, 1500])
def test_every_quota_has_its_own_end(device: torch.device, dtype: torch.dtype, kind: str, d: int) -> None:
    u = hard(kind, d, dtype).to(device)
    check(u, torch.arange(-1, d + 2, device=device))


@dtypes
@settings(max_examples=50)
@given(
    kind=st.sampled_from(list(HARD)), d=oracle.COLUMNS, seed=st.integers(0, 10**6), agents=st.integers(0, 40)
)
def test_any_quotas_of_any_aggregate(
    device: torch.device, dtype: torch.dtype, kind: str, d: int, seed: int, agents: int
) -> None:
    u = hard(kind, d, dtype, seed).to(device)
    check(u, some_quotas(d, agents, seed).to(device))


# A selection that has more candidates than it likes to sort, half a million, looks for a finer prefix or a
# single crowded value; below that it never does.
LARGE = 120_011 if "CGSV_SIMT_LIBRARY" in os.environ else 1_200_011


@dtypes
@pytest.mark.parametrize(
    "kind",
    [
        "normal",
        "few values",
        "all zero",
        "signed zeros",
        "half precision",
        "half zeros",
        "one bin",
        "one bin, few values",
        "all equal but a lesser one",
        "all equal but a greater one",
        "ascending",
        "nan",
    ],
)
def test_large_aggregates_too(device: torch.device, dtype: torch.dtype, kind: str) -> None:
    u = hard(kind, LARGE, dtype).to(device)
    check(u, some_quotas(LARGE, 3).to(device))


@dtypes
@pytest.mark.parametrize("kind", ["normal", "many bins", "one bin", "one bin, forty values"])
def test_many_agents_of_a_large_aggregate(device: torch.device, dtype: torch.dtype, kind: str) -> None:
    u = hard(kind, LARGE, dtype).to(device)
    check(u, some_quotas(LARGE, 200).to(device))


@dtypes
def test_a_value_half_the_entries_share_leaves_the_rest_to_be_ordered(
    device: torch.device, dtype: torch.dtype
) -> None:
    u = torch.cat(
        [
            hard("all equal", 700_000, dtype),
            hard("one bin", 600_000, dtype),
            torch.zeros(100_000, dtype=dtype),
        ]
    )
    u = u[torch.randperm(len(u), generator=oracle.generator(3))].contiguous().to(device)
    check(u, some_quotas(len(u), 30).to(device))


@pytest.mark.slow_simulated
def test_counts_do_not_overflow_in_long_runs(device: torch.device) -> None:
    torch.set_num_threads(1)  # all into one table
    d = (1 << 24) + 4099
    u = torch.ones(d, device=device)
    u[d - 2] = 2
    u[5] = 0.5
    q = torch.tensor([1, 2, d - 5, d - 1, d, d // 2, 1 << 24], device=device)
    got = cgsv_ext.select(u, q)
    assert got.magnitude.tolist() == [2.0, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0]
    ends = [d - 2, 0, d - 6, d - 1, 5, d // 2 - 1, (1 << 24) - 1]
    assert got.last_index.tolist() == ends


@dtypes
def test_ties_go_to_the_smaller_index(device: torch.device, dtype: torch.dtype) -> None:
    u = torch.tensor([1.0, -2.0, 2.0, 0.5, -2.0, -1.0], dtype=dtype, device=device)
    got = cgsv_ext.select(u, torch.tensor([1, 2, 3, 4, 5, 6], device=device))
    assert got.magnitude.tolist() == [2.0, 2.0, 2.0, 1.0, 1.0, 0.5]
    assert got.last_index.tolist() == [1, 2, 4, 0, 5, 3]


@dtypes
def test_nan_ranks_above_infinity_and_equals_every_nan(device: torch.device, dtype: torch.dtype) -> None:
    integer = {4: torch.int32, 8: torch.int64}[dtype.itemsize]
    u = torch.tensor([math.inf, math.nan, 1.0, -math.nan, -math.inf, 0.0], dtype=dtype)
    u.view(integer)[0] += 1  # the least signalling NaN
    u = u.to(device)
    got = cgsv_ext.select(u, torch.tensor([1, 2, 3, 4, 5], device=device))
    assert got.last_index.tolist() == [0, 1, 3, 4, 2]
    assert got.magnitude[:3].isnan().all()
    assert got.magnitude[3:].tolist() == [math.inf, 1.0]


@dtypes
@pytest.mark.parametrize("d", [1, 1000, 3000])
def test_a_quota_of_nothing_is_inf_and_minus_one(device: torch.device, dtype: torch.dtype, d: int) -> None:
    got = cgsv_ext.select(hard("normal", d, dtype).to(device), torch.tensor([0, -7], device=device))
    assert got.magnitude.tolist() == [math.inf, math.inf]
    assert got.last_index.tolist() == [-1, -1]


@dtypes
@pytest.mark.parametrize("kind", ["normal", "few values", "half zeros", "nan", "one bin"])
@pytest.mark.parametrize(
    "segments",
    [
        [5003],
        [0, 5003],
        [5003, 0],
        [1, 2, 3, 4997],
        [2500, 0, 0, 2503],
        [1024, 1025, 2048, 906],
        [1] * 3 + [5000],
    ],
    ids=str,
)
def test_segments_are_selected_from_one_by_one(
    device: torch.device, dtype: torch.dtype, kind: str, segments: list[int]
) -> None:
    u = hard(kind, 5003, dtype).to(device)
    q = torch.stack(
        [some_quotas(size, 3, seed) if size else torch.arange(-6, 6) for seed, size in enumerate(segments)]
    )
    check(u, q.T.to(device), segments)


@dtypes
@settings(max_examples=30)
@given(
    kind=st.sampled_from(list(HARD)),
    sizes=st.lists(st.one_of(st.integers(0, 5), st.integers(0, 2000)), min_size=1, max_size=12),
    seed=st.integers(0, 10**6),
)
def test_any_segments_of_any_aggregate(
    device: torch.device, dtype: torch.dtype, kind: str, sizes: list[int], seed: int
) -> None:
    sizes = [*sizes, 1]
    u = hard(kind, sum(sizes), dtype, seed).to(device)
    g = oracle.generator(seed)
    q = torch.stack([torch.randint(-2, size + 3, (6,), generator=g) for size in sizes], dim=1)
    check(u, q.to(device), sizes)


def test_large_segments(device: torch.device) -> None:
    segments = [700_001, 3, 600_000]
    u = torch.cat(
        [hard("one bin", 700_001, torch.float32), torch.ones(3), hard("half zeros", 600_000, torch.float32)]
    )
    q = torch.stack([some_quotas(size, 3, seed) for seed, size in enumerate(segments)], dim=1)
    check(u.to(device), q.to(device), segments)


@dtypes
def test_one_segment_is_the_whole(device: torch.device, dtype: torch.dtype) -> None:
    u = hard("half precision", 3000, dtype).to(device)
    q = some_quotas(3000, 5).to(device)
    one = cgsv_ext.select(u, q[:, None], segments=[3000])
    oracle.assert_same_bits(tuple(t[:, 0] for t in one), tuple(cgsv_ext.select(u, q)))


def test_quotas_of_any_stride(device: torch.device) -> None:
    u = hard("normal", 100, torch.float32).to(device)
    q = torch.tensor([[10, 20, 30], [40, 50, 60]], device=device)
    expected = cgsv_ext.select(u, q.T.contiguous(), segments=[40, 60])
    oracle.assert_same_bits(cgsv_ext.select(u, q.T, segments=[40, 60]), expected)
    oracle.assert_same_bits(
        cgsv_ext.select(u, q[:, 1]), cgsv_ext.select(u, torch.tensor([20, 50], device=device))
    )


@dtypes
def test_the_order_of_the_columns_does_not_matter_without_ties(
    device: torch.device, dtype: torch.dtype
) -> None:
    u = hard("normal", 4000, dtype).to(device)
    assert u.abs().unique().numel() == 4000
    order = torch.randperm(4000, generator=oracle.generator(1)).to(device)
    q = some_quotas(4000, 5).clamp(1, 4000).to(device)
    plain, shuffled = cgsv_ext.select(u, q), cgsv_ext.select(u[order], q)
    assert torch.equal(shuffled.magnitude, plain.magnitude)
    assert torch.equal(order[shuffled.last_index], plain.last_index)


@pytest.mark.slow_simulated
@dtypes
def test_thousands_of_quotas_among_thousands_of_ties(device: torch.device, dtype: torch.dtype) -> None:
    """Too many candidates to gather, no bin crowded, and no bits left that tell them apart."""
    d = 1_500_000
    u = 1 + torch.randint(0, 2**12, (d,), generator=oracle.generator(0)).to(dtype) / 2**19
    check(u.to(device), some_quotas(d, 3000).to(device))


def test_many_quotas_in_one_bin(device: torch.device) -> None:
    d = 60_000
    u = 1 + torch.rand(d, generator=oracle.generator(1)) / 256
    check(u.to(device), some_quotas(d, 3000).to(device))
