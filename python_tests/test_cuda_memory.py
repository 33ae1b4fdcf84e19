"""How much of the GPU's memory a step takes, and vectors longer than 32-bit indices reach."""

from __future__ import annotations

from collections.abc import Iterator

import gpu
import oracle
import pytest
import torch
from torch import Tensor

import cgsv_ext

pytestmark = gpu.needs_cuda

MB = 10**6


def _extra(x: Tensor, r: Tensor, out: Tensor | None) -> int:
    """Bytes at the peak of a step above what was allocated before; the aggregate counts."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    cgsv_ext.reward_step(x, r, out=out, dense=out is not None)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=oracle.name)
@pytest.mark.parametrize("kind", ["normal", "one bin", "half zeros", "all equal"])
@pytest.mark.parametrize("dense", [True, False])
def test_a_step_takes_four_bytes_a_column_and_64_mb(kind: str, dtype: torch.dtype, dense: bool) -> None:
    n, d = 3, 40_000_000
    x = oracle.hard(kind, d // 40, torch.float32).cuda().to(dtype).repeat(n, 40)
    extra = _extra(x, torch.ones(n, device="cuda"), torch.empty_like(x) if dense else None)
    assert 4 * d <= extra <= 4 * d + 64 * MB


@pytest.mark.parametrize(("n", "d"), [(1000, 100_003), (4096, 10_007)])
def test_many_agents_take_no_more(n: int, d: int) -> None:
    x, r = gpu.normal(n, d)
    assert _extra(x, r, torch.empty_like(x)) <= 4 * d + 64 * MB


def test_a_step_leaves_nothing_allocated_but_its_results() -> None:
    x, r, _ = gpu.inputs()
    cgsv_ext.reward_step(x, r)
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        cgsv_ext.reward_step(x, r, segments=[x.shape[1] - 7, 7])
    assert torch.cuda.memory_allocated() == before


# Beyond 2^31 columns

LONG = (1 << 31) + 1003


@pytest.fixture
def _a_large_gpu() -> Iterator[None]:
    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info()[0] < 30 * LONG:
        pytest.skip(f"needs {30 * LONG / 1e9:.0f} GB of GPU memory")
    yield
    torch.cuda.empty_cache()


@pytest.mark.large
@pytest.mark.usefixtures("_a_large_gpu")
def test_more_than_two_billion_columns() -> None:
    g = torch.Generator("cuda").manual_seed(0)
    x = torch.empty(2, LONG, dtype=torch.bfloat16, device="cuda").normal_(generator=g)
    x[1].mul_(3)
    x[:, -1] = 64  # the largest of all, at the very end
    r = torch.tensor([0.7, 0.3], device="cuda")
    step = cgsv_ext.reward_step(x, r)
    assert step.rewards is not None
    quotas, magnitude, last_index = step.quotas.tolist(), *(t.tolist() for t in step.selection)
    assert max(quotas) == LONG
    assert all(0 < q <= LONG for q in quotas)

    kept, squares, dots = [0, 0], [0.0, 0.0], [0.0, 0.0]
    length, part = 0.0, 1 << 27
    for start in range(0, LONG, part):
        here = slice(start, min(start + part, LONG))
        u, j = step.aggregate[here], torch.arange(here.start, here.stop, device="cuda")
        length += float(u.double().square().sum())
        for i in range(2):
            row = x[i, here].double()
            squares[i] += float(row.square().sum())
            dots[i] += float(row @ u.double())
            keep = (u.abs() > magnitude[i]) | ((u.abs() == magnitude[i]) & (j <= last_index[i]))
            kept[i] += int(keep.sum())
            assert torch.equal(step.rewards[i, here], torch.where(keep, u, 0).to(x.dtype))
            del row, keep
    assert kept == quotas
    assert step.norms.tolist() == pytest.approx([s**0.5 for s in squares], rel=1e-6)
    cosines = [dot / (length * square) ** 0.5 for dot, square in zip(dots, squares, strict=True)]
    assert step.cosines.tolist() == pytest.approx(cosines, abs=1e-6)
    assert bool((step.rewards[:, -1] != 0).all())
