"""Bounds of the gRPC bridge: pumps, channels, servers, forwarding."""

from __future__ import annotations

from typing import Final

from punchbridge.limits import KIB, MIB

MAX_GRPC_MESSAGE: Final = 1024 * MIB
"""Kaspa's own bound for one message."""

PUMP_READ: Final = 256 * KIB
"""One read of the pump; beyond it throughput no longer rises (measured: 64 KiB has half the rate)."""

PUMP_BULK: Final = 64 * KIB
"""After a read of this much the next one goes into memory of its own, where the stream would keep a copy: it spares
that copy, at the price of an allocation of PUMP_READ."""

PUMP_PIECES: Final = 32
"""Received pieces that go to the local socket as they are; IOV_MAX is 1024."""

PUMP_TURNS: Final = 2
"""Operations that did not block before a pump lets other tasks run: half a MiB, about 1 ms, which is what a small
call beside a bulk transfer waits for each task of the bulk."""

COALESCE_MOST: Final = 0.004
COALESCE_PAUSE: Final = 0.03
"""Seconds. Threads that write calls let the processor go within 2 ms, but one that computes in Python keeps the
interpreter lock for 5 ms (`sys.getswitchinterval`): to give way to it before each read made calls last three times as
long."""

PUMP_LINGER: Final = 5.0
"""The local program is gone: the remote side may still end its direction cleanly this long, then it is reset."""

MAX_CHANNEL_ENDPOINTS: Final = 1024
"""Unix listeners of channels, one for each target, protocol and path; they live as long as the bridge."""

MAX_SERVED_STREAMS: Final = 1024
MAX_SERVED_STREAMS_PER_PEER: Final = 256
"""Inbound streams handed to one server, each a connection of it: in all, and from one peer. As many as a peer may have
sessions; peer ids cost nothing, so what bounds memory is the number in all."""

MAX_ENDPOINT_STREAMS: Final = MAX_SERVED_STREAMS_PER_PEER
"""Connections that gRPC holds at once through one endpoint: one for each channel with its own subchannel pool."""

MAX_FORWARDED: Final = 512
"""Connections through one `forward` listener at once; each is one stream."""

MAX_REMEMBERED_ERRORS: Final = 1024
"""Peers whose last failure `last_error` can tell; the oldest is forgotten."""

ACCEPT_PAUSE: Final = 0.1
"""After accept fails for want of descriptors or memory: time for others to give some back."""

LOCAL_CONNECT_TIMEOUT: Final = 5.0
"""To the program behind `serve` or `expose`, on this machine or next to it."""
