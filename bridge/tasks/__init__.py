"""Structured concurrency that every room shares: nurseries and named supervisors. Knows nothing of networks."""
