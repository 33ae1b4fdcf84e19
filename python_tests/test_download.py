"""Step 5, the download: as rows of their own and added to parameters in place."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import AGGREGATE_DTYPES, DTYPES, HARD, Ranks, assert_same_bits, hard, some_quotas
from torch import Tensor, nn

import cgsv_ext
from cgsv_ext import Selection

aggregate_dtypes = pytest.mark.parametrize("aggregate_dtype", AGGREGATE_DTYPES, ids=oracle.name)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)

# Enough for a CPU's stores that bypass the caches, and more than one tile of columns to a chunk.
STREAMED = (4, 70_003 if "CGSV_SIMT_LIBRARY" in os.environ else 1_100_003)


def guarded(n: int, d: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Callable[[], None]]:
    """A contiguous (n, d) tensor one element past an aligned address, and a check of what surrounds it."""
    around = torch.full((n * d + 66,), 7.0, dtype=dtype, device=device)

    def check() -> None:
        assert (around[:33] == 7).all()
        assert (around[33 + n * d :] == 7).all()

    return around[33 : 33 + n * d].view(n, d), check


# download


@aggregate_dtypes
@dtypes
@pytest.mark.parametrize("kind", HARD)
def test_rewards_are_the_aggregate_where_kept_and_plus_zero_elsewhere(
    device: torch.device, aggregate_dtype: torch.dtype, dtype: torch.dtype, kind: str
) -> None:
    for d in (1, 37, 5003):
        u = hard(kind, d, aggregate_dtype).to(device)
        q = some_quotas(d, 3).to(device)
        selection = cgsv_ext.select(u, q)
        expected = Ranks(u).rewards(q, dtype)
        got = cgsv_ext.download(u, selection, dtype=dtype)
        if "nan" in kind:  # which NaN a conversion gives is nobody's promise
            assert torch.equal(got.isnan(), expected.isnan())
            got, expected = got.nan_to_num(7.0), expected.nan_to_num(7.0)
        assert_same_bits(got, expected)


@aggregate_dtypes
@dtypes
def test_every_nan_stays_a_nan(
    device: torch.device, aggregate_dtype: torch.dtype, dtype: torch.dtype
) -> None:
    """Also one whose payload lies in the bits that a narrower dtype lacks."""
    infinity = torch.tensor([math.inf, -math.inf], dtype=aggregate_dtype)
    u = (oracle.bits(infinity) + 1).repeat(20).view(aggregate_dtype).to(device)
    assert u.isnan().all()
    selection = cgsv_ext.select(u, torch.tensor([40, 7], device=device))
    assert selection.last_index.tolist() == [39, 6]
    assert cgsv_ext.download(u, selection, dtype=dtype).isnan().sum(dim=1).tolist() == [40, 7]


@aggregate_dtypes
@dtypes
@settings(max_examples=25)
@given(
    d=oracle.COLUMNS, kind=st.sampled_from(["normal", "few values", "signed zeros"]), seed=st.integers(0, 999)
)
def test_out_is_filled_and_nothing_around_it(
    device: torch.device, aggregate_dtype: torch.dtype, dtype: torch.dtype, d: int, kind: str, seed: int
) -> None:
    u = hard(kind, d, aggregate_dtype, seed).to(device)
    q = some_quotas(d, 2, seed).to(device)
    out, check_surroundings = guarded(len(q), d, dtype, device)
    got = cgsv_ext.download(u, cgsv_ext.select(u, q), out=out)
    assert got is out
    assert_same_bits(got, Ranks(u).rewards(q, dtype))
    check_surroundings()


@aggregate_dtypes
@dtypes
@pytest.mark.parametrize("segmented", [False, True])
def test_large_rewards_at_any_alignment(
    device: torch.device, aggregate_dtype: torch.dtype, dtype: torch.dtype, segmented: bool
) -> None:
    n, d = STREAMED
    u = hard("half precision", d, aggregate_dtype).to(device)
    segments = [3, d // 2, 0, d - d // 2 - 3] if segmented else None
    q = torch.tensor([2, d // 3, d - 1, d], device=device)
    if segments is not None:
        q = torch.stack([q.clamp(max=size) for size in segments], dim=1)
    out, check_surroundings = guarded(n, d, dtype, device)
    cgsv_ext.download(u, cgsv_ext.select(u, q, segments=segments), segments=segments, out=out)
    assert_same_bits(out, Ranks(u, segments).rewards(q, dtype))
    check_surroundings()


@aggregate_dtypes
def test_every_threshold_and_column(device: torch.device, aggregate_dtype: torch.dtype) -> None:
    for d in (3, 16, 67):
        u = hard("few values", d, aggregate_dtype).to(device)
        q = torch.arange(d + 1, device=device)
        assert_same_bits(cgsv_ext.download(u, cgsv_ext.select(u, q)), Ranks(u).rewards(q, aggregate_dtype))


@aggregate_dtypes
@dtypes
@pytest.mark.parametrize(
    "segments", [[5003], [0, 5003, 0], [1, 2, 5000], [2500, 0, 2503], [1] * 7 + [4996]], ids=str
)
def test_segments_have_thresholds_of_their_own(
    device: torch.device, aggregate_dtype: torch.dtype, dtype: torch.dtype, segments: list[int]
) -> None:
    u = hard("few values", 5003, aggregate_dtype).to(device)
    g = oracle.generator(0)
    q = torch.stack([torch.randint(-1, size + 2, (5,), generator=g) for size in segments], dim=1).to(device)
    selection = cgsv_ext.select(u, q, segments=segments)
    got = cgsv_ext.download(u, selection, segments=segments, dtype=dtype)
    assert_same_bits(got, Ranks(u, segments).rewards(q, dtype))


@aggregate_dtypes
def test_the_dtype_is_that_asked_for_or_that_of_out_or_the_aggregates(
    device: torch.device, aggregate_dtype: torch.dtype
) -> None:
    u = hard("normal", 10, aggregate_dtype).to(device)
    selection = cgsv_ext.select(u, torch.tensor([4, 10], device=device))
    assert cgsv_ext.download(u, selection).dtype == aggregate_dtype
    for dtype in DTYPES:
        assert cgsv_ext.download(u, selection, dtype=dtype).dtype == dtype
        out = torch.empty(2, 10, dtype=dtype, device=device)
        assert cgsv_ext.download(u, selection, out=out, dtype=dtype) is out


def test_magnitudes_of_any_stride(device: torch.device) -> None:
    u = hard("normal", 50, torch.float32).to(device)
    selection = cgsv_ext.select(u, torch.tensor([[3, 4], [5, 6], [7, 8]], device=device), segments=[20, 30])
    strided = Selection(*(t.T.contiguous().T for t in selection))
    assert not strided.magnitude.is_contiguous()
    expected = cgsv_ext.download(u, selection, segments=[20, 30])
    assert_same_bits(cgsv_ext.download(u, strided, segments=[20, 30]), expected)


# download_


def added(w: Tensor, u: Tensor, keep: Tensor, scale: float) -> Tensor:
    """In the wider dtype, product and sum rounded separately, stored once."""
    wide = torch.float64 if torch.float64 in (w.dtype, u.dtype) else torch.float32
    product = u.to(wide) * torch.tensor(scale, dtype=wide, device=u.device)
    return torch.where(keep, (w.to(wide) + product).to(w.dtype), w)


@aggregate_dtypes
@dtypes
@pytest.mark.parametrize("scale", [1.0, -1.0, 0.3, 0.0, 1e-30, 123456.789])
def test_kept_entries_move_by_scale_times_the_aggregate(
    device: torch.device, aggregate_dtype: torch.dtype, dtype: torch.dtype, scale: float
) -> None:
    for d in (1, 45, 5003):
        u = hard("normal", d, aggregate_dtype).to(device)
        q = some_quotas(d, 3).to(device)
        w = oracle.normal(len(q), d, seed=1, dtype=dtype).to(device)
        expected = added(w, u, Ranks(u).keep(q), scale)
        assert cgsv_ext.download_(w, u, cgsv_ext.select(u, q), scale=scale) is None
        assert_same_bits(w, expected)


@aggregate_dtypes
@dtypes
def test_entries_that_are_not_kept_are_not_touched(
    device: torch.device, aggregate_dtype: torch.dtype, dtype: torch.dtype
) -> None:
    special = torch.tensor([math.nan, -math.nan, math.inf, -0.0, 0.0, 1e-7, -1.0], dtype=dtype)
    u = hard("few values", 5000, aggregate_dtype).to(device)
    q = torch.tensor([0, 2500, 4999], device=device)
    w = special.repeat(3 * 5000 // 7 + 1)[:15000].view(3, 5000).to(device)
    before = w.clone()
    keep = Ranks(u).keep(q)
    cgsv_ext.download_(w, u, cgsv_ext.select(u, q), scale=0.5)
    assert_same_bits(w[~keep], before[~keep])
    assert_same_bits(w[0], before[0])
    torch.testing.assert_close(w, added(before, u, keep, 0.5), rtol=0, atol=0, equal_nan=True)


@aggregate_dtypes
@dtypes
@settings(max_examples=25)
@given(d=oracle.COLUMNS, pad=st.integers(0, 70), seed=st.integers(0, 999))
def test_strided_parameters_change_and_nothing_between_them(
    device: torch.device, aggregate_dtype: torch.dtype, dtype: torch.dtype, d: int, pad: int, seed: int
) -> None:
    u = hard("half precision", d, aggregate_dtype, seed).to(device)
    q = some_quotas(d, 1, seed).to(device)
    around = oracle.normal(len(q), d + pad + 1, seed=seed, dtype=dtype).to(device)
    expected = around.clone()
    expected[:, 1 : d + 1] = added(around[:, 1 : d + 1], u, Ranks(u).keep(q), 0.7)
    cgsv_ext.download_(around[:, 1 : d + 1], u, cgsv_ext.select(u, q), scale=0.7)
    assert_same_bits(around, expected)


@dtypes
@pytest.mark.parametrize("offset", [0, 3])
def test_large_parameters_at_any_alignment(device: torch.device, dtype: torch.dtype, offset: int) -> None:
    d = STREAMED[1]
    u = hard("half precision", d, torch.float32).to(device)
    q = torch.tensor([d // 3, d], device=device)
    around = torch.zeros(2, d + 5, dtype=dtype, device=device)
    cgsv_ext.download_(around[:, offset : offset + d], u, cgsv_ext.select(u, q))
    assert_same_bits(around[:, offset : offset + d].contiguous(), Ranks(u).rewards(q, dtype))
    assert not around[:, :offset].any()
    assert not around[:, offset + d :].any()


@aggregate_dtypes
@dtypes
@pytest.mark.parametrize("segments", [None, [7, 0, 13, 1000]], ids=["whole", "segments"])
def test_separate_tensors_and_parameters_change_alike(
    device: torch.device, aggregate_dtype: torch.dtype, dtype: torch.dtype, segments: list[int] | None
) -> None:
    u = hard("half precision", 1020, aggregate_dtype).to(device)
    q = torch.tensor([0, 100, 1020], device=device)
    if segments is not None:
        q = torch.tensor([[0, 0, 0, 5], [7, 0, 4, 500], [9, 3, 13, 1000]], device=device)
    selection = cgsv_ext.select(u, q, segments=segments)
    w = oracle.normal(3, 1020, seed=1, dtype=dtype).to(device)
    expected = added(w, u, Ranks(u, segments).keep(q), 0.3)
    shapes = [(1020,), (20, 51), (3, 17, 20)]
    tensors = [row.clone().view(shape) for row, shape in zip(w, shapes, strict=True)]
    parameters = tuple(nn.Parameter(row.clone()) for row in tensors)
    for rows in (tensors, parameters, w):
        cgsv_ext.download_(rows, u, selection, segments=segments, scale=0.3)
        assert_same_bits(torch.stack([row.detach().flatten() for row in rows]), expected)


@dtypes
def test_one_agent_alone_in_a_list(device: torch.device, dtype: torch.dtype) -> None:
    u = hard("normal", 30, oracle.aggregate_dtype(dtype)).to(device)
    w = oracle.normal(5, 6, dtype=dtype).to(device)
    expected = added(w.flatten(), u, Ranks(u).keep(torch.tensor([11]))[0], 1.0).view(5, 6)
    cgsv_ext.download_([w], u, cgsv_ext.select(u, torch.tensor([11], device=device)))
    assert_same_bits(w, expected)


@dtypes
def test_adding_to_zero_is_downloading(device: torch.device, dtype: torch.dtype) -> None:
    u = hard("normal", 3001, oracle.aggregate_dtype(dtype)).to(device)
    selection = cgsv_ext.select(u, some_quotas(3001, 3).to(device))
    w = torch.zeros(len(selection.magnitude), 3001, dtype=dtype, device=device)
    cgsv_ext.download_(w, u, selection)
    assert_same_bits(w, cgsv_ext.download(u, selection, dtype=dtype))


@aggregate_dtypes
def test_product_and_sum_are_rounded_separately(device: torch.device, aggregate_dtype: torch.dtype) -> None:
    """(1 + ε)² − 1 − 2ε is ε² if fused and 0 if the product is rounded first."""
    eps = torch.finfo(aggregate_dtype).eps
    u = torch.full((100,), 1 + eps, dtype=aggregate_dtype, device=device)
    w = torch.full((1, 100), -1 - 2 * eps, dtype=aggregate_dtype, device=device)
    cgsv_ext.download_(w, u, cgsv_ext.select(u, torch.tensor([100], device=device)), scale=1 + eps)
    assert w.tolist() == [[0.0] * 100]


# selections that no quota gives


@aggregate_dtypes
@pytest.mark.parametrize(
    ("magnitude", "last_index", "kept"),
    [
        (3.0, 2**63 - 1, [0, 0, 3, 4, math.inf, math.nan]),
        (2.5, -1, [0, 0, 3, 4, math.inf, math.nan]),
        (-2.5, -1, [1, 2, 3, 4, math.inf, math.nan]),
        (math.inf, 4, [0, 0, 0, 0, math.inf, math.nan]),
        (math.inf, -1, [0, 0, 0, 0, 0, 0]),
    ],
)
def test_a_selection_means_what_its_formula_says(
    device: torch.device,
    aggregate_dtype: torch.dtype,
    magnitude: float,
    last_index: int,
    kept: list[float],
) -> None:
    u = torch.tensor([1, 2, 3, 4, math.inf, math.nan], dtype=aggregate_dtype, device=device)
    selection = Selection(
        torch.tensor([magnitude], dtype=aggregate_dtype, device=device),
        torch.tensor([last_index], device=device),
    )
    expected = torch.tensor([kept], dtype=aggregate_dtype, device=device)
    assert_same_bits(cgsv_ext.download(u, selection), expected)
    assert_same_bits(cgsv_ext.reference.download(u, selection), expected)


@pytest.mark.cpu_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=oracle.name)
def test_out_may_lie_at_any_address(dtype: torch.dtype) -> None:
    n, d = 4, 1_100_003
    size = torch.empty((), dtype=dtype).element_size()
    memory = bytearray(n * d * size + 1)
    out = torch.frombuffer(memory, dtype=dtype, offset=1, count=n * d).view(n, d)
    u = oracle.normal(d)
    selection = cgsv_ext.select(u, torch.tensor([d, d // 2, 7, 0]))
    cgsv_ext.download(u, selection, out=out)
    assert_same_bits(out.clone(), cgsv_ext.download(u, selection, dtype=dtype))
