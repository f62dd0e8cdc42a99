"""The messages of the wire as bytes and values. Pure: no I/O, no clock."""
