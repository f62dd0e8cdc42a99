"""Bounds of the small services: identify, ping, AutoNAT.

How long a message, and how many addresses it may hold, is fixed by what other implementations read: that stands beside
the codecs.
"""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.config.values import KIB, Bytes, Checked, Count, Seconds

__all__ = ["AutonatLimits", "IdentifyLimits", "PingLimits"]


@dataclass(frozen=True, kw_only=True)
class IdentifyLimits(Checked):
    """Identify and its pushes."""

    timeout: Seconds = 5.0
    """One question and its answer, or one push."""

    messages: Count = 10
    """Messages that are merged from one stream (go: 10)."""

    read: Bytes = 8 * KIB
    """One message from others (go sends up to 8 KiB); ours are half as long at most."""

    push_delay: Seconds = 0.2
    """Changes within this time go out in one push: a reservation brings several addresses at once."""

    pushes_taken: Count = 30
    """Pushes of one connection that are read at once; each may hold 64 addresses, which take 4 ms to read."""

    push_taken_every: Seconds = 1.0
    """After those, one push in this time. One waits for it, `timeout` at most, and what comes meanwhile is refused: a
    push that waits may hold a whole window. We, like js, push once for many changes."""

    interface_check: Seconds = 30.0
    """How soon a change of the interfaces' addresses is told to peers. Reading them costs under a millisecond."""

    parallel_pushes: Count = 32
    """Peers that are told of a change at the same time."""

    streams: Count = 512
    """Inbound identify streams, and apart from them push streams."""

    streams_per_peer: Count = 8
    """The same of one peer: one for each of its connections."""


@dataclass(frozen=True, kw_only=True)
class PingLimits(Checked):
    """/ipfs/ping/1.0.0."""

    timeout: Seconds = 10.0
    """One echo (go: 10 s)."""

    idle_timeout: Seconds = 60.0
    """An inbound ping stream without a ping for this long is closed."""

    streams: Count = 256
    """Inbound ping streams."""

    streams_per_peer: Count = 2
    """The same of one peer (specs/ping: at most two)."""

    burst: Count = 1000
    """Pings of one address that are answered as they come; go's own client asks again with each answer. Each costs
    30 µs of processor time (measured)."""

    every: Seconds = 0.005
    """After those, one in this time; further ones wait. 200 a second are 0.6 % of a processor. 0: no bound."""

    stranger_burst: Count = 10
    """The same for a peer that is not known here, which has one ping stream."""

    stranger_every: Seconds = 1.0
    """After those, one of its pings in this time."""


@dataclass(frozen=True, kw_only=True)
class AutonatLimits(Checked):
    """AutoNAT v2, as a client and as a server."""

    boot_delay: Seconds = 2.0
    """From the moment that a server is known to the first probe: the punch goes first."""

    refresh: Seconds = 900.0
    """An address whose reachability is known is asked about again after this time."""

    retry: Seconds = 90.0
    """An address of which nobody knew anything is asked about again after this time."""

    servers: Count = 4
    """Servers that are asked in one round."""

    probes: Count = 4
    """Addresses of each transport that one server is asked about in one round."""

    stream_timeout: Seconds = 20.0
    """One request: dial data, dial, dial-back, response (go: 15 s stream plus 10 s dial)."""

    silence: Seconds = 5.0
    """A server that ends a request without an answer after this long has tried a dial; sooner, it says nothing."""

    control_timeout: Seconds = 5.0
    """A question that costs no dial is answered within this by a server that is there and not overloaded."""

    dial_timeout: Seconds = 5.0
    """Connecting to whoever asks our server; the upgrade has its own time on top."""

    dial_back_timeout: Seconds = 5.0
    """Bringing the nonce over a connection that stands."""

    streams: Count = 32
    """Inbound requests at once, and apart from them dial-backs."""

    streams_per_peer: Count = 2
    """The same of one peer."""

    requests_per_minute: Count = 60
    """Requests that our server takes (go: 60)."""

    requests_per_peer: Count = 12
    """The same of one peer (go: 12)."""

    requests_at_once: Count = 1
    """Requests of one peer that are under way at the same time (go: 1)."""

    data_requests_per_minute: Count = 12
    """Requests that our server takes although the address is not the client's own, so that dial data is due
    (go: 12)."""

    confirmations: Count = 3
    """Agreeing answers that settle an address beyond doubt; one decides already when no other server disagrees."""

    stale: Seconds = 2400.0
    """A server that is still there is asked again each `refresh`: a word older than this is of one that has gone."""

    tracked: Count = 32
    """Own addresses whose reachability is remembered."""
