"""Bounds of the swarm: connections, dials, commands, and how long each of them may take."""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.config.values import KIB, Bound, Bytes, Checked, Count, Seconds

__all__ = ["SwarmLimits"]


@dataclass(frozen=True, kw_only=True)
class SwarmLimits(Checked):
    """How many connections a swarm accepts and holds, and how it dials."""

    connections: Bound = 2048
    """Connections in all, and an eighth more of sockets in their handshake. An idle one costs about 40 KiB. When seven
    eighths are taken, an idle one gives way to a newcomer, and strangers leave the rest to those on a list."""

    idle_grace: Seconds = 10.0
    """How long a connection that came in may stand without a stream before it gives way to others while places are
    short: the oldest first. Whoever wants something asks within a second or two."""

    files_reserve: Count = 64
    """Files that accepted sockets leave to everything else when the process may open no more than a few: listeners,
    databases, names, dials, local sockets."""

    connections_per_address: Bound = 64
    """Accepted from one IPv4 address or one IPv6 /64: a carrier-grade NAT holds several honest peers (go: 8)."""

    connections_per_24: Bound = 512
    """Accepted from one IPv4 /24, while half of all connections are taken. Its customers are neighbours only."""

    connections_per_56: Bound = 128
    """Accepted from one IPv6 /56, which a provider gives to one customer: 256 nets of the size above (go: 8)."""

    connections_per_48: Bound = 256
    """Accepted from one IPv6 /48, the largest net that one site gets (go: 64)."""

    connections_per_peer: Bound = 8
    """Of one peer: a relayed one, a direct one, and a few in the act of replacing each other."""

    half_open: Bound = 256
    """Accepted, but not yet authenticated. Each lives at most `limits.muxed.upgrade_timeout`. When a bound of these is
    reached, the oldest goes that has said nothing for `half_open_grace`."""

    half_open_grace: Seconds = 1.0
    """A socket that says nothing has its place for so long even when places are short: an honest peer speaks at once,
    but it may be far away, and its first packet may be lost."""

    half_open_per_address: Bound = 32
    """The same from one IPv4 address or IPv6 /64: a second's worth of newcomers with a round trip of 300 ms."""

    half_open_per_24: Bound = 64
    """The same from one IPv4 /24 while half of `half_open` are taken."""

    half_open_per_56: Bound = 64
    """The same from one IPv6 /56: one customer leaves three quarters to the others."""

    half_open_per_48: Bound = 128
    """The same from one IPv6 /48."""

    handshakes_burst: Bound = 256
    """Handshakes that one IPv4 address or IPv6 /64 may ask for at once, when it has asked for none lately. Each costs
    about a millisecond of a core; whoever replays a recorded message pays none of it. Four times that from an IPv6 /48
    (twice from a /56), eight times from an IPv4 /24."""

    handshakes_interval: Seconds = 0.05
    """Seconds until it may ask for one more: 20 a second take some hundredths of a core. The same multiples."""

    rate_keys: Count = 16384
    """Addresses, and nets of each size, with a token bucket, about 200 bytes each. Full ones are forgotten first."""

    refusals_told: Seconds = 30.0
    """Between two `refused` events, which say how many were turned away by a bound, and whence."""

    unread: Bytes = 64 * KIB
    """Bytes of a stream of identify or of a relay's requests that wait to be read; with more it is reset. A message has
    8 KiB at most, and whoever waits for its turn would hold a window of 256 KiB."""

    transport_dial_timeout: Seconds = 30.0
    """A circuit: connecting and upgrading to the relay (15 s), CONNECT, and STOP on the far side."""

    parallel_dials: Count = 8
    """Addresses of one peer that are tried at once."""

    dial_addresses: Count = 32
    """Addresses tried in one dial, names resolved: at 8 at once and 15 s each this ends within a minute."""

    dial_stagger: Seconds = 0.25
    """Head start of one address over the next (RFC 8305 section 5: 250 ms)."""

    transport_stagger: Seconds = 0.1
    """Head start of one transport over the other one at the same host. TCP has it, which costs less for each byte,
    unless QUIC was what led to the peer last time. Where a round trip takes longer than about half of this, QUIC still
    wins."""

    dialled_peers: Count = 1024
    """Peers of which is known by which transport they were reached last."""

    commands: Count = 4096
    """Commands in progress; each holds a task. Beyond it a command fails at once instead of waiting on others."""

    mailbox: Count = 256
    """Commands that wait for the swarm actor; a caller waits when it is full."""

    close_timeout: Seconds = 1.0
    """GoAway and the flush of what is queued; after it the connection is cut."""
