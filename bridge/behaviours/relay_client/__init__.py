"""Circuit relay v2, the client's side: reservations, circuits out and in."""

from bridge.behaviours.relay_client.client import RelayClient
from bridge.behaviours.relay_client.exchange import Reservation

__all__ = ["RelayClient", "Reservation"]
