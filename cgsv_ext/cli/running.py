"""From specs to runs, with errors that a user can mend."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from rich.console import Console

from ..fl.data import load
from ..fl.model import MODELS
from ..fl.partition import deal
from ..fl.presets import FIRST_SEED
from ..fl.record import Run
from ..fl.spec import Spec
from ..fl.store import Store, run_all


def seeds(arguments: argparse.Namespace) -> range:
    """Return the seeds asked for."""
    return range(FIRST_SEED, FIRST_SEED + arguments.seeds)


@contextlib.contextmanager
def user_errors(command: str) -> Iterator[None]:
    """End with status 2 and one line instead of a traceback, where settings or files are wrong."""
    try:
        yield
    except (ValueError, OSError) as error:
        # Which function found out is of no interest here.
        fail(command, re.sub(r"^\w+(\(\))?: ", "", str(error)))


def fail(command: str, message: str, status: int = 2) -> NoReturn:
    """Print a message and end."""
    print(f"cgsv {command}: {message}", file=sys.stderr)
    raise SystemExit(status)


def make(specs: Sequence[Spec], arguments: argparse.Namespace, console: Console) -> list[Run]:
    """Run what is not there yet.

    Data, partitions and models are looked at first, so that what cannot be run says so at once.
    """
    store = Store(arguments.cache or arguments.out / "runs")
    missing = [spec for spec in specs if not (store.folder / spec.path).exists()]
    with user_errors(arguments.command):
        check_device(arguments.device)
        for spec in {spec.experiment: spec for spec in missing}.values():
            data = load(spec.experiment.dataset, arguments.data, spec.seed)
            deal(data, spec.experiment, spec.seed)
            MODELS[spec.experiment.model](data)
        store.folder.mkdir(parents=True, exist_ok=True)
    if missing:
        found = len(specs) - len(missing)
        console.print(f"{len(missing)} runs to do, {found} found in {store.folder}", highlight=False)
    try:
        with user_errors(arguments.command):
            return run_all(
                specs,
                store,
                folder=arguments.data,
                jobs=arguments.jobs or _jobs(arguments.device),
                device=arguments.device,
                every=arguments.checkpoint_every,
                resume=arguments.resume,
                console=console,
            )
    except RuntimeError as error:  # it says which runs failed, and their tracebacks
        fail(arguments.command, str(error), 1)


def _jobs(device: str) -> int:
    """Return how many runs at a time are best; more than one on a GPU would share its time and memory."""
    return 1 if device == "cuda" else len(os.sched_getaffinity(0))


def check_device(device: str) -> None:
    """Raise a ValueError where there is no such device."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("expected a GPU that torch can use for --device cuda, got none; cgsv env says more")
