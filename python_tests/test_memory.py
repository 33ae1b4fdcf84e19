"""How much memory a step takes beside its inputs and outputs, and that inputs stay what they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
from oracle import DTYPES, assert_same_bits
from torch import Tensor

import cgsv_ext

MIB = 1 << 20

# Peak resident memory of a fresh process over one step, above what it held before. The updates and out are
# touched before, the aggregate counts.
MEASURE = """
import resource, sys
import torch
sys.path.append(sys.argv[1])
import cgsv_ext, oracle
name, kind, n, d, dense = sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6] == "dense"
dtype = getattr(torch, name)
torch.set_num_threads(2)
cgsv_ext.reward_step(torch.randn(2, 200_000), torch.zeros(2))  # threads start, tables are built
x = torch.empty(n, d, dtype=dtype)
for row in x:
    row.copy_(oracle.hard(kind, d // 8, torch.float32).repeat(9)[:d])
out = torch.ones(n, d, dtype=dtype) if dense else None
r = torch.arange(1, n + 1).double()
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
# Fill up to the peak so far, so that any new page shows.
ballast = torch.ones(max(0, peak() - resident()), dtype=torch.uint8)
before = peak()
cgsv_ext.reward_step(x, r, out=out, dense=dense)
print(peak() - before)
"""


@pytest.mark.cpu_kernels
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("dtype", "kind", "n"),
    [
        ("float32", "normal", 3),
        ("float32", "one bin", 3),
        ("float32", "half zeros", 40),
        ("bfloat16", "normal", 3),
    ],
)
def test_a_dense_step_takes_four_bytes_a_column_and_16_mib(
    tmp_path: Path, dtype: str, kind: str, n: int
) -> None:
    d = 1_500_000 if n > 10 else 8_000_000
    command = [
        sys.executable,
        "-c",
        MEASURE,
        str(Path(__file__).parent),
        dtype,
        kind,
        str(n),
        str(d),
        "dense",
    ]
    # Freed memory goes back to the system at once, so that none of it is used again unseen.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    extra = int(subprocess.check_output(command, cwd=tmp_path, env=env, text=True))
    assert 4 * d <= extra + MIB  # the aggregate was seen
    assert extra <= 4 * d + 16 * MIB


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("kind", ["normal", "one bin", "half zeros"])
def test_a_dense_step_on_cuda_takes_no_more(kind: str) -> None:
    n, d = 3, 8_000_000
    x = oracle.hard(kind, d, torch.float32).cuda().repeat(n, 1)
    out = torch.empty_like(x)
    r = torch.ones(n, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    cgsv_ext.reward_step(x, r, out=out)
    assert torch.cuda.max_memory_allocated() - before <= 4 * d + 16 * MIB


def inputs(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in inputs(part)] if isinstance(value, (list, tuple)) else []


@pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)
@pytest.mark.parametrize("listed", [False, True])
def test_no_input_is_written_to(device: torch.device, dtype: torch.dtype, listed: bool) -> None:
    around = oracle.normal(4, 3010, dtype=dtype).to(device)
    around[2, 3] = float("nan")
    x: Any = [row.clone() for row in around[:, 3:3004]] if listed else around[:, 3:3004]
    r = torch.tensor([0.4, float("nan"), 0.2, 0.1], device=device)
    norms = cgsv_ext.norms(x)
    w = torch.zeros(4, 3001, dtype=dtype, device=device)
    step = cgsv_ext.reward_step(x, r)
    quotas = torch.tensor([-1, 0, 5, 9999], device=device)

    held = inputs([x, around, r, norms, quotas, tuple(step)])
    copies = [t.clone() for t in held]
    cgsv_ext.reward_step(x, r, weights=r, norms=norms, out=w)
    cgsv_ext.norms(x)
    rows = x if isinstance(x, list) else [x]
    torch.ops.cgsv_ext.partial_norms(rows)
    u, _ = torch.ops.cgsv_ext.partial_aggregate(rows, r, 0.5, norms)
    torch.ops.cgsv_ext.partial_dots(rows, u)
    torch.ops.cgsv_ext.histogram(step.aggregate, quotas, 10, 10, None)
    cgsv_ext.pack_row_(w[0], [x[1][:0], x[1]])
    cgsv_ext.aggregate(x, r, gamma=0.5, norms=norms)
    cgsv_ext.update_importance(r, step.cosines)
    cgsv_ext.quotas(r, 3001)
    cgsv_ext.select(step.aggregate, quotas)
    cgsv_ext.download(step.aggregate, step.selection, out=w)
    cgsv_ext.download_(w, step.aggregate, step.selection)
    assert_same_bits(tuple(held), tuple(copies))


def test_results_share_no_memory(device: torch.device) -> None:
    x, r = oracle.normal(3, 100).to(device), torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64, device=device)
    norms = cgsv_ext.norms(x)
    step = cgsv_ext.reward_step(x, r, norms=norms)
    row = torch.empty(100, device=device)
    packed = cgsv_ext.pack_row_(row, x[0])
    storages = [t.untyped_storage().data_ptr() for t in inputs([x, r, norms, tuple(step), row, packed])]
    assert len(set(storages)) == len(storages)
