"""Where the work goes, and that nobody waits for it: streams, threads, devices."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import gpu
import oracle
import pytest
import torch
from gpu import Call, copied, each_call, each_step, inputs
from oracle import DTYPES, assert_same_bits

import cgsv_ext

pytestmark = gpu.needs_cuda

DELAY = 150_000_000
"""Clock cycles, some 80 ms: far longer than any call here takes to enqueue its work."""


@contextmanager
def synchronising_is_an_error() -> Iterator[None]:
    """For all that torch knows to wait for the device."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@each_call
def test_no_call_waits_for_the_device(call: Call) -> None:
    x, r, w = inputs()
    call(x, r, w)  # modules are loaded, memory is reserved
    torch.cuda._sleep(DELAY)
    with synchronising_is_an_error():
        call(x, r, w)
    busy = not torch.cuda.current_stream().query()
    torch.cuda.synchronize()
    assert busy


@each_call
def test_work_goes_to_the_current_stream(call: Call) -> None:
    """On a stream that has yet to produce the inputs, a call anywhere else would read the old ones."""
    x, r, w = inputs(seed=1)
    x_new, r_new, w_new = inputs(seed=2)
    expected = copied(call(x_new, r_new, w_new))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call(x, r, w)
        torch.cuda._sleep(DELAY)
        x.copy_(x_new)
        r.copy_(r_new)
        got = copied(call(x, r, w))
    assert not side.query()
    side.synchronize()
    assert_same_bits(got, expected)


@each_step
def test_calls_on_several_streams_do_not_disturb_each_other(call: Call) -> None:
    """Each has scratch memory of its own, and a busy GPU changes no bits."""
    given = [inputs(n=7, d=300_007, seed=seed) for seed in range(4)]
    expected = [copied(call(*one)) for one in given]
    streams = [torch.cuda.Stream() for _ in given]
    torch.cuda.synchronize()
    for _ in range(5):
        results = []
        for stream, (x, r, w) in zip(streams, given, strict=True):
            with torch.cuda.stream(stream):
                results.append(copied(call(x, r, w)))
        torch.cuda.synchronize()
        for got, wanted in zip(results, expected, strict=True):
            assert_same_bits(got, wanted)


def test_calls_from_several_threads_do_not_disturb_each_other() -> None:
    given = [inputs(n=7, d=100_003, seed=seed) for seed in range(4)]
    expected = [copied(cgsv_ext.reward_step(x, r)) for x, r, _ in given]
    torch.cuda.synchronize()

    def work(i: int) -> None:
        x, r, _ = given[i % 4]
        with torch.cuda.stream(torch.cuda.Stream()):
            got = copied(cgsv_ext.reward_step(x, r))
            torch.cuda.current_stream().synchronize()
        assert_same_bits(got, expected[i % 4])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(40)))


@pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)
@each_step
def test_a_repeated_call_gives_the_same_bits(call: Call, dtype: torch.dtype) -> None:
    """Also while other work takes some of the multiprocessors away."""
    x, r, w = inputs(n=11, d=500_009, dtype=dtype)
    expected = copied(call(x, r, w))
    side, a = torch.cuda.Stream(), torch.randn(2048, 2048, device="cuda")
    torch.cuda.synchronize()
    for busy in (False, True, True):
        with torch.cuda.stream(side):
            for _ in range(20 if busy else 0):
                a @ a
        assert_same_bits(copied(call(x, r, w)), expected)
    torch.cuda.synchronize()


# Several devices

needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@needs_two
@each_call
def test_work_goes_to_the_device_of_its_tensors(call: Call) -> None:
    x, r, w = inputs()
    expected = copied(call(x, r, w))
    with torch.cuda.device(0):
        got = call(x.to("cuda:1"), r.to("cuda:1"), w.to("cuda:1"))
        assert torch.cuda.current_device() == 0
        # The same bits on every GPU.
        assert_same_bits(_on(got, x.device), expected)


def _on(value: object, device: torch.device) -> object:
    if isinstance(value, torch.Tensor):
        assert value.device == torch.device("cuda:1")
        return value.to(device)
    return tuple(_on(part, device) for part in value) if isinstance(value, tuple) else value


@needs_two
def test_tensors_of_two_gpus_are_refused() -> None:
    x, r, _ = inputs()
    with pytest.raises(ValueError, match=r"expected importance on cuda:0, got one on cuda:1"):
        cgsv_ext.reward_step(x, r.to("cuda:1"))


def test_tensors_of_cpu_and_gpu_are_refused() -> None:
    x, r, w = inputs()
    before = w.clone()
    with pytest.raises(ValueError, match=r"expected importance on cuda:0, got one on cpu"):
        cgsv_ext.reward_step(x, r.cpu(), out=w)
    with pytest.raises(ValueError, match=r"on cpu, got one on cuda:0"):
        cgsv_ext.reward_step(x.cpu(), r)
    with pytest.raises(ValueError, match=r"out on cuda:0, got one on cpu"):
        cgsv_ext.reward_step(x, r, out=w.cpu())
    with pytest.raises(ValueError, match=r"updates\[1\] on cuda:0, got one on cpu"):
        cgsv_ext.norms([x[0], x[1].cpu()])
    step = cgsv_ext.reward_step(x, r, dense=False)
    with pytest.raises(ValueError, match=r"magnitude on cuda:0, got one on cpu"):
        cgsv_ext.download_(w, step.aggregate, cgsv_ext.Selection(*(t.cpu() for t in step.selection)))
    assert_same_bits(w, before)


def test_an_error_leaves_the_device_usable() -> None:
    x, r, w = inputs()
    with pytest.raises(ValueError, match="expected"):
        cgsv_ext.reward_step(x, r[:-1], out=w)
    assert_same_bits(w, torch.full_like(w, 7.0))
    rewards = cgsv_ext.reward_step(x, r).rewards
    cgsv_ext.reward_step(x, r, out=w)
    assert_same_bits(w, rewards)
