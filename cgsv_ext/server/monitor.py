"""Where records of rounds go: functions to be handed to :meth:`RewardServer.on_round`.

::

    from cgsv_ext.server import monitor

    server.on_round(monitor.csv_writer("rounds.csv"))
    server.on_round(monitor.tensorboard(SummaryWriter("runs/1")))
    server.on_round(lambda record: print(json.dumps(record._asdict()), file=lines))

They run in the thread that called ``step()``, after the round is done.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from .records import Round

COLUMNS = (
    "round",
    "agent",
    "importance",
    "cosine",
    "quota",
    "norm",
    "valid",
    "share",
    "refused",
    "seconds",
)
"""Of a CSV file, in order; the last three are the round's, the same in all its rows."""


class ScalarWriter(Protocol):
    """What is needed of a ``torch.utils.tensorboard.SummaryWriter``."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int, /) -> object:
        """Add one number to the curve `tag`."""


def csv_writer(path: str | os.PathLike[str]) -> Callable[[Round], None]:
    """Append a row for each agent of each round to a CSV file.

    The file is opened for each round and is complete after it. One that is there already is continued: a run
    that is resumed goes on below what it wrote before. Where a server was restored from an older state,
    rounds are played, and written, again: of two rows for the same round and agent the later one counts.

    Parameters
    ----------
    path : path-like
        The file; its folder must exist. Columns are those of :data:`COLUMNS`.

    Returns
    -------
    callable
        To be called with the record of a round.

    Raises
    ------
    ValueError
        Where the file begins with other columns.
    """
    path = Path(path)
    with open(path, "a+", encoding="utf-8", newline="") as file:
        file.seek(0)
        found = next(csv.reader(file), None)
    if found is not None and tuple(found) != COLUMNS:
        raise ValueError(
            f"csv_writer(): expected {path} to begin with {','.join(COLUMNS)}, got {found!r:.200}"
        )

    def write(record: Round) -> None:
        with open(path, "a+b", buffering=0) as file:
            if file.seek(0, os.SEEK_END) == 0:
                start = _line(COLUMNS)
            else:
                file.seek(-1, os.SEEK_END)
                # A row cut short, by a full disk, must not swallow the next one.
                start = "" if file.read(1) == b"\n" else "\n"
            # In one go, so that rows of servers that share a file do not mix.
            file.write((start + "".join(map(_line, _rows(record)))).encode())

    return write


def tensorboard(writer: ScalarWriter) -> Callable[[Round], None]:
    """Add each round's numbers to TensorBoard, with the round as the step.

    Curves are ``importance/ID``, ``cosine/ID``, ``quota/ID`` and ``norm/ID`` for each agent that takes part,
    and ``round/agents``, ``round/share``, ``round/refused`` and ``round/seconds``.

    Parameters
    ----------
    writer : ScalarWriter
        A ``torch.utils.tensorboard.SummaryWriter``, or anything with its ``add_scalar``. Closing it is up to
        the caller.

    Returns
    -------
    callable
        To be called with the record of a round.
    """

    def write(record: Round) -> None:
        for name, values in (
            ("importance", record.importance),
            ("cosine", record.cosines),
            ("quota", record.quotas),
            ("norm", record.norms),
        ):
            for agent, value in zip(record.agents, values, strict=True):
                writer.add_scalar(f"{name}/{agent}", value, record.round)
        writer.add_scalar("round/agents", len(record.agents), record.round)
        writer.add_scalar("round/share", record.share, record.round)
        writer.add_scalar("round/refused", record.refused, record.round)
        writer.add_scalar("round/seconds", record.seconds, record.round)

    return write


def _rows(record: Round) -> Iterator[tuple[object, ...]]:
    for agent, *own in zip(
        record.agents,
        record.importance,
        record.cosines,
        record.quotas,
        record.norms,
        map(int, record.valid),
        strict=True,
    ):
        yield record.round, agent, *own, record.share, record.refused, record.seconds


def _line(cells: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
