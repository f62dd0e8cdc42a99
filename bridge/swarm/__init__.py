"""The swarm: listeners, connections and dials of one node behind one object."""
