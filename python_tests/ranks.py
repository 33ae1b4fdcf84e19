"""Processes that are gloo ranks, started once and handed functions: what distributed tests run on.

A function is one of a module that a new process can import; it is called on every rank that takes part as
``function(group, *arguments)``, and may return tensors.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

WORLD = 4
TIMEOUT = 60.0
SIZES = (1, 2, 3, 4)
"""Of the groups there are; a group of k is ranks 0 to k − 1."""


def start(rank: int, world: int, path: str, seconds: float = TIMEOUT) -> Any:
    """Make this process a rank; the group of all."""
    import torch.distributed as dist

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{path}", rank=rank, world_size=world, timeout=timedelta(seconds=seconds)
    )
    return dist.group.WORLD


def _serve(rank: int, path: str, tasks: Connection) -> None:
    import torch.distributed as dist

    everyone = start(rank, WORLD, path)
    groups = {size: dist.new_group(list(range(size))) for size in SIZES if size < WORLD} | {WORLD: everyone}
    # Pickled by hand: a Connection would hand tensors over as shared memory, one file each.
    answer: object = "ready"
    while True:
        tasks.send_bytes(pickle.dumps(answer))
        task = pickle.loads(tasks.recv_bytes())
        if task is None:
            break
        size, function, arguments = task
        try:
            answer = True, function(groups[size], *arguments)
        except Exception as error:  # for the test to raise
            answer = False, (type(error), str(error), traceback.format_exc())
    dist.destroy_process_group()


class Pool:
    """Four ranks."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.ends, self.processes = [], []
        for rank in range(WORLD):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, str(folder / "store"), there), daemon=True)
            process.start()
            there.close()
            self.ends.append(here)
            self.processes.append(process)
        for end in self.ends:
            assert self._receive(end) == "ready"

    def _receive(self, end: Connection) -> Any:
        if not wait([end], timeout=2 * TIMEOUT):
            raise TimeoutError("a rank did not answer")
        return pickle.loads(end.recv_bytes())

    def ask(self, size: int, function: Callable[..., Any], *arguments: Any) -> list[tuple[bool, Any]]:
        """What each of so many ranks returned (True, result) or raised (False, (type, text, traceback))."""
        task = pickle.dumps((size, function, arguments))
        for end in self.ends[:size]:
            end.send_bytes(task)
        return [self._receive(end) for end in self.ends[:size]]

    def __call__(self, size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What each rank returned."""
        answers = self.ask(size, function, *arguments)
        for rank, (fine, answer) in enumerate(answers):
            if not fine:
                raise AssertionError(f"rank {rank} raised:\n{answer[2]}")
        return [answer for _, answer in answers]

    def errors(self, size: int, function: Callable[..., Any], *arguments: Any) -> list[tuple[type, str]]:
        """What each rank raised."""
        answers = self.ask(size, function, *arguments)
        assert not any(fine for fine, _ in answers), "no error on some rank"
        return [(answer[0], answer[1]) for _, answer in answers]

    def close(self) -> None:
        for end in self.ends:
            end.send_bytes(pickle.dumps(None))
        for process in self.processes:
            process.join(10)
            if process.is_alive():
                process.kill()


def cuts(d: int, sizes: Sequence[int]) -> list[slice]:
    """Consecutive parts of d columns."""
    assert sum(sizes) == d
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
