"""Finished runs in a folder, one file each: what is there is never run again."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from torch import Tensor

from .._files import Unreadable, remove
from .data import load
from .progress import Progress
from .record import Run
from .rounds import fingerprint, plain_loop_seconds, run
from .spec import Spec
from .workers import Failure, work

__all__ = ["Spec", "Store", "run_all"]


class Store:
    """Finished runs in a folder.

    Parameters
    ----------
    folder : Path
        Need not be there yet. Several processes may read and write it at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def get(self, spec: Spec) -> Run | None:
        """Return the run of a spec, or None where there is none; a file that is damaged is as good as none.

        The run's experiment is the one asked for, also in what its mechanism does not read.
        """
        run = _load(self.folder / spec.path)
        if run is None:
            return None
        if Spec.of(run).key != spec.key:  # a file that was renamed, or whose key means something else by now
            warnings.warn(f"{self.folder / spec.path}: not the run its name says; not used", stacklevel=2)
            return None
        return replace(run, experiment=spec.experiment)

    def put(self, run: Run) -> None:
        """Keep a run, in the place of any with the same spec; but for its final models.

        ``parameters`` and ``server`` come back as (N, 0) and (0,): nothing made of stored runs reads them,
        and they would be nearly all of the file, 76 MB of five agents where D is 3 million.
        """
        # New tensors: a view would be saved with all it is a part of.
        parameters, server = run.parameters.new_empty(len(run.parameters), 0), run.server.new_empty(0)
        replace(run, parameters=parameters, server=server).save(self.folder / Spec.of(run).path)

    def runs(self) -> Iterator[Run]:
        """All runs there are, by file name; other files are passed over with a warning."""
        for path in sorted(self.folder.glob("*/*.safetensors")):
            run = _load(path)
            if run is not None:
                yield run

    def checkpoint(self, spec: Spec) -> Path:
        """Where the state of an unfinished run is kept."""
        return (self.folder / spec.path).with_suffix(".checkpoint")

    def forget(self, spec: Spec) -> None:
        """Delete the state of an unfinished run, if there is one."""
        remove(self.checkpoint(spec))


class _Task(NamedTuple):
    """One run, and all a worker must know for it."""

    spec: Spec
    store: Store
    folder: Path | None
    device: str
    every: int


class _Round(NamedTuple):
    """What a worker says before the first round, after some, and once its run is stored."""

    t: int
    accuracy: list[float]
    importance: list[float]
    seconds: float | None = None


def run_all(
    specs: Sequence[Spec],
    store: Store,
    *,
    folder: Path | None = None,
    jobs: int = 1,
    device: str = "cpu",
    every: int = 0,
    resume: bool = True,
    console: Console | None = None,
) -> list[Run]:
    """Run what the store lacks, and return all runs in the order of the specs.

    Every run is stored as it ends, so what is interrupted goes on where it was when it is called again.

    Parameters
    ----------
    specs : sequence of Spec
        What is wanted; one that stands there twice is run once.
    store : Store
        Where runs are taken from and kept.
    folder : Path, optional
        Where the datasets' files lie; the embedded one needs none.
    jobs : int
        How many runs at a time, each in a process of one thread. Runs are timed (``Run.seconds``): with more
        jobs than free cores, or with several on one GPU, they share it and times come out long. More than one
        needs ``if __name__ == "__main__":`` in a script.
    device : str
        ``"cpu"`` or ``"cuda"``.
    every : int
        Keep the state of unfinished runs every so many rounds, so that they, too, go on where they were; 0
        for never.
    resume : bool
        Whether unfinished runs go on from such a state; if not, it is deleted and they start anew. Finished
        runs are taken from the store either way.
    console : rich.console.Console, optional
        Where progress is shown; by default nowhere.

    Raises
    ------
    FileNotFoundError, ValueError
        Before anything runs, where a dataset cannot be read, or where the store's runs are of other data.
    RuntimeError
        After all others are done, where a run failed: with its spec and its traceback.
    """
    found = {spec: store.get(spec) for spec in dict.fromkeys(specs)}
    for spec in (spec for spec, each in found.items() if each is not None):
        store.forget(spec)  # of a process that was killed just after it had stored the run
    missing = list({spec.key: spec for spec, each in found.items() if each is None}.values())
    if missing or folder is not None:
        _check_data(found, folder)
    if not resume:
        for spec in missing:
            store.forget(spec)
    errors: dict[Spec, str] = {}
    with Progress(missing, jobs, console or Console(quiet=True)) as progress:

        def hear(place: int, message: _Round | Failure) -> None:
            if isinstance(message, Failure):
                errors[missing[place]] = message.traceback
                progress.fail(place)
            elif message.seconds is None:
                progress.advance(place, message.t, message.accuracy, message.importance)
            else:
                progress.finish(place, message.seconds, message.accuracy, message.importance)

        work(_run_and_store, [_Task(spec, store, folder, device, every) for spec in missing], jobs, hear)
    if errors:
        raise RuntimeError(_failure(errors, len(missing)))
    found |= {spec: store.get(spec) for spec, each in found.items() if each is None}
    return [_there(found[spec], spec) for spec in specs]


def _check_data(found: dict[Spec, Run | None], folder: Path | None) -> None:
    """Read every dataset once: what is wrong with it is one error now, and not one from each run."""
    first: dict[str, Spec] = {}
    for spec in sorted(found, key=lambda spec: found[spec] is None):  # stored runs before missing ones
        first.setdefault(spec.experiment.dataset, spec)
    for dataset, spec in first.items():
        now, run = fingerprint(load(dataset, folder, spec.seed)), found[spec]
        if run is not None and run.origin["data"] != now:
            raise ValueError(
                f"run_all(): expected the {dataset} data of the runs stored (checksum {run.origin['data']}), "
                f"got others ({now}); use another store, or the data folder it was made from"
            )


def _run_and_store(task: _Task, say: Callable[[_Round], None]) -> None:
    """What a worker does."""
    spec, store, folder, device, every = task
    e = spec.experiment
    plain_loop = _plain_loop_seconds(task)
    kind = (e.model, spec.mechanism, device)
    if kind not in _warm:  # first calls take longer and would distort what is timed
        run(replace(e, rounds=1), spec.mechanism, spec.seed, folder=folder, device=device)
        _warm.add(kind)
    say(_Round(0, [], []))
    began = said = time.perf_counter()

    def on_round(t: int, accuracy: Tensor, importance: Tensor) -> None:
        nonlocal said
        if time.perf_counter() - said > 0.2:
            said = time.perf_counter()
            say(_Round(t, accuracy.tolist(), importance.tolist()))

    result = run(
        e,
        spec.mechanism,
        spec.seed,
        on_round,
        folder=folder,
        device=device,
        log_shapley=spec.log_shapley,
        checkpoint=store.checkpoint(spec),
        every=every,
    )
    result.seconds["plain loop"] = plain_loop * e.rounds
    store.put(result)
    store.forget(spec)
    last, mean = result.accuracy[-1].tolist(), result.importance.mean(0).tolist()
    say(_Round(e.rounds, last, mean, time.perf_counter() - began))


_warm: set[tuple[str, str, str]] = set()
"""The models, mechanisms and devices this process has met."""
_plain_loop: dict[tuple[str, str], float] = {}
"""Seconds of a round of the plain loop, by federation and device, in this process."""


def _plain_loop_seconds(task: _Task) -> float:
    """Time the plain loop once for all mechanisms and seeds: it is slow."""
    federation = Spec(task.spec.experiment, "standalone", 0).key  # standalone reads no mechanism's settings
    if (federation, task.device) not in _plain_loop:
        _plain_loop[federation, task.device] = plain_loop_seconds(
            task.spec.experiment, task.spec.seed, folder=task.folder, device=task.device
        )
    return _plain_loop[federation, task.device]


def _failure(errors: dict[Spec, str], runs: int) -> str:
    """Say which runs failed, and each traceback once."""
    groups: dict[str, list[str]] = {}
    for spec, error in errors.items():
        groups.setdefault(error, []).append(str(spec))
    told = "\n".join(f"{', '.join(specs)}:\n{error}" for error, specs in groups.items())
    return f"run_all(): {len(errors)} of {runs} runs failed; the others are stored\n{told}"


def _there(run: Run | None, spec: Spec) -> Run:
    if run is None:
        raise RuntimeError(
            f"run_all(): expected {spec} in the store after it had run; was the folder emptied?"
        )
    return replace(run, experiment=spec.experiment)  # specs are equal whatever their titles


def _load(path: Path) -> Run | None:
    try:
        return Run.load(path)
    except FileNotFoundError:
        return None
    except Unreadable as error:
        warnings.warn(f"{error}; not used", stacklevel=3)
        return None
