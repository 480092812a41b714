"""`python -m ghnas`."""

import sys

from ghnas.cli import main

sys.exit(main())
