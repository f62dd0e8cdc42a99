"""`python -m node.cli` is `punchbridge`."""

import sys

from node.cli import main

sys.exit(main())
