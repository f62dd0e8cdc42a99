"""`python -m punchbridge.cli` is `punchbridge`."""

import sys

from punchbridge.cli import main

sys.exit(main())
