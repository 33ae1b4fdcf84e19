"""What is seen while experiments run: a live bar on a terminal, a line per run elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text
from torch import Tensor

from .presets import Experiment
from .server import OnRound, Run

_BLOCKS = "▁▂▃▄▅▆▇█"


class Progress:
    """All rounds of all runs as one bar, with the present run's accuracy and importances under it.

    Parameters
    ----------
    experiments : sequence of Experiment
        What will run.
    repeats : int
        How many runs of each experiment there will be.
    console : rich.console.Console
        Where to draw; one that is no terminal gets a plain line per finished run.
    """

    def __init__(self, experiments: Sequence[Experiment], repeats: int, console: Console) -> None:
        self._console = console
        self._bar = Bar(
            TextColumn("{task.percentage:3.0f} %"),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        # Training dominates, so the bar counts local steps: its time left is then about right.
        total = sum(e.rounds * e.steps * repeats for e in experiments)
        self._task = self._bar.add_task("", total=total)
        self._status = Text()
        live = Live(Group(self._bar, self._status), console=console, refresh_per_second=10, transient=True)
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

    def start(self, experiment: Experiment, mechanism: str, seed: int) -> OnRound:
        """Announce a run; the result is to be called after each of its rounds."""

        def on_round(t: int, accuracy: Tensor, importance: Tensor) -> None:
            self._bar.advance(self._task, experiment.steps)
            if not self._live:
                return
            status = (
                f"{experiment.title} · {mechanism} · seed {seed} · round {t}/{experiment.rounds}\n"
                f"accuracy {accuracy.mean():6.1%}, agents {_per_agent(accuracy, '.0%')}\n"
            )
            if not importance.isnan().any():
                status += f"importance {_blocks(importance)} {_per_agent(importance, '.2f')}"
            self._status.plain = status

        return on_round

    def finish(self, run: Run) -> None:
        """Say how a run ended."""
        accuracy, importance = run.accuracy[-1], run.importance.mean(0)
        line = f"{run.experiment.title}, seed {run.seed}, {run.mechanism:10}  accuracy {accuracy.mean():.1%}"
        if not importance.isnan().any():
            line += f"  importance {_blocks(importance)}"
        self._console.print(line, highlight=False, soft_wrap=True)


def _per_agent(values: Tensor, form: str) -> str:
    return " ".join(format(value, form) for value in values.tolist())


def _blocks(values: Tensor) -> str:
    """Draw a bar per agent, the tallest for the largest value."""
    top = max(values.max().item(), 1e-12)
    heights = [int(max(value, 0.0) / top * (len(_BLOCKS) - 1) + 0.5) for value in values.tolist()]
    return "".join(_BLOCKS[height] for height in heights)
