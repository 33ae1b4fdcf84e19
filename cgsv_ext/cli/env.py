"""``cgsv env``."""

from __future__ import annotations

import argparse

from .. import collect_env


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what it does; there are no options."""
    parser.description = "Print versions, processors and settings: what a bug report needs."


def execute(arguments: argparse.Namespace) -> int:
    """Print it."""
    collect_env.main()
    return 0
