"""The command ``cgsv``: one module per subcommand, imported when it is called for.

A module's ``configure`` adds its options to a parser and ``execute`` does it and returns the exit status.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

import cgsv_ext

COMMANDS = {
    "demo": "train 5 and 10 agents on handwritten digits and reward them fairly (about a minute)",
    "run": "run one experiment",
    "table": "the paper's Tables 1 to 3, and what to read beside ρ",
    "figure": "the paper's Figures 1 to 7",
    "report": "gather finished runs into one page",
    "bench": "time rounds on several processes of this machine",
    "env": "print what a bug report needs",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``cgsv`` with the given arguments, by default those of the process; the exit status.

    It is 0, or 1 where something failed, 2 where the arguments or the data are wrong, and 130 after Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        return _main(argv)
    except ModuleNotFoundError as error:
        print(f"cgsv {argv[0]} needs {error.name}: pip install 'cgsv_ext[fl]'", file=sys.stderr)
        return 1
    except ImportError as error:  # the compiled library does not load; the text says why
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Finished runs are kept: the same command goes on from here.", file=sys.stderr)
        return 130


def _main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="cgsv", description="Gradient-driven rewards for fairness in collaborative machine learning."
    )
    parser.add_argument("--version", action="version", version=f"cgsv {cgsv_ext.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        # The other commands' modules, and all they need, are not imported.
        if name in argv[:1]:
            module = importlib.import_module(f".{name}", __name__)
            module.configure(command)
            command.set_defaults(execute=module.execute)
    arguments = parser.parse_args(argv)
    status: int = arguments.execute(arguments)
    return status
