"""Bounds of the local end: sockets between programs of this machine and the streams of peers."""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.config.values import KIB, Bytes, Checked, Count, Seconds

__all__ = ["LocalLimits"]


@dataclass(frozen=True, kw_only=True)
class LocalLimits(Checked):
    """Channels, servers, `expose` and `forward`, and the pumps that carry their bytes."""

    read: Bytes = 256 * KIB
    """One read of a pump; beyond it throughput no longer rises (measured: 64 KiB has half the rate)."""

    bulk: Bytes = 64 * KIB
    """After a read of this much the next one goes into memory of its own, where the stream would keep a copy: it
    spares that copy, at the price of an allocation of `read`."""

    turns: Count = 2
    """Operations that did not block before a pump lets other tasks run: half a MiB, about 1 ms, which is what a small
    call beside a bulk transfer waits for each task of the bulk."""

    linger: Seconds = 5.0
    """The local program is gone: the remote side may still end its direction cleanly this long, then it is reset."""

    coalesce_most: Seconds = 0.004
    """Before a read the network thread gives way to threads that may be writing calls, which let the processor go
    within 2 ms. One that computes in Python keeps the interpreter lock for 5 ms (`sys.getswitchinterval`)."""

    coalesce_pause: Seconds = 0.03
    """After giving way for longer than that no read gives way for this time: to give way to a computing thread before
    each read made calls last three times as long."""

    endpoints: Count = 1024
    """Unix listeners of channels, one for each target, protocol and path; they live as long as a channel."""

    endpoint_streams: Count = 256
    """Connections that gRPC holds at once through one endpoint: one for each channel with its own subchannel pool."""

    served_streams: Count = 1024
    """Inbound streams handed to one server, each a connection of it. Peer ids cost nothing, so this is what bounds
    memory."""

    served_streams_per_peer: Count = 256
    """The same from one peer: as many as a peer may have sessions."""

    forwarded: Count = 512
    """Connections through one `forward` listener at once; each is one stream."""

    tell_refused: Seconds = 60.0
    """Between two `local.refused` events of one `forward` listener; those in between are counted. A program that tries
    again and again must not fill the log."""

    errors: Count = 1024
    """Peers whose last failure `last_error` can tell; the oldest is forgotten."""

    accept_pause: Seconds = 0.1
    """After accept fails for want of descriptors or memory: time for others to give some back."""

    first_byte: Seconds = 0.3
    """`expose` connects to its server once the caller has sent something, or after this long for servers that speak
    first: a caller that is mute costs the server no connection until then."""

    silent: Count = 64
    """Connections of `expose` to its server for callers who are on no list and have said nothing yet. For one more the
    oldest goes of the peer that has most of them: a crowd of mute strangers must not fill the server's own queue."""

    connect_timeout: Seconds = 5.0
    """To the program behind `serve` or `expose`, on this machine or next to it."""
