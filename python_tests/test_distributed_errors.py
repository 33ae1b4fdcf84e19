"""What ranks send and when they refuse: counts and bytes, one error on all of them, and ranks that die."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import sharded
import torch
from ranks import Pool

import cgsv_ext
from cgsv_ext.distributed import exchanges

KINDS = {"gather": "allgather_", "sum": "allreduce_"}


@pytest.mark.parametrize(
    ("n", "dtype", "options", "model"),
    [
        (5, torch.float32, {}, {}),
        (5, torch.bfloat16, {"weights": torch.ones(5)}, {"weights": True}),
        (9, torch.float64, {}, {"bits": 64}),
        (3, torch.float32, {"segments": 4, "norms": torch.ones(3)}, {"segments": 4}),
        (1, torch.float64, {"segments": 2}, {"segments": 2, "bits": 64}),
    ],
    ids=["float32", "weights", "float64", "segments", "segments of float64"],
)
def test_what_is_sent_is_what_the_cost_model_says_whatever_the_columns(
    pool: Pool, n: int, dtype: torch.dtype, options: dict[str, Any], model: dict[str, Any]
) -> None:
    expected = exchanges(n, **model)
    for d in (60, 4001):
        for sent, heard, timed in pool(4, sharded.counted, n, d, dtype, "columns", options):
            assert sent == [(KINDS[c.kind], c.bytes) for c in expected]
            assert heard == [tuple(c[:3]) for c in expected]
            assert timed
    assert len(expected) == (9 if dtype == torch.float64 else 7)


@pytest.mark.parametrize(("world", "most"), [(2, 3), (4, 2)])
def test_agents_send_one_aggregate(pool: Pool, world: int, most: int) -> None:
    expected = exchanges(5, columns=700, most=most)
    for sent, heard, _ in pool(world, sharded.counted, 5, 700, torch.float32, "agents", {}):
        assert sent == [(KINDS[c.kind], c.bytes) for c in expected]
        assert heard == [tuple(c[:3]) for c in expected]


def test_bytes_around_a_ring() -> None:
    gather, added = exchanges(10)[0], exchanges(10)[3]
    assert (gather.sent(4), added.sent(4)) == (3 * 1024, 1.5 * 8 * 2**15)
    assert (gather.sent(1), added.sent(1)) == (0, 0)


@pytest.mark.parametrize("what", sharded.MISMATCHES)
def test_a_mismatch_is_the_same_error_on_every_rank(pool: Pool, what: str) -> None:
    text = sharded.MISMATCHES[what][1]
    kind = TypeError if what in ("refused, a type", "refused, nothing") else ValueError
    assert pool.errors(3, sharded.mismatch, what) == [(kind, text)] * 3


def test_ranks_that_call_different_functions(pool: Pool) -> None:
    for op, (kind, text) in zip(
        ["aggregate", "norms"], pool.errors(2, sharded.mismatched_calls), strict=True
    ):
        expected = "expected the same function on every rank, got aggregate on rank 0 and norms on rank 1"
        assert (kind, text) == (ValueError, f"{op}(): {expected}")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"updates": torch.zeros(3, 0)}, "expected D ≥ 1 columns on all ranks together, got 0"),
        ({"updates": torch.zeros(0, 5)}, "expected updates of shape (N, D), N ≥ 1, got (0, 5) (on rank 0)"),
        ({"updates": torch.zeros(0, 5), "dim": "agents"}, "expected N ≥ 1 agents and D ≥ 1, got 0 and 5"),
        (
            {"importance": torch.zeros(2)},
            "expected importance of shape (3,), one entry per agent, got (2,)",
        ),
        (
            {"importance": torch.zeros(3), "dim": "agents"},
            "expected importance of shape (6,), one entry per agent, got (3,)",
        ),
        ({"gamma": 0.0}, "expected gamma to be finite and > 0, got 0 (on rank 0)"),
        ({"beta": -1}, "expected beta to be > 0 (inf is allowed), got -1 (on rank 0)"),
        ({"floor": -1}, "expected floor to be None or finite and ≥ 0, got -1 (on rank 0)"),
        ({"dim": "rows"}, "expected dim to be 'columns' or 'agents', got 'rows' (on rank 0)"),
        (
            {"out": torch.zeros(3, 10), "dense": False},
            "expected no out with dense=False, got one (on rank 0)",
        ),
        (
            {"out": torch.zeros(3, 10).double()},
            "expected out of the updates' dtype float32, got float64 (on rank 0)",
        ),
        ({"updates": [torch.zeros(4), torch.zeros(5)]}, "like updates[0], got 5 of float32 (on rank 0)"),
    ],
)
def test_what_is_wrong_everywhere(pool: Pool, arguments: dict[str, Any], text: str) -> None:
    for kind, got in pool.errors(2, sharded.wrong_everywhere, arguments):
        assert kind is ValueError
        assert got.startswith("reward_step(): expected ")
        assert got.endswith(text)


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        ("select", (torch.zeros(2, 3), torch.ones(2, dtype=torch.int64)), "of shape (D,), got (2, 3)"),
        ("select", (torch.zeros(6), torch.ones(2)), "quotas of int64, got float32 (on rank 0)"),
        (
            "select",
            (torch.zeros(6), torch.ones(2, 1).long()),
            "quotas of shape (N,) without segments=, got (2, 1) (on rank 0)",
        ),
        ("select", (torch.zeros(6).half(), torch.ones(2).long()), "or float64, got float16 (on rank 0)"),
        ("download", (torch.zeros(2, 3), (torch.ones(1), torch.ones(1))), "of shape (D,), got (2, 3)"),
        ("aggregate", (torch.zeros(2, 3), None), "weights to be a tensor, got NoneType (on rank 0)"),
        ("norms", ([],), "updates of at least one agent, got an empty sequence (on rank 0)"),
    ],
)
def test_the_other_functions_refuse_in_the_same_words(
    pool: Pool, function: str, arguments: tuple[Any, ...], text: str
) -> None:
    for kind, got in pool.errors(2, sharded.call, function, arguments):
        assert kind in (ValueError, TypeError)
        assert got.startswith(f"{function}(): expected ")
        assert got.endswith(text)


def test_out_is_of_the_dtype_asked_for_also_where_there_is_no_column(pool: Pool) -> None:
    text = "download(): expected out of the dtype asked for, torch.float64, got torch.float32"
    assert pool.errors(2, sharded.download_into, [3, 0], torch.float64) == [(ValueError, text)] * 2
    some, none = pool(2, sharded.download_into, [3, 0], torch.float32)
    assert torch.equal(some, torch.ones(2, 3))
    assert none.shape == (2, 0)


def test_a_group_is_a_process_group() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(TypeError, match=r"reward_step\(\): expected group to be a ProcessGroup, got str"):
        cgsv_ext.reward_step(x, torch.zeros(2), group="world")
    with pytest.raises(TypeError, match=r"got int \(this process is not in it\)"):
        cgsv_ext.norms(x, group=-100)


def test_a_rank_that_dies_or_stops_is_an_error_on_the_other(tmp_path: Path) -> None:
    """At once where the process is gone, and within the group's timeout where it only hangs."""
    context = multiprocessing.get_context("spawn")
    timeout = 5.0
    runs = []
    for how in (signal.SIGKILL, signal.SIGSTOP):
        mine, theirs = context.Pipe()
        processes = [
            context.Process(target=sharded.fails, args=(rank, str(tmp_path / how.name), how, timeout, theirs))
            for rank in range(2)
        ]
        for process in processes:
            process.start()
        runs.append((mine, processes))
    try:
        for mine, processes in runs:
            assert mine.poll(120)
            seconds, error = mine.recv()
            assert error != "no error"
            assert seconds < timeout + 5
            processes[0].join(30)
    finally:
        for _, processes in runs:
            for process in processes:
                process.kill()
                process.join()


def test_nothing_is_imported_before_there_is_a_group(tmp_path: Path) -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import cgsv_ext; x = torch.ones(2, 8)\n"
        "r = torch.zeros(2)\n"
        "s = cgsv_ext.reward_step(x, r); cgsv_ext.norms(list(x)); cgsv_ext.select(s.aggregate, s.quotas)\n"
        "new = [m for m in set(sys.modules) - before if 'distributed' in m]; print(new); sys.exit(len(new))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_group_costs_nothing() -> None:
    """What is looked at before a call without a group: some hundred nanoseconds."""
    from cgsv_ext.reward import _spread

    x = torch.zeros(2, 3)
    rows = [x, x]
    best = min(_seconds(lambda: (_spread(None, x), _spread(None, rows)), 1000) for _ in range(20))
    assert best / 1000 < 10e-6


def _seconds(call: Any, times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return time.perf_counter() - start
