"""The numbers that the Kaspa wire fixes for everybody: rusty-kaspa's P2P protocol relies on each of them.

What an operator may set stands in `punchbridge_node.config`. This module imports nothing and decides nothing. Sizes are
bytes unless the name says otherwise.
"""

from __future__ import annotations

from typing import Final

MAX_MESSAGE_BYTES: Final = 1 << 30
"""The largest message that either side may decode. grpcio's default of 4 MiB is below one full inventory."""

NODE_ID_BYTES: Final = 16
"""Length of Version.id (a UUID)."""

USER_AGENT_BYTES: Final = 256
"""The user agent is cut to this many bytes of UTF-8, at a character boundary."""

REJECT_REASON_CHARS: Final = 2048
"""The part of a Reject reason that is read; longer ones are cut."""

ROUTE_CAPACITY: Final = 256
INV_TRANSACTIONS_CAPACITY: Final = 4096
TRANSACTION_CAPACITY: Final = 131_072
INV_RELAY_BLOCK_CAPACITY_PER_BPS: Final = 256
"""kaspad's capacities of routes, in messages. A full inventory route drops the message, any other full route ends the
connection."""

OUTGOING_CAPACITY: Final = (1 << 17) + 256
"""Messages: 2^17 answers to one full request, and 256 others. A full outgoing queue ends the connection."""

MAX_ADDRESSES_SENT: Final = 1000
MAX_ADDRESSES_RECEIVED: Final = 2500
"""Addresses that we send at most, and the number above which a received list is an error."""

MAX_INV_PER_MESSAGE: Final = 131_072
"""Transaction ids in one InvTransactions or RequestTransactions."""
