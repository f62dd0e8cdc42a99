"""Bounds of the relay client: reservations, circuits, and how they are kept."""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.config.values import Checked, Count, Seconds, Share
from punchbridge.errors import ConfigError

__all__ = ["RelayClientLimits"]


@dataclass(frozen=True, kw_only=True)
class RelayClientLimits(Checked):
    """Reservations at relays, circuits through them, and the waits of both."""

    relays: Count = 16
    """Relays kept at once (go: 2 wanted)."""

    inbound_circuits: Count = 256
    """Circuits offered to us that live at once; each is a whole connection."""

    inbound_circuits_per_relay: Count = 128
    """The same of one relay."""

    dial_timeout: Seconds = 20.0
    """Reaching a relay's address: name lookup, the connect and the upgrade."""

    reserve_timeout: Seconds = 15.0
    """One RESERVE on a connection that stands: three round trips and a signature (go: 60)."""

    circuit_timeout: Seconds = 20.0
    """One CONNECT: the relay asks the target meanwhile, ours for up to 18 s (go: 60). Below
    `limits.swarm.transport_dial_timeout`."""

    offer_timeout: Seconds = 10.0
    """From a relay's offer to our answer; the message arrives with the stream (go: 10 on the target)."""

    lease_least: Seconds = 60.0
    """A reservation of less is renewed as if it had this: clocks differ, and nobody renews each second."""

    lease_most: Seconds = 24 * 3600.0
    """A reservation of more is renewed as if it had this: u64 seconds fit no timer."""

    renew_earliest: Share = 0.50
    """The share of the lease after which it is renewed at the earliest."""

    renew_latest: Share = 0.75
    """The share after which it is renewed at the latest (rust: 0.75). The moment is drawn at
    random, so that the clients of a restarted relay do not come back all at once."""

    renew_past: Seconds = 2.0
    """Behind the end of an earlier grant: relays tell it in whole seconds, and clocks differ a little."""

    renew_ends: Count = 8
    """Ends of earlier grants that are waited for. Renewals come half a lease apart but for these, so that there are
    few."""

    backoff_first: Seconds = 0.2
    """Waiting before the second try; each further wait is 1.6 times as long. A relay back after t seconds is found
    within about 0.6 t more."""

    backoff_most: Seconds = 60.0
    """The longest such wait."""

    refused_wait: Seconds = 5.0
    """At least this after a refusal: the relay is there, and asking fast only feeds its rate limit."""

    stable: Seconds = 30.0
    """A reservation held for this long resets the back-off; a relay that drops us at once does not."""

    notice_streams: Count = 32
    """Streams of /punchbridge/notice/1.0.0 at once, of all relays: two for each relay that may be kept."""

    notice_streams_per_relay: Count = 2
    """The same of one relay, which sends one at a time to a connection."""

    notice_timeout: Seconds = 5.0
    """From a relay's notice to its end; the message arrives with the stream."""

    notice_burst: Count = 3
    """Warnings of a second program with our key that one relay may cause at once. A notice that ends our reservation
    is not counted, since there is none to end after it."""

    notice_interval: Seconds = 60.0
    """Seconds until a relay may cause one more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for less, more in (("lease_least", "lease_most"), ("renew_earliest", "renew_latest")):
            least, most = getattr(self, less), getattr(self, more)
            if most < least:
                raise ConfigError(f"{more} is {most:g}; give at least {less}, {least:g}")
