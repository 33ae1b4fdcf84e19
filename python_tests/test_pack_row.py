"""Parts packed into a row: what is written, its norm, and what is refused."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import DTYPES, assert_same_bits
from torch import Tensor, nn

import cgsv_ext
from cgsv_ext import reference

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)
HALVES = [torch.bfloat16, torch.float16]


def parts_of(sizes: list[int], types: list[torch.dtype], seed: int, device: torch.device) -> list[Tensor]:
    """Parts of these sizes, their dtypes in turn, on addresses that are aligned to their elements only."""
    found = []
    for k, size in enumerate(sizes):
        values = oracle.normal(size + 3, seed=seed + k).to(types[k % len(types)]).to(device)
        found.append(values[k % 3 : k % 3 + size])
    return found


def assert_norm_of(row: Tensor, norm: Tensor) -> None:
    """The bits that `norms` gives for the row alone and among others."""
    assert (norm.dtype, norm.shape, norm.device) == (torch.float64, (), row.device)
    assert_same_bits(norm, cgsv_ext.norms(row[None])[0])
    if row.numel() < 50_000:
        among = torch.stack([row.roll(1), row, row * 2])
        assert_same_bits(norm, cgsv_ext.norms(among)[1])
        assert_same_bits(norm, cgsv_ext.norms([*among[:2].clone(), *among])[1])


SIZES = st.lists(st.integers(0, 90) | st.sampled_from([31, 32, 33, 2047, 2048, 2049]), max_size=12)


@dtypes
@settings(max_examples=40)
@given(
    sizes=SIZES.filter(any),
    types=st.lists(st.sampled_from(DTYPES), min_size=1, max_size=4),
    offset=st.integers(0, 3),
    seed=st.integers(0, 10**6),
)
def test_any_split_and_any_dtypes(
    device: torch.device,
    dtype: torch.dtype,
    sizes: list[int],
    types: list[torch.dtype],
    offset: int,
    seed: int,
) -> None:
    parts = parts_of(sizes, types, seed, device)
    around = torch.full((sum(sizes) + 8,), 7.0, dtype=dtype, device=device)
    row, expected = around[offset : offset + sum(sizes)], torch.empty_like(around[8:])
    norm = cgsv_ext.pack_row_(row, parts)
    oracle_norm = reference.pack_row_(expected, parts)
    assert_same_bits(row, expected)
    torch.testing.assert_close(norm, oracle_norm, rtol=1e-6, atol=0)
    assert_norm_of(row, norm)
    assert (around[:offset] == 7).all()
    assert (around[offset + sum(sizes) :] == 7).all()


@dtypes
def test_the_split_leaves_no_trace(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.normal(300_011).to(dtype).to(device)
    row = torch.empty_like(x)
    norm = cgsv_ext.pack_row_(row, x)
    assert_norm_of(row, norm)
    for cuts in ([1], [131_072], [131_071, 131_073], [5, 6, 7, 2048, 200_001], list(range(100, 300_000, 97))):
        sizes = [b - a for a, b in zip([0, *cuts], [*cuts, 300_011], strict=True)]
        row.fill_(7)
        assert_same_bits(cgsv_ext.pack_row_(row, x.split(sizes)), norm)
        assert_same_bits(row, x)


def test_rows_of_a_matrix_are_packed_in_place(device: torch.device) -> None:
    matrix = torch.zeros(3, 5003, device=device)
    parts = parts_of([5000, 3], DTYPES, 0, device)
    norms = torch.stack(
        [cgsv_ext.pack_row_(row, [part * (i + 1) for part in parts]) for i, row in enumerate(matrix)]
    )
    assert_same_bits(norms, cgsv_ext.norms(matrix))
    step = cgsv_ext.reward_step(matrix, torch.zeros(3, device=device))
    assert_same_bits(cgsv_ext.reward_step(matrix, torch.zeros(3, device=device), norms=norms), step)


@pytest.mark.parametrize("dtype", HALVES, ids=oracle.name)
def test_float64_is_rounded_to_a_half_type_once(device: torch.device, dtype: torch.dtype) -> None:
    """Beside the middle of two halves, too near for float32 to tell it from the middle."""
    unit = torch.finfo(dtype).eps
    beside = [1 + unit / 2 + 2.0**-40, 1 + 3 * unit / 2 - 2.0**-40]
    x = torch.tensor([*beside, *(-v for v in beside)], dtype=torch.float64, device=device)
    row = torch.empty(4, dtype=dtype, device=device)
    cgsv_ext.pack_row_(row, x)
    assert row.tolist() == [1 + unit, 1 + unit, -1 - unit, -1 - unit]
    assert not torch.equal(row, x.to(dtype))  # or `to` would do, in `reference`, too


@settings(max_examples=300)
@given(x=st.floats(allow_nan=False) | st.floats(-70_000, 70_000) | st.floats(-1e-7, 1e-7))
def test_float64_becomes_the_float16_of_python(device: torch.device, x: float) -> None:
    row = torch.empty(1, dtype=torch.float16, device=device)
    cgsv_ext.pack_row_(row, torch.tensor([x], dtype=torch.float64, device=device))
    try:
        expected = struct.unpack("e", struct.pack("e", x))[0]
    except OverflowError:
        expected = math.copysign(math.inf, x)
    assert row.tolist() == [expected]
    assert math.copysign(1, row.item()) == math.copysign(1, x)


@dtypes
@pytest.mark.parametrize("source", DTYPES, ids=oracle.name)
def test_what_is_not_finite_arrives_and_shows_in_the_norm(
    device: torch.device, dtype: torch.dtype, source: torch.dtype
) -> None:
    x = torch.tensor([1.0, math.inf, -0.0, -math.inf], dtype=source, device=device)
    row = torch.empty(4, dtype=dtype, device=device)
    assert cgsv_ext.pack_row_(row, x).item() == math.inf
    assert row.tolist() == x.tolist()
    assert row.signbit().tolist() == x.signbit().tolist()
    x[0] = math.nan
    norm = cgsv_ext.pack_row_(row, x.split(1))
    assert norm.isnan()
    assert row.isnan().tolist() == [True, False, False, False]
    assert_norm_of(row, norm)


@pytest.mark.parametrize(("source", "dtype"), [(torch.float32, t) for t in (torch.float16, torch.float32)])
def test_what_overflows_is_infinite_in_row_and_norm(
    device: torch.device, source: torch.dtype, dtype: torch.dtype
) -> None:
    row = torch.empty(2, dtype=dtype, device=device)
    norm = cgsv_ext.pack_row_(row, torch.tensor([70_000.0, 3.0], dtype=source, device=device))
    expected = math.inf if dtype == torch.float16 else math.hypot(70_000, 3)
    assert norm.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.cpu_kernels
@dtypes
def test_any_number_of_threads(dtype: torch.dtype) -> None:
    parts = parts_of([100_003, 1, 0, 299_999, *[3] * 500, 170_001], DTYPES, 0, torch.device("cpu"))
    row = torch.empty(sum(p.numel() for p in parts), dtype=dtype)
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        row.fill_(7)
        results.append((cgsv_ext.pack_row_(row, parts), row.clone()))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


def test_thousands_of_tiny_parts(device: torch.device) -> None:
    x = oracle.normal(4001).to(device)
    row = torch.empty_like(x)
    norm = cgsv_ext.pack_row_(row, x.split(1))
    assert_same_bits(row, x)
    assert_norm_of(row, norm)


@dtypes
def test_nothing_packs_to_nothing(device: torch.device, dtype: torch.dtype) -> None:
    row = torch.empty(0, dtype=dtype, device=device)
    for parts in ([], [torch.empty(3, 0, device=device)], torch.empty(0, device=device)):
        assert cgsv_ext.pack_row_(row, parts).item() == 0


def test_a_model_packs(device: torch.device) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(7, 2)).to(device).half()
    parameters = list(model.parameters())
    row = torch.empty(sum(p.numel() for p in parameters), device=device)
    for parts in (parameters, tuple(parameters), nn.ParameterList(parameters)):
        row.fill_(7)
        norm = cgsv_ext.pack_row_(row, parts)
        assert not norm.requires_grad
        assert not row.requires_grad
        assert torch.equal(row, nn.utils.parameters_to_vector(parameters).float())
        assert_norm_of(row, norm)
    state = [t for t in model.state_dict().values() if t.is_floating_point()]
    row = torch.empty(sum(t.numel() for t in state), device=device)
    assert_norm_of(row, cgsv_ext.pack_row_(row, state))


def test_parts_may_share_memory_with_each_other(device: torch.device) -> None:
    x = oracle.normal(40).to(device)
    row = torch.empty(100, device=device)
    cgsv_ext.pack_row_(row, [x, x, x[10:30]])
    assert torch.equal(row, torch.cat([x, x, x[10:30]]))


REFUSED: list[tuple[str, Callable[[Tensor], Any]]] = [
    ("an element too few", lambda memory: [memory[:30], memory[30:59]]),
    ("an element too many", lambda memory: [memory[:30], memory[30:61]]),
    ("an element for nothing", lambda memory: []),
    ("a strided part", lambda memory: [memory[:30], memory[:60:2]]),
    ("a transposed part", lambda memory: [memory[:60].view(6, 10).T]),
    ("an expanded part", lambda memory: [memory[:1].expand(60)]),
    ("the row itself", lambda memory: [memory[60:120]]),
    ("a part that ends in the row", lambda memory: [memory[1:61]]),
    ("a part that begins in the row", lambda memory: [memory[:30], memory[119:149]]),
    ("a part within the row", lambda memory: [memory[:59], memory[90:91]]),
    ("integers", lambda memory: [memory[:30].long(), memory[:30]]),
    ("another device", lambda memory: [memory[:30], memory[:30].to("meta")]),
]


@pytest.mark.parametrize(("why", "parts"), REFUSED, ids=[why for why, _ in REFUSED])
def test_what_is_refused_leaves_the_row_as_it_was(
    device: torch.device, why: str, parts: Callable[[Tensor], Any]
) -> None:
    memory = oracle.normal(180).to(device)
    before, version = memory.clone(), memory._version
    with pytest.raises(ValueError, match=r"^pack_row_\(\): expected (row|parts).*, got .*"):
        cgsv_ext.pack_row_(memory[60:120], parts(memory))
    assert_same_bits(memory, before)
    assert memory._version == version


def test_messages_name_the_part(device: torch.device) -> None:
    row, x = torch.empty(10, device=device), torch.ones(4, device=device)
    for parts, text in [
        ([x, x], r"parts of D = 10 elements in all, got 8"),
        ([x, x, x.long()[:2]], r"parts\[2\] of float64, float32, bfloat16 or float16, got int64"),
        ([x, x[::2], x], r"parts\[1\] to be contiguous, got a strided tensor of shape \(2,\)"),
        ([x, 3], r"parts\[1\] to be a tensor, got int"),
        (x.to("meta"), rf"parts on {device}(:0)?, got one on meta"),
    ]:
        with pytest.raises((ValueError, TypeError), match=r"^pack_row_\(\): expected " + text):
            cgsv_ext.pack_row_(row, parts)
    with pytest.raises(ValueError, match="row not to require grad"):
        cgsv_ext.pack_row_(row.clone().requires_grad_(), x)


def test_a_copy_on_write_twin_keeps_its_values(device: torch.device) -> None:
    row = oracle.normal(60).to(device)
    twin = torch._lazy_clone(row)
    before = twin.clone()
    cgsv_ext.pack_row_(row, torch.ones(60, device=device))
    assert_same_bits(twin, before)
    assert (row == 1).all()


def test_packing_compiles_without_a_break(device: torch.device) -> None:
    def upload(row: Tensor, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
        norm = cgsv_ext.pack_row_(row, [part * 2 for part in parts])
        return norm, row / norm

    parts = parts_of([30, 0, 100], DTYPES, 0, device)
    for dynamic in (False, True):
        row, expected = torch.zeros(130, device=device), torch.zeros(130, device=device)
        torch._dynamo.reset()
        got = torch.compile(upload, fullgraph=True, backend="aot_eager", dynamic=dynamic)(row, parts)
        assert_same_bits(got, upload(expected, parts))
        assert_same_bits(row, expected)
    torch._dynamo.reset()
