"""``cgsv bench``."""

from __future__ import annotations

import argparse

from ..distributed import bench


def configure(parser: argparse.ArgumentParser) -> None:
    """Add a parser for each benchmark."""
    parser.description = "Time what depends on this machine."
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    spread = names.add_parser(
        "distributed",
        help="a round on several gloo ranks of this machine",
        description="Time reward_step on gloo ranks of this machine, one core each, beside one process "
        "without a group: seconds a round and in collectives, and bytes sent.",
        allow_abbrev=False,
    )
    spread.add_argument(
        "--ranks", type=_positive, nargs="+", default=[1, 2], metavar="R", help="by default 1 2"
    )
    spread.add_argument("--agents", type=_positive, default=10, metavar="N", help="by default %(default)s")
    spread.add_argument(
        "--columns", type=_positive, default=8_000_000, metavar="D", help="by default %(default)s"
    )
    spread.add_argument(
        "--dtype",
        default="float32",
        choices=["float64", "float32", "bfloat16", "float16"],
        help="of updates; by default %(default)s",
    )
    spread.add_argument(
        "--dim",
        default="columns",
        choices=["columns", "agents"],
        help="what is spread; by default %(default)s",
    )
    spread.add_argument("--rounds", type=_positive, default=5, metavar="K", help="by default %(default)s")
    spread.add_argument("--dense", action="store_true", help="write the rewards, too")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {value}")
    return value


def execute(arguments: argparse.Namespace) -> int:
    """Time it and print a table."""
    case = bench.Case(
        arguments.agents,
        arguments.columns,
        arguments.dtype,
        arguments.dim,
        arguments.rounds,
        arguments.dense,
    )
    print(bench.report(arguments.ranks, case))
    return 0
