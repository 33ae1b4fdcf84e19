"""The command ``cgsv``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``cgsv`` with the given arguments, by default those of the process; the exit status."""
    parser = argparse.ArgumentParser(
        prog="cgsv", description="Gradient-driven rewards for fairness in collaborative machine learning."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo",
        help="train 5 and 10 agents on handwritten digits and reward them fairly (about a minute)",
        description="The paper's experiment with label noise (Figure 2) and with imbalanced classes "
        "(CLA), with CGSV, FedAvg and standalone agents. Writes a report, plots and numbers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--out", type=Path, default=Path("cgsv-demo"), help="folder to write")
    demo.add_argument("--seeds", type=_positive, default=5, help="how many seeds to run")
    demo.add_argument(
        "--log-shapley",
        action="store_true",
        help="value every round's updates exactly, too, and report how far ψ is from that",
    )
    figure = commands.add_parser(
        "figure",
        help="measure a figure of the paper anew (seconds)",
        description="Figure 1: error and time of the approximation ψ and of sampling against exact Shapley "
        "values, over the number of agents and over the size of random updates. Writes trials.csv, "
        "figure-1.png and summary.md, and prints the last.",
    )
    figure.add_argument("number", type=int, choices=[1], help="of the figure")
    figure.add_argument("--out", type=Path, default=Path("cgsv-figure-1"), help="where to write: %(default)s")
    figure.add_argument("--trials", type=_positive, default=10, help="draws per point: %(default)s")
    figure.add_argument("--seed", type=int, default=2021, help="of all draws: %(default)s")
    figure.add_argument(
        "--agents", type=_agents, nargs="+", metavar="N", help="at D = 1024, up to 32: by default 5 to 20"
    )
    figure.add_argument(
        "--dimensions", type=_positive, nargs="+", metavar="D", help="at N = 10: by default 2^10 to 2^15"
    )
    figure.add_argument("--large", action="store_true", help="add D = 2^16 to 2^24 (minutes, 0.7 GB)")
    commands.add_parser("env", help="print what a bug report needs")
    arguments = parser.parse_args(argv)
    if arguments.command == "env":
        return _env()
    try:
        return _figure(arguments) if arguments.command == "figure" else _demo(arguments)
    except ModuleNotFoundError as error:
        print(f"cgsv {arguments.command} needs {error.name}: pip install 'cgsv_ext[fl]'", file=sys.stderr)
    except ImportError as error:  # the compiled library does not load; the text says why
        print(error, file=sys.stderr)
    return 1


def _demo(arguments: argparse.Namespace) -> int:
    from .fl.demo import demo

    demo(arguments.out, arguments.seeds, log_shapley=arguments.log_shapley)
    return 0


def _figure(arguments: argparse.Namespace) -> int:
    from . import figure_1

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


def _env() -> int:
    from . import collect_env

    collect_env.main()
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {value}")
    return value


def _agents(text: str) -> int:
    value = _positive(text)
    if value > 32:
        raise argparse.ArgumentTypeError(f"expected at most 32, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
