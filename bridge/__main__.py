"""`python -m punchbridge` is the program `punchbridge`."""

import sys

from punchbridge.cli import main

sys.exit(main())
