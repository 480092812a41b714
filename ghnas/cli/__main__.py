"""`python -m ghnas.cli`."""

import sys

from ghnas.cli import main

sys.exit(main())
