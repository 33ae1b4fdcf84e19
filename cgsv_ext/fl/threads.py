"""How torch computes while a run is on: on one thread, and the same way each time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run a block, or a decorated function, with torch on a single thread.

    For models of a few thousand parameters a second thread costs more than it saves, many times more
    where other programs are busy; and on one thread the bits do not depend on how many there are.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def same_convolutions() -> Iterator[None]:
    """Run a block, or a decorated function, with cuDNN's algorithms that repeat their bits, on CUDA."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
