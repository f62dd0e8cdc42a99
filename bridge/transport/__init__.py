"""What carries bytes to a peer: the interfaces, and beside them one folder for each transport."""
