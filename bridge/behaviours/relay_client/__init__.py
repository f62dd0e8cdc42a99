"""Circuit relay v2, the client's side: reservations, circuits out and in."""

from punchbridge.behaviours.relay_client.client import RelayClient
from punchbridge.behaviours.relay_client.exchange import Reservation

__all__ = ["RelayClient", "Reservation"]
