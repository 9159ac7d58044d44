"""`python -m cifar_core`: the command line."""

import sys

from cifar_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
