"""``python -m cgsv_ext.cli``."""

import sys

from . import main

if __name__ == "__main__":  # worker processes import this module, too
    sys.exit(main())
