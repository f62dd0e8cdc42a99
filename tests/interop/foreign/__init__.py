"""The interop suite: peers of other implementations, the rows they are put through, and the table that comes of it."""
