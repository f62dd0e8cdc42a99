"""The host: the only room that puts swarm, behaviours and sessions together."""
