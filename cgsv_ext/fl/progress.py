"""What is seen while experiments run: a live bar on a terminal, a line per finished run elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from .experiment import Experiment
from .spec import Spec

_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass
class _Item:
    """One run: how far it is, and what it took."""

    spec: Spec
    done: float = 0.0
    began: float | None = None
    seconds: float | None = None
    status: str = ""

    @property
    def kinds(self) -> tuple[tuple[object, ...], ...]:
        """Groups of runs that take about as long per unit of work, the closest first."""
        e, mechanism = self.spec.experiment, self.spec.mechanism
        model = (e.dataset, e.model)
        return (
            (*model, e.size, e.partition, mechanism),
            (*model, e.size, mechanism),
            (*model, mechanism),
            model,
            (),
        )


class Progress:
    """All runs as one bar with the time left, and a line for each that is running.

    The time a run takes is guessed from its work, the samples trained on in all rounds, at the pace of the
    runs most like it: the same dataset, model, mechanism, N and partition; else with other partitions; and
    so on.

    Parameters
    ----------
    specs : sequence of Spec
        What will run.
    jobs : int
        How many run at a time.
    console : rich.console.Console
        Where to draw; one that is no terminal gets a plain line per finished run.
    """

    def __init__(self, specs: Sequence[Spec], jobs: int, console: Console) -> None:
        self._items = [_Item(spec) for spec in specs]
        self._jobs = jobs
        self._console = console
        self._bar = Bar(
            TextColumn("{task.fields[runs]} runs"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left {task.fields[left]}"),
            console=console,
        )
        self._task = self._bar.add_task("", total=1.0, left="?", runs=f"0/{len(self._items)}")
        self._status = Text()
        live = Live(Group(self._bar, self._status), console=console, refresh_per_second=4, transient=True)
        self._live = live if console.is_terminal else None

    def __enter__(self) -> Progress:
        """Start drawing."""
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing; the bar disappears, the lines stay."""
        if self._live:
            self._live.stop()

    def advance(self, place: int, t: int, accuracy: Sequence[float], importance: Sequence[float]) -> None:
        """Note that t rounds of a run are over, and how it stands; with t = 0, that it begins."""
        item = self._items[place]
        if t == 0:
            item.began = time.perf_counter()
        item.done = t / item.spec.experiment.rounds
        item.status = f"{item.spec} · round {t}/{item.spec.experiment.rounds}  {_say(accuracy, importance)}"
        self._draw()

    def finish(
        self, place: int, seconds: float, accuracy: Sequence[float], importance: Sequence[float]
    ) -> None:
        """Note that a run is over, what it took, and how it ended."""
        item = self._items[place]
        item.done, item.seconds = 1.0, seconds
        over = sum(each.seconds is not None for each in self._items)
        line = f"{over}/{len(self._items)}  {item.spec}  {_say(accuracy, importance)}  {seconds:.1f} s"
        if not self._live:
            line += f", left {_clock(self.left())}"
        self._console.print(line, highlight=False, soft_wrap=True)
        self._draw()

    def fail(self, place: int) -> None:
        """Note that a run ended with an error."""
        item = self._items[place]
        item.done, item.seconds = 1.0, 0.0
        self._console.print(f"{item.spec}  failed", highlight=False, soft_wrap=True)
        self._draw()

    def left(self) -> float | None:
        """Seconds until all runs are over; None before anything can be said."""
        return self._estimate()[1]

    def _estimate(self) -> tuple[float, float | None]:
        """Return the share of the time that is over, and the seconds that are left."""
        paces: dict[tuple[object, ...], list[float]] = {}
        for item in self._items:
            spent = item.seconds
            if spent is None and item.began is not None and item.done > 0:
                spent = (time.perf_counter() - item.began) / item.done
            if spent:
                for kind in item.kinds:
                    paces.setdefault(kind, []).append(spent / samples_trained(item.spec.experiment))
        if not paces:
            return 0.0, None
        over = left = 0.0
        for item in self._items:
            known = next(paces[kind] for kind in item.kinds if kind in paces)
            whole = sum(known) / len(known) * samples_trained(item.spec.experiment)
            over += whole * item.done
            left += whole * (1 - item.done)
        return over / (over + left), left / min(self._jobs, max(1, sum(i.done < 1 for i in self._items)))

    def _draw(self) -> None:
        if not self._live:
            return
        share, left = self._estimate()
        over = sum(each.seconds is not None for each in self._items)
        self._bar.update(self._task, completed=share, left=_clock(left), runs=f"{over}/{len(self._items)}")
        self._status.plain = "\n".join(i.status for i in self._items if i.began is not None and i.done < 1)


def samples_trained(experiment: Experiment) -> float:
    """How many samples all agents train on in all rounds; in epochs over all data, in units of the data."""
    e = experiment
    if e.steps is not None:
        return float(e.rounds * e.size * e.steps * e.batch_size)
    assert e.epochs is not None
    return float(e.rounds * e.epochs * (e.size * e.samples if e.samples is not None else 1))


def _say(accuracy: Sequence[float], importance: Sequence[float]) -> str:
    text = f"accuracy {sum(accuracy) / len(accuracy):.1%}" if accuracy else ""
    if importance and all(value == value for value in importance):
        text += f"  importance {_blocks(importance)}"
    return text


def _clock(seconds: float | None) -> str:
    """Write a duration as 1:02:03 or 2:03."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _blocks(values: Sequence[float]) -> str:
    """Draw a bar per agent, the tallest for the largest value."""
    top = max(*values, 1e-12)
    heights = [int(max(value, 0.0) / top * (len(_BLOCKS) - 1) + 0.5) for value in values]
    return "".join(_BLOCKS[height] for height in heights)
