"""The GPU against the CPU: equal where the arithmetic is exact, else within the promised bounds."""

from __future__ import annotations

import math
from typing import Any

import gpu
import oracle
import partial_reference
import pytest
import torch
from oracle import AGGREGATE_DTYPES, DTYPES, assert_same_bits, assert_same_but_nans, assert_same_selection
from torch import Tensor

import cgsv_ext

pytestmark = gpu.needs_cuda
ops = torch.ops.cgsv_ext
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)
aggregates = pytest.mark.parametrize("dtype", AGGREGATE_DTYPES, ids=oracle.name)


def cuda(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.cuda()
    return type(value)(*map(cuda, value)) if isinstance(value, cgsv_ext.Selection) else value


def cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.cpu()
    return type(value)(*map(cpu, value)) if isinstance(value, cgsv_ext.Selection) else value


@aggregates
@pytest.mark.parametrize("kind", oracle.HARD)
@pytest.mark.parametrize("d", [1, 33, 5_003, 300_007, 1_200_011])
def test_a_selection_from_the_same_aggregate_is_equal(kind: str, d: int, dtype: torch.dtype) -> None:
    u, q = oracle.hard(kind, d, dtype), oracle.some_quotas(d, 30)
    assert_same_selection(cpu(cgsv_ext.select(u.cuda(), q.cuda())), cgsv_ext.select(u, q))


@aggregates
@pytest.mark.parametrize("sizes", [[7, 0, 1, 299_999], [1] * 1000, [4096] * 50, [100_003, 100_001]])
def test_a_selection_in_segments_is_equal(sizes: list[int], dtype: torch.dtype) -> None:
    d = sum(sizes)
    u = oracle.hard("half precision", d, dtype)
    share = torch.rand(9, len(sizes), generator=oracle.generator(0), dtype=torch.float64)
    q = (share * 1.1 * torch.tensor(sizes)).long()
    got = cpu(cgsv_ext.select(u.cuda(), q.cuda(), segments=sizes))
    assert_same_selection(got, cgsv_ext.select(u, q, segments=sizes))


@dtypes
@pytest.mark.parametrize("kind", ["normal", "few values", "many bins", "infinite", "nan", "half zeros"])
def test_downloads_have_the_same_bits(kind: str, dtype: torch.dtype) -> None:
    d = 300_007
    u, q = oracle.hard(kind, d, torch.float32), oracle.some_quotas(d, 12)
    selection = cgsv_ext.select(u, q)
    got = cgsv_ext.download(u.cuda(), cuda(selection), dtype=dtype)
    assert_same_but_nans(got.cpu(), cgsv_ext.download(u, selection, dtype=dtype))

    w = oracle.normal(len(q), d, dtype=dtype)
    w_cuda = w.cuda()
    cgsv_ext.download_(w_cuda, u.cuda(), cuda(selection), scale=0.3)
    cgsv_ext.download_(w, u, selection, scale=0.3)
    assert_same_but_nans(w_cuda.cpu(), w)


@dtypes
@pytest.mark.parametrize("source", DTYPES, ids=oracle.name)
def test_packed_rows_have_the_same_bits(source: torch.dtype, dtype: torch.dtype) -> None:
    x = (oracle.normal(300_007, dtype=torch.float64) * 3).to(source)
    for scale in (1, 1e5):  # the second overflows float16
        parts = (x * scale).split([1, 0, 4, *[3] * 1000, 297_002])
        row, there = torch.empty(len(x), dtype=dtype), torch.empty(len(x), dtype=dtype).cuda()
        norm = cgsv_ext.pack_row_(row, parts)
        norm_there = cgsv_ext.pack_row_(there, [part.cuda() for part in parts])
        assert_same_bits(there.cpu(), row)
        torch.testing.assert_close(norm_there.cpu(), norm, rtol=1e-6, atol=0)
        assert_same_bits(norm_there, cgsv_ext.norms(there[None])[0])
        assert_same_bits(norm_there, cgsv_ext.norms(torch.stack([there, there * 2]))[0])


@pytest.mark.parametrize("kind", ["normal", "half zeros", "nan", "one bin, few values", "all equal"])
@aggregates
def test_counts_are_the_same(kind: str, dtype: torch.dtype) -> None:
    d, parts = 300_007, [100_000, 0, 7, 200_000]
    u, bits = oracle.hard(kind, d, dtype), 31 if dtype == torch.float32 else 63
    keys = partial_reference.keys(u)[:: d // 50]
    for shift, prefixes, segments in (
        (bits - 11, keys[:1] * 0, None),
        (bits - 21, keys >> (bits - 11), None),
        (bits - 31, (keys >> (bits - 21))[:, None].repeat(1, 4), parts),
        (0, keys >> 10, None),
    ):
        width = 11 if shift == bits - 11 else 10
        want = ops.histogram(u, prefixes, shift, width, segments)
        assert_same_bits(ops.histogram(u.cuda(), prefixes.cuda(), shift, width, segments).cpu(), want)


@dtypes
def test_sums_of_columns_agree(dtype: torch.dtype) -> None:
    x = oracle.updates_of("alike", 7, 300_007, dtype, 0)
    r, norms = torch.rand(7, generator=oracle.generator(0)), cgsv_ext.norms(x)
    squares = ops.partial_norms([x.cuda()])
    torch.testing.assert_close(squares.cpu(), ops.partial_norms([x]), rtol=1e-6, atol=0)
    want = ops.partial_aggregate([x], r, 0.5, norms)
    got = ops.partial_aggregate([x.cuda()], r.cuda(), 0.5, norms.cuda())
    torch.testing.assert_close(got[0].cpu(), want[0], rtol=1e-5, atol=1e-6 * float(want[0].abs().max()))
    lengths = torch.cat([norms, want[1][-1:].sqrt()]) * want[1][-1].sqrt()
    assert ((got[1].cpu() - want[1]).abs() <= 1e-6 * lengths).all()
    products = ops.partial_dots([x.cuda()], want[0].cuda()).cpu()
    assert ((products - ops.partial_dots([x], want[0])).abs() <= 1e-6 * lengths[:-1]).all()


@dtypes
@pytest.mark.parametrize(
    ("n", "d"),
    [
        (1, 1),
        (1, 100_003),
        (2, 300_007),
        (7, 65_537),
        (10, 104_242),
        (13, 50_021),
        (33, 20_011),
        (129, 5_003),
        (1000, 1_009),
        (4096, 67),
    ],
)
@pytest.mark.parametrize("kind", ["alike", "scaled"])
def test_a_round_agrees_with_the_cpu(kind: str, n: int, d: int, dtype: torch.dtype) -> None:
    x = oracle.updates_of(kind, n, d, dtype, 0)
    r = torch.rand(n, generator=oracle.generator(0), dtype=torch.float64)
    want, got = cgsv_ext.reward_step(x, r), cgsv_ext.reward_step(x.cuda(), r.cuda())

    torch.testing.assert_close(got.norms.cpu(), want.norms, rtol=1e-6, atol=0)
    torch.testing.assert_close(got.cosines.cpu(), want.cosines, rtol=0, atol=1e-6)
    torch.testing.assert_close(got.importance.cpu(), want.importance, rtol=0, atol=1e-6)
    assert torch.equal(got.valid.cpu(), want.valid)
    spread = (r / want.norms * 0.5) @ x.double().abs()
    assert ((got.aggregate.cpu() - want.aggregate).abs() <= 1e-6 * spread + 2e-45).all()

    # What follows from the GPU's own importance and aggregate is exact, but for the last bit of tanh.
    quotas = cgsv_ext.quotas(got.importance.cpu(), d)
    assert (got.quotas.cpu() - quotas).abs().max() <= 1
    assert got.quotas.max() == d
    u = got.aggregate.cpu()
    selection = cgsv_ext.select(u, got.quotas.cpu())
    assert_same_selection(cpu(got.selection), selection)
    assert got.rewards is not None
    assert_same_bits(got.rewards.cpu(), cgsv_ext.download(u, selection, dtype=dtype))


@dtypes
@pytest.mark.parametrize("n", [2, 5, 10, 31])
def test_bits_do_not_depend_on_where_rows_lie(n: int, dtype: torch.dtype) -> None:
    """Aligned, misaligned by one to three elements, misaligned in turn, or each on its own."""
    d = 40_003
    x, r, _ = gpu.inputs(n, d, dtype)
    aligned = torch.empty(n, d + 13, dtype=dtype, device="cuda")[:, :d].copy_(x)
    expected = cgsv_ext.reward_step(aligned, r)
    assert expected.rewards is not None
    for offset, stride in ((0, d), (1, d + 13), (2, d + 5), (3, d + 1), (0, d + 4)):
        there = torch.zeros(offset + n * stride, dtype=dtype, device="cuda")[offset:].as_strided(
            (n, d), (stride, 1)
        )
        there.copy_(x)
        assert_same_bits(cgsv_ext.reward_step(there, r), expected)
        assert_same_bits(cgsv_ext.reward_step(list(there), r), expected)
        out = torch.zeros(offset + n * d, dtype=dtype, device="cuda")[offset:].view(n, d)
        assert_same_bits(cgsv_ext.reward_step(x, r, out=out), expected)
        w = there.clone()
        cgsv_ext.download_(there, expected.aggregate, expected.selection)
        cgsv_ext.download_(w, expected.aggregate, expected.selection)
        assert_same_bits(there.contiguous(), w)


@dtypes
def test_agents_with_equal_updates_get_equal_bits(dtype: torch.dtype) -> None:
    x, r, _ = gpu.inputs(37, 30_011, dtype)
    x[5], x[17], x[36] = x[0], x[0], x[0]
    r[5], r[17], r[36] = r[0], r[0], r[0]
    step = cgsv_ext.reward_step(x, r)
    assert step.rewards is not None
    for per_agent in (step.norms, step.cosines, step.importance, step.quotas, *step.selection, step.rewards):
        for i in (5, 17, 36):
            assert_same_bits(per_agent[i : i + 1], per_agent[:1])


@dtypes
def test_degenerate_agents_take_no_part(dtype: torch.dtype) -> None:
    x, r, _ = gpu.inputs(6, 70_001, dtype)
    x[1], x[2, 69_999], x[3, 0] = 0, math.nan, math.inf
    step = cgsv_ext.reward_step(x, r)
    assert step.valid.tolist() == [True, False, False, False, True, True]
    rest = [0, 4, 5]
    alone = cgsv_ext.reward_step(x[rest], r[rest])
    torch.testing.assert_close(step.aggregate, alone.aggregate)
    assert step.rewards is not None
    assert all(bool(t.isfinite().all()) for t in (step.rewards, step.cosines, step.importance))
