"""``cgsv figure``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from ..fl.figures import FIGURES, figure_1, write
from ..fl.presets import FIRST_SEED
from .options import add_changes, add_data, add_running, changes, positive
from .running import make, seeds, user_errors


def configure(parser: argparse.ArgumentParser) -> None:
    """Add a parser for each figure."""
    parser.description = "Make a figure of the paper anew: a picture and its numbers."
    numbers = parser.add_subparsers(dest="number", required=True, metavar="NUMBER")
    _configure_1(
        numbers.add_parser("1", help="error and time of ψ and of sampling (seconds)", allow_abbrev=False)
    )
    for number, module in FIGURES.items():
        text = " ".join((module.__doc__ or "").split("\n\n")[0].split()).rstrip(".")
        writes = f"Writes figure-{number}-DATASET.png and .csv."
        figure = numbers.add_parser(
            str(number), help=text.replace("%", "%%"), description=f"{text}. {writes}", allow_abbrev=False
        )
        add_data(figure)
        add_running(figure)
        # Figures are of honest agents, and Figure 7 sweeps β.
        add_changes(figure, "adversaries", *(("beta",) if number == 7 else ()))


def _configure_1(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Error and time of the approximation ψ and of sampling against exact Shapley values, over the number "
        "of agents and over the size of random updates. Writes trials.csv, figure-1.png and summary.md, and "
        "prints the last."
    )
    parser.add_argument("--out", type=Path, default=Path("cgsv-figure-1"), help="where to write: %(default)s")
    parser.add_argument("--trials", type=positive, default=10, help="draws per point: %(default)s")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of all draws: %(default)s")
    parser.add_argument(
        "--agents", type=_agents, nargs="+", metavar="N", help="at D = 1024, up to 32: by default 5 to 20"
    )
    parser.add_argument(
        "--dimensions", type=positive, nargs="+", metavar="D", help="at N = 10: by default 2^10 to 2^15"
    )
    parser.add_argument("--large", action="store_true", help="add D = 2^16 to 2^24 (minutes, 0.7 GB)")


def execute(arguments: argparse.Namespace) -> int:
    """Make the figure asked for."""
    if arguments.number == "1":
        return _figure_1(arguments)
    console, number = Console(), int(arguments.number)
    settings: dict[str, Any] = changes(arguments)
    with user_errors("figure"):
        specs = FIGURES[number].specs(arguments.dataset, seeds(arguments), **settings)
    runs = make(specs, arguments, console)
    with user_errors("figure"):
        path = write(number, runs, arguments.out)
    console.print(f"Written to {path} and {path.with_suffix('.csv')}", highlight=False, soft_wrap=True)
    return 0


def _figure_1(arguments: argparse.Namespace) -> int:
    agents, dimensions = arguments.agents, arguments.dimensions
    command = f"cgsv figure 1 --trials {arguments.trials} --seed {arguments.seed}"
    for name, sizes in (("agents", agents), ("dimensions", dimensions)):
        command += f" --{name} {' '.join(map(str, sizes))}" if sizes else ""
    text = figure_1.figure_1(
        arguments.out,
        trials=arguments.trials,
        seed=arguments.seed,
        agents=agents or figure_1.AGENTS,
        dimensions=[*(dimensions or figure_1.DIMENSIONS), *(figure_1.LARGE if arguments.large else ())],
        command=command + (" --large" if arguments.large else ""),
    )
    print(text, end="")
    return 0


def _agents(text: str) -> int:
    value = positive(text)
    if value > 32:
        raise argparse.ArgumentTypeError(f"expected at most 32, got {value}")
    return value
