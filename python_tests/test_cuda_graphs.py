"""Calls captured in CUDA graphs: what a replay computes, and how few nodes it takes."""

from __future__ import annotations

from typing import Any

import gpu
import oracle
import pytest
import torch
from cuda_graph import capture, nodes
from gpu import Call, copied, each_call, each_step, inputs
from oracle import assert_same_bits

import cgsv_ext

pytestmark = gpu.needs_cuda
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=oracle.name)


@dtypes
@each_call
def test_a_replay_computes_what_a_call_computes(call: Call, dtype: torch.dtype) -> None:
    x, r, w = inputs(dtype=dtype)
    expected = copied(call(x, r, w))
    graph, results = capture(lambda: call(x, r, w))
    for _ in range(3):
        w.fill_(7)
        graph.replay()
        assert_same_bits(copied(results), expected)


@each_call
def test_a_replay_reads_its_inputs_anew(call: Call) -> None:
    x, r, w = inputs()
    graph, results = capture(lambda: call(x, r, w))
    for seed in (1, 2):
        x_new, r_new, w_new = inputs(seed=seed)
        x.copy_(x_new)
        r.copy_(r_new)
        graph.replay()
        got = copied(results)
        assert_same_bits(got, copied(call(x_new, r_new, w_new)))


@each_step
def test_a_replay_needs_nothing_of_the_host_that_captured(call: Call) -> None:
    """Lists of rows and segments are gone by the time of the replay."""
    x, r, w = inputs(n=70)
    expected = copied(call(x, r, w))
    graph, results = capture(lambda: call(x, r, w))
    rubbish = [torch.full((1 << 16,), 0x5A5A5A5A5A5A5A5A, dtype=torch.int64) for _ in range(100)]
    graph.replay()
    assert_same_bits(copied(results), expected)
    assert len(rubbish) == 100


def test_rounds_chain_in_one_graph() -> None:
    """Five rounds, each on the importance of the one before, and the parameters' update."""

    def rounds(x: torch.Tensor, r: torch.Tensor, w: torch.Tensor) -> Any:
        w.zero_()
        for _ in range(5):
            step = cgsv_ext.reward_step(x, r, dense=False)
            cgsv_ext.download_(w, step.aggregate, step.selection)
            r = step.importance
        return w, r

    x, r, w = inputs()
    expected = copied(rounds(x, r, w))
    graph, results = capture(lambda: rounds(x, r, w))
    graph.replay()
    assert_same_bits(copied(results), expected)


SHAPES = [(2, 16), (5, 21_840), (10, 104_242), (10, 1_000_000), (10, 999_989), (100, 50_000), (1000, 5_000)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=oracle.name)
@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("variant", ["dense", "dense=False", "norms="])
def test_a_step_takes_at_most_six_nodes(variant: str, n: int, d: int, dtype: torch.dtype) -> None:
    x, r = gpu.normal(n, d, dtype)
    options: dict[str, Any] = {
        "dense": {"out": torch.empty_like(x)},
        "dense=False": {"dense": False},
        "norms=": {"out": torch.empty_like(x), "norms": cgsv_ext.norms(x)},
    }[variant]
    graph, _ = capture(lambda: cgsv_ext.reward_step(x, r, **options))
    found = nodes(graph)
    assert len(found) <= 6, found
    assert set(found) <= {"kernel", "memset"}
