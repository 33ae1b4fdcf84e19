"""What a run's parts take."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch


class Clock:
    """A stopwatch that adds to one total per name, and never makes the CPU wait for a GPU.

    Parameters
    ----------
    device : torch.device
        Whose work is timed; on CUDA by events among that work.
    seconds : dict of str to float
        Where the totals are, by name.
    """

    def __init__(self, device: torch.device, seconds: dict[str, float]) -> None:
        self._cuda = device.type == "cuda"
        self._seconds = seconds
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Time a block."""
        if self._cuda:
            # Torch has no types for its events.
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            began.record()
            yield
            ended.record()
            self._events.append((name, began, ended))
        else:
            start = time.perf_counter()
            yield
            self._add(name, time.perf_counter() - start)

    def settle(self) -> None:
        """Bring the totals up to date; on CUDA this waits for the work."""
        for name, began, ended in self._events:
            ended.synchronize()
            self._add(name, began.elapsed_time(ended) / 1000)
        self._events.clear()

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
