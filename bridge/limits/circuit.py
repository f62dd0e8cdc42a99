"""Bounds of the relay client: reservations, circuits, keeping them."""

from __future__ import annotations

from typing import Final

MIN_LEASE: Final = 60.0
"""A reservation of less is renewed as if it had this: clocks differ, and nobody renews each second."""

MAX_LEASE: Final = 24 * 3600.0
"""A reservation of more is renewed as if it had this: u64 seconds fit no timer."""

RENEW_PAST: Final = 2.0
"""Behind the end of an earlier grant: relays tell it in whole seconds, and clocks differ a little."""

RENEW_ENDS: Final = 8
"""Ends of earlier grants that are waited for. Renewals come half a lease apart but for these, so that there are few."""

RESERVE_TIMEOUT: Final = 15.0
"""One RESERVE on a connection that stands: three round trips and a signature (go: 60)."""

RELAY_DIAL_TIMEOUT: Final = 20.0
"""Reaching the relay itself: name lookup, the connect and the upgrade."""

HOP_TIMEOUT: Final = 20.0
"""One CONNECT: the relay asks the target meanwhile, ours for up to 18 s (go: 60). Below TRANSPORT_DIAL_TIMEOUT."""

STOP_TIMEOUT: Final = 10.0
"""From a relay's offer to our answer; the message arrives with the stream (go: 10 on the target)."""

RESERVE_BACKOFF_FIRST: Final = 0.2
RESERVE_BACKOFF_FACTOR: Final = 1.6
RESERVE_BACKOFF_MAX: Final = 60.0
"""Waiting before the next try: a relay back after t seconds is found within about 0.6 t more."""

RESERVE_REFUSED_WAIT: Final = 5.0
"""At least this after a refusal: the relay is there, and asking fast only feeds its rate limit."""

RESERVE_STABLE: Final = 30.0
"""A reservation held for this long resets the back-off; a relay that drops us at once does not."""

MAX_RELAYS: Final = 16
"""Relays kept at once (go: 2 wanted)."""

MAX_INBOUND_CIRCUITS: Final = 256
MAX_INBOUND_CIRCUITS_PER_RELAY: Final = 128
"""Circuits offered to us that live at once; each is a whole connection."""
