"""``python -m mvcseg``: the command line."""

import sys

from mvcseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
