"""`python -m punchbridge_node.cli` is `punchbridge`."""

import sys

from punchbridge_node.cli import main

sys.exit(main())
