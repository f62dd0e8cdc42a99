"""The protocols that every node speaks beside its streams: identify, ping, relay client, DCUtR, AutoNAT."""
