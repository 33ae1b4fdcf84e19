"""One thread for work too small to share."""

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
