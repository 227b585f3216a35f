"""`python -m gradient`: the command line."""

import sys

from gradient.cli import main

if __name__ == "__main__":
    sys.exit(main())
