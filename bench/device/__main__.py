"""Measurements and checks that need a GPU: `python bench/device COMMAND --help`.

check      every stage, or some of them; what bench/device_check.sh runs
about      what was built and where it runs
measure    the timed cases, or some of them
host       what a call costs the host, by pytest-benchmark
kernels    the profile of each kernel
sanitize   compute-sanitizer's tools over `exercise`
exercise   every op on small inputs, against the CPU
tables     a results file as Markdown
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMMANDS = [line.split()[0] for line in (__doc__ or "").splitlines()[2:]]


def main() -> int:
    """Run the command with this folder's neighbours on the path."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(__doc__)
        return 2
    sys.path[:1] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "python_tests")]
    status: int = import_module(sys.argv[1]).main(sys.argv[2:])
    return status


if __name__ == "__main__":
    sys.exit(main())
