"""Same inputs, same bits: whatever the number of threads, the instruction set or the run."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
from oracle import AGGREGATE_DTYPES, DTYPES, assert_same_bits
from torch import Tensor

import cgsv_ext
from cgsv_ext import shapley

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)
THREADS = [1, 2, 5]
LARGE = 50_003 if "CGSV_SIMT_LIBRARY" in os.environ else 200_003
ops = torch.ops.cgsv_ext


def valuation(x: Tensor, r: Tensor) -> tuple[Any, ...]:
    """All values of `cgsv_ext.shapley`; the exact ones of no more than 20 agents."""
    x, r = x[:20], r[:20]
    gram = cgsv_ext.gram(x)
    options = {"permutations": 50, "generator": oracle.generator(0)}
    return (
        *(f(weights=r, gram=gram) for f in (shapley.exact, shapley.banzhaf, shapley.leave_one_out)),
        shapley.approximate(x, r),
        shapley.approximate(weights=r, gram=gram),
        shapley.sampled(weights=r, gram=gram, **options)[:2],
    )


def counts(u: Tensor) -> tuple[Tensor, ...]:
    """Of the leading digit, and of the next one under some prefixes."""
    bits = 31 if u.dtype == torch.float32 else 63
    first = ops.histogram(u, torch.zeros(1, dtype=torch.int64, device=u.device), bits - 11, 11, None)
    return first, ops.histogram(u, first[0].argsort(stable=True)[-30:], bits - 21, 10, None)


def everything(x: Tensor, r: Tensor, segments: list[int] | None = None) -> tuple[Any, ...]:
    """All ops on these updates."""
    step = cgsv_ext.reward_step(x, r, segments=segments)
    norms = cgsv_ext.norms(x)
    aggregation = cgsv_ext.aggregate(x, r, gamma=0.5)
    selection = cgsv_ext.select(step.aggregate, step.quotas, segments=segments)
    rewards = cgsv_ext.download(step.aggregate, selection, segments=segments, dtype=x.dtype)
    w = x.clone()
    cgsv_ext.download_(w, step.aggregate, selection, segments=segments, scale=0.3)
    row = torch.empty_like(x[0])
    packed = cgsv_ext.pack_row_(row, [x[0, :7], x[-1, 7:]])
    partial = (
        ops.partial_norms([x]),
        *ops.partial_aggregate([x], r, 0.5, norms),
        ops.partial_dots([x], step.aggregate),
        *counts(step.aggregate),
    )
    return (
        step,
        norms,
        row,
        packed,
        partial,
        aggregation,
        selection,
        rewards,
        w,
        cgsv_ext.gram(x),
        valuation(x, r),
    )


@pytest.mark.cpu_kernels
@dtypes
@pytest.mark.parametrize("segments", [None, [100_003, 0, 7, 200_001]], ids=["whole", "segments"])
def test_any_number_of_threads(dtype: torch.dtype, segments: list[int] | None) -> None:
    x = oracle.updates_of("alike", 7, 300_011, dtype, 0)
    r = torch.rand(7, generator=oracle.generator(0))
    results = []
    for threads in THREADS:
        torch.set_num_threads(threads)
        results.append(everything(x, r, segments))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@pytest.mark.cpu_kernels
@pytest.mark.parametrize("dtype", AGGREGATE_DTYPES, ids=oracle.name)
@pytest.mark.parametrize("kind", ["few values", "one bin", "one bin, few values", "half zeros", "nan"])
def test_any_number_of_threads_selects_the_same(dtype: torch.dtype, kind: str) -> None:
    u = oracle.hard(kind, 1_200_011, dtype)
    q = oracle.some_quotas(1_200_011, 30)
    results = []
    for threads in THREADS:
        torch.set_num_threads(threads)
        results.append(cgsv_ext.select(u, q))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@dtypes
def test_any_run(device: torch.device, dtype: torch.dtype) -> None:
    x = oracle.updates_of("alike", 5, LARGE, dtype, 0).to(device)
    r = torch.rand(5, generator=oracle.generator(0)).to(device)
    first = everything(x, r)
    for _ in range(3):
        assert_same_bits(everything(x, r), first)


def test_calls_from_several_python_threads() -> None:
    x = oracle.updates_of("alike", 5, LARGE, torch.float32, 0)
    r = torch.rand(5, generator=oracle.generator(0))
    expected = everything(x, r)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: everything(x, r), range(8)):
            assert_same_bits(got, expected)


# Instruction sets: each is a process of its own, since a process chooses once.


def cases() -> Iterator[tuple[str, tuple[Any, ...]]]:
    for dtype in DTYPES:
        for n, d, kind in (
            (1, 1, "alike"),
            (3, 37, "scaled"),
            (5, 5003, "alike"),
            (6, 5003, "scaled"),
            (7, 2050, "integers"),
            (6, 700, "rubbish"),
            (9, 131_101, "alike"),
            (19, 300, "alike"),
            (40, 700, "normal"),
        ):
            x = oracle.updates_of(kind, n, d, dtype, d)
            if kind == "rubbish":
                x[1, 3], x[2, 699], x[4] = math.inf, math.nan, 0
            r = torch.rand(n, generator=oracle.generator(n))
            for segments in (None, [d // 3, 0, d - d // 3]):
                yield f"{oracle.name(dtype)} {n}x{d} {kind} {segments}", everything(x, r, segments)
    for source in DTYPES:  # any bits, those of signalling NaNs, too
        bits = torch.randint(-(2**63), 2**63 - 1, (40_003,), generator=oracle.generator(0)).view(source)
        for dtype in DTYPES:
            row = torch.empty_like(bits, dtype=dtype)
            norm = cgsv_ext.pack_row_(row, bits.split([7, len(bits) - 7]))
            yield f"{oracle.name(source)} to {oracle.name(dtype)}", (row, norm)
    for dtype in AGGREGATE_DTYPES:
        for kind in oracle.HARD:
            u = oracle.hard(kind, 9_011, dtype)
            if "nan" in kind:  # with payloads in all of its bits
                oracle.bits(u)[::97] += 0x123457 << (0 if dtype == torch.float32 else 27)
            selection = cgsv_ext.select(u, oracle.some_quotas(9_011, 20))
            rewards = tuple(cgsv_ext.download(u, selection, dtype=to) for to in DTYPES)
            added = tuple(oracle.normal(29, 9_011).to(to) for to in DTYPES)
            for w in added:
                w[:, ::7] = math.inf
                w[:, 1::7] = math.nan
                cgsv_ext.download_(w, u, selection, scale=0.3)
            yield f"{oracle.name(dtype)} {kind}", (selection, rewards, added)
    for dtype in AGGREGATE_DTYPES:
        for kind in ("one bin", "one bin, few values", "half zeros"):
            u = oracle.hard(kind, 1_200_011, dtype)
            yield f"large {oracle.name(dtype)} {kind}", cgsv_ext.select(u, oracle.some_quotas(1_200_011, 20))


def digest(results: Any) -> str:
    """Checksums of all tensors in nested tuples."""
    if isinstance(results, tuple):
        return " ".join(digest(part) for part in results)
    return f"{zlib.crc32(oracle.bits(results).numpy().tobytes()):08x}"


@pytest.fixture(scope="module")
def hashes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `cases` hash to on each instruction set that this machine has, by its name."""
    here = str(Path(__file__).parent)
    script = (
        "import os, sys; sys.path.append(sys.argv[1])\n"
        "import cgsv_ext, test_determinism\n"
        "isa = cgsv_ext.build_info()['isa']; print(isa)\n"
        "for name, results in test_determinism.cases() if isa == os.environ['CGSV_ISA'] else ():\n"
        "    print(name, test_determinism.digest(results))\n"
    )
    cwd = tmp_path_factory.mktemp("isa")
    running = {
        isa: subprocess.Popen(
            [sys.executable, "-c", script, here],
            env=os.environ | {"CGSV_ISA": isa},
            cwd=cwd,
            stdout=subprocess.PIPE,
            text=True,
        )
        for isa in cgsv_ext.build_info()["isas_compiled"]
    }
    found = {}
    for isa, process in running.items():
        chosen, _, results = process.communicate()[0].partition("\n")
        assert process.returncode == 0, isa
        if chosen == isa:  # or it is not for this machine
            found[isa] = results
    return found


@pytest.mark.cpu_kernels
def test_the_environment_chooses_the_instruction_set(hashes: dict[str, str]) -> None:
    assert "baseline" in hashes
    best = cgsv_ext.build_info()["isa"] if "CGSV_ISA" not in os.environ else next(iter(hashes))
    assert next(iter(hashes)) == best


@pytest.mark.cpu_kernels
def test_any_instruction_set(hashes: dict[str, str]) -> None:
    if len(hashes) < 2:
        pytest.skip("this machine has one instruction set only")
    baseline = hashes["baseline"].splitlines()
    for isa, results in hashes.items():
        differing = [a for a, b in zip(results.splitlines(), baseline, strict=True) if a != b]
        assert differing == [], isa
