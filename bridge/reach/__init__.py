"""What decides which addresses reach whom: NAT, candidates, paths, verdicts. Pure: no I/O, clocks are arguments."""
