"""Many tasks over several processes, none of which can take the others with it."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch

Task = TypeVar("Task")
Do: TypeAlias = Callable[[Task, Callable[[Any], None]], None]
"""(task, say) -> None: does one task and says how it goes; a function of a module, as it is pickled."""


class Failure(NamedTuple):
    """What is heard of a task that ended with an exception, or whose process died."""

    traceback: str


class _Idle(NamedTuple):
    """What a worker says between tasks."""


def work(do: Do[Task], tasks: Sequence[Task], jobs: int, hear: Callable[[int, Any], None]) -> None:
    """Do all tasks, ``jobs`` at a time and in their order, each on one thread.

    One job works in this process; more are started afresh ("spawn"), as CUDA wants it, so a script that asks
    for them needs ``if __name__ == "__main__":``. A task that fails, or whose process dies, leaves the others
    alone. An exception here, such as KeyboardInterrupt, ends all processes at once.

    Parameters
    ----------
    do : callable
        Does one task.
    tasks : sequence
        What is to be done; pickled for more than one job.
    jobs : int
        How many processes, at most one for each task.
    hear : callable
        Called here with a task's place in ``tasks`` and what ``do`` said of it, or a :class:`Failure`.
    """
    if min(jobs, len(tasks)) > 1:
        _in_processes(do, tasks, min(jobs, len(tasks)), hear)
        return
    for place, task in enumerate(tasks):
        try:
            do(task, partial(hear, place))
        except Exception:
            hear(place, Failure(traceback.format_exc()))


def _in_processes(do: Do[Task], tasks: Sequence[Task], jobs: int, hear: Callable[[int, Any], None]) -> None:
    places = iter(range(len(tasks)))
    workers = [_Worker(do) for _ in range(jobs)]
    try:
        while workers:
            ready = wait([worker.connection for worker in workers])
            for worker in [worker for worker in workers if worker.connection in ready]:
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    died = f"its process ended with exit code {worker.exit_code()}"
                    if worker.place is None:
                        raise RuntimeError(f"work(): expected a process for tasks, but {died}") from None
                    hear(worker.place, Failure(f"{died} (-9: perhaps out of memory)\n"))
                    workers[workers.index(worker)] = _Worker(do)
                    continue
                if not isinstance(message, _Idle):
                    assert worker.place is not None
                    hear(worker.place, message)
                    continue
                worker.place = next(places, None)
                if worker.place is None:
                    workers.remove(worker)
                    worker.stop()
                else:
                    with contextlib.suppress(BrokenPipeError):  # it just died, which is seen next
                        worker.connection.send(tasks[worker.place])
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.stop()


class _Worker:
    """A process and our end of the line to it."""

    def __init__(self, do: Do[Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.place: int | None = None
        """The task it is at."""
        self._process = context.Process(target=_serve, args=(do, theirs), daemon=True)
        self._process.start()
        theirs.close()  # so that the line breaks when the process ends

    def exit_code(self) -> int | None:
        """Wait for its end, which has come."""
        self._process.join()
        return self._process.exitcode

    def terminate(self) -> None:
        """Tell it to end."""
        self._process.terminate()

    def stop(self) -> None:
        """End it, whatever it is doing."""
        self.terminate()
        self._process.join(5)
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(do: Do[Any], connection: Connection) -> None:
    """Do tasks until the line breaks."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)  # an exception, so that half-written files are cleared away

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides
    signal.signal(signal.SIGTERM, end)
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        while True:
            connection.send(_Idle())
            task = connection.recv()
            try:
                do(task, connection.send)
            except BrokenPipeError:
                raise
            except Exception:
                connection.send(Failure(traceback.format_exc()))
