"""The version of punchbridge, said once; the build reads it from this file's text, and programs announce it."""

__version__ = "0.1.0"

AGENT = f"punchbridge/{__version__}"
"""How a bridge calls itself to its peers."""
