"""``cgsv demo``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..fl.demo import demo
from .options import positive


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = (
        "The paper's experiment with label noise (Figure 2) and with imbalanced classes (CLA), with CGSV, "
        "FedAvg and standalone agents. Writes a report, plots and numbers."
    )
    parser.add_argument("--out", type=Path, default=Path("cgsv-demo"), help="folder to write: %(default)s")
    parser.add_argument("--seeds", type=positive, default=5, help="how many seeds to run: %(default)s")
    parser.add_argument(
        "--log-shapley",
        action="store_true",
        help="value every round's updates exactly, too, and report how far ψ is from that",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Run it."""
    demo(arguments.out, arguments.seeds, log_shapley=arguments.log_shapley)
    return 0
