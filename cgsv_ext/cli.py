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
    commands.add_parser("env", help="print what a bug report needs")
    arguments = parser.parse_args(argv)
    if arguments.command == "env":
        return _env()
    return _demo(arguments.out, arguments.seeds)


def _demo(out: Path, seeds: int) -> int:
    try:
        from .fl.demo import demo
    except ModuleNotFoundError as error:
        print(f"cgsv demo needs {error.name}: pip install 'cgsv_ext[fl]'", file=sys.stderr)
        return 1
    try:
        demo(out, seeds)
    except ImportError as error:  # the compiled library does not load; the text says why
        print(error, file=sys.stderr)
        return 1
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


if __name__ == "__main__":
    sys.exit(main())
