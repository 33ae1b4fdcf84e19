"""Options that several commands share."""

from __future__ import annotations

import argparse
import ast
import inspect
import os
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..fl import experiment
from ..fl.experiment import FIELDS, Experiment, registries
from ..fl.presets import FIRST_SEED, SEEDS, datasets

_CHANGE = "change "
"""Before the name of a field in the parsed arguments; no option of a command is called so."""


def positive(text: str) -> int:
    """Read an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {value}")
    return value


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add what to run on and which seeds."""
    parser.add_argument(
        "--dataset", default="digits", choices=datasets(), help="one of %(choices)s; by default digits"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of the dataset's files; digits needs none"
    )
    parser.add_argument(
        "--seeds",
        type=positive,
        default=len(SEEDS),
        help=f"how many, from {FIRST_SEED}: by default %(default)s",
    )


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add where and how to run, and where to keep it."""
    parser.add_argument(
        "--jobs",
        type=positive,
        help="runs at a time, a process each: by default as many as there are cores, here "
        f"{len(os.sched_getaffinity(0))}, and 1 with --device cuda",
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="by default %(default)s")
    parser.add_argument(
        "--out", type=Path, default=Path("cgsv-results"), metavar="DIR", help="folder to write: %(default)s"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="where runs are kept, and found again: by default OUT/runs"
    )
    parser.add_argument(
        "--checkpoint-every",
        type=positive,
        default=0,
        metavar="K",
        help="keep the state of unfinished runs every K rounds, so that they go on where they were",
    )
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with unfinished runs where their state was last kept, as by default, or start them anew; "
        "finished runs are found again either way: to have them run again, name another --cache",
    )


def add_changes(parser: argparse.ArgumentParser, *without: str) -> None:
    """Add an option for every field of Experiment that a preset sets, but for some."""
    group = parser.add_argument_group("settings instead of the preset's")
    types_, texts, names = get_type_hints(Experiment), _docstrings(), registries()
    for name in FIELDS:
        if name not in ("dataset", "partition", "agents", "title", *without):
            read, several = _reader(types_[name])
            known = f": {', '.join(names[name])}" if name in names else ""
            group.add_argument(
                f"--{name.replace('_', '-')}",
                dest=_CHANGE + name,
                type=read,
                nargs="+" if several else None,
                default=argparse.SUPPRESS,
                metavar="X",
                help=f"{texts[name]}{known}".replace("%", "%%"),
            )


def changes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields that were given."""
    given = {key: value for key, value in vars(arguments).items() if key.startswith(_CHANGE)}
    return {
        key.removeprefix(_CHANGE): tuple(value) if isinstance(value, list) else value
        for key, value in given.items()
    }


def _reader(kind: Any) -> tuple[Callable[[str], Any], bool]:
    """Return how to read one word of a field of this type, and whether there may be several."""
    optional = get_origin(kind) in (Union, types.UnionType)
    if optional:
        (kind,) = (each for each in get_args(kind) if each is not type(None))
    several = get_origin(kind) is tuple
    read = get_args(kind)[0] if several else kind

    def number_or_none(text: str) -> Any:
        return None if text.lower() == "none" else read(text)

    number_or_none.__name__ = read.__name__  # argparse's errors name it
    return (number_or_none if optional and not several else read), several


def _docstrings() -> dict[str, str]:
    """The text below each field of Experiment, in one line and without markup."""
    (node,) = (
        node
        for node in ast.parse(inspect.getsource(experiment)).body
        if isinstance(node, ast.ClassDef) and node.name == Experiment.__name__
    )
    found = {}
    for before, after in zip(node.body, node.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name):
            text = ast.literal_eval(after.value) if isinstance(after, ast.Expr) else ""
            found[before.target.id] = " ".join(text.replace("``", "").split()).rstrip(".")
    return found
