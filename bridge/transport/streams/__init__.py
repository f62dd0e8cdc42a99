"""The streams of a connection above any engine: negotiation, waiting readers, writers and openers, and pings."""
