"""What we know of our place in the network."""
