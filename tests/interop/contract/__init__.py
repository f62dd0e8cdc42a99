"""Entry points for the published hole-punch suites, driven by the environment and Redis: `python -m contract.ours`."""
