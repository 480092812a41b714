"""Run ghnas from a checkout: `python cli.py search --space darts --budget 100`."""

import sys

from ghnas.cli import main

if __name__ == "__main__":
    sys.exit(main())
