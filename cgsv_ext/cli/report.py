"""``cgsv report``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..fl.report import report
from .running import user_errors


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = "Gather all runs that other commands left in a folder into one page."
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --out of other commands")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page: by default DIR/report.html")


def execute(arguments: argparse.Namespace) -> int:
    """Write the page."""
    with user_errors("report"):
        print(f"Open {report(arguments.folder, arguments.out)}")
    return 0
