"""`python -m tensorgraph` is the command line."""

import sys

from tensorgraph.cli import main

if __name__ == "__main__":
    sys.exit(main())
