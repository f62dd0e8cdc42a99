"""A connection of a py-libp2p host as the rest of the house uses connections.

It owns nothing: the host made the connection and closes it. Streams that are opened here run in the bridge's nursery.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import trio
from libp2p.custom_types import TProtocol
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.protocol_muxer.exceptions import MultiselectClientError, MultiselectCommunicatorError
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.rcmgr.metrics import Direction

from punchbridge.addresses import Multiaddr, circuit_of, is_relayed, parse
from punchbridge.errors import AddressError, BridgeError, ConnectionLost, NegotiationFailed
from punchbridge.events import Path, Role
from punchbridge.identity import PeerId, peer_text
from punchbridge.libp2p.stream import FAILURES, HostStream
from punchbridge.libp2p.writes import Writes, for_the_bridge
from punchbridge.transport.base import TransportName
from punchbridge.transport.delimited import read_message
from punchbridge.transport.raw import BrokenConnection
from punchbridge.wire.identify import IDENTIFY, IdentifyInfo, decode_update
from punchbridge.wire.ping import PING, PING_SIZE, PingExchange

__all__ = ["HostConnection"]

_NEGOTIATE: Final = 10
"""Seconds for the protocol of a stream, as a whole number since py-libp2p takes one."""
_UNKNOWN: Final = Multiaddr("/ip4/0.0.0.0/tcp/0")
"""An address that py-libp2p does not tell."""

Spawn = Callable[[str, Callable[[], Awaitable[None]]], None]
"""Starts a supervised task of the bridge: what it is called in the log, and its work."""

_ids = itertools.count(1)


class HostConnection:
    """A connection to one authenticated peer. `bytes_sent` and `bytes_received` count what the bridge's streams
    carried; `rtt` is in seconds, None before the first ping; `opened_at`, by trio's clock, when the bridge saw it."""

    limit = None
    counts = None
    follows = False
    attested = None
    punched = False

    def __init__(self, raw: SwarmConn, spawn: Spawn) -> None:
        self.id = next(_ids)
        self.raw = raw
        self.peer = PeerId(raw.muxed_conn.peer_id.to_bytes())
        self.inbound = raw.direction is Direction.INBOUND
        self.role: Role = "responder" if self.inbound else "initiator"
        self.opened_at = trio.current_time()
        self.identify: IdentifyInfo | None = None
        self.identified = trio.Event()
        self.heard = trio.Event()
        self.heard.set()  # the host completed the handshake before it told of the connection
        self.closed = trio.Event()
        self.close_reason = ""
        self.bytes_sent = self.bytes_received = 0
        self.rtt: float | None = None
        self.rtt_least: float | None = None
        self.local = _UNKNOWN
        self.remote = _remote(raw)
        self.relay = _relay(self.remote)
        self.path: Path = "direct" if self.relay is None else "relay"
        self.transport: TransportName = "libp2p"
        self.writes = Writes(raw.muxed_conn)
        self._spawn = spawn

    def __repr__(self) -> str:
        return f"<HostConnection {self.id} {self.role} {self.path} {peer_text(self.peer)} {self.remote}>"

    @property
    def streams(self) -> int:
        """All streams of the connection, the host's own included."""
        return len(self.raw.get_streams())

    @property
    def closing(self) -> bool:
        """It takes no more streams."""
        return self.closed.is_set() or bool(self.raw.is_closed)

    def check_alive(self) -> None:
        """Raises ConnectionLost when the connection takes no more streams."""
        if self.closing:
            raise BrokenConnection(f"the connection to {peer_text(self.peer)} is gone ({self.close_reason})")

    async def open_stream(self, protocols: Sequence[str], *, lazy: bool = False) -> HostStream:
        """Opens a stream and agrees on the first of `protocols` that the peer supports.

        `lazy` changes nothing: py-libp2p always waits for the peer's answer. Raises NegotiationFailed, ConnectionLost.
        Cancelling resets the stream.
        """
        with for_the_bridge():
            return await self._open_stream(protocols)

    async def _open_stream(self, protocols: Sequence[str]) -> HostStream:
        self.check_alive()
        net: Any = None
        try:
            net = await self.raw.new_stream()
            chosen = await MultiselectClient().select_one_of(
                [TProtocol(one) for one in protocols], MultiselectCommunicator(net), _NEGOTIATE
            )
            net.set_protocol(chosen)
        except (MultiselectClientError, MultiselectCommunicatorError) as problem:
            await _give_up(net)  # noqa: ASYNC120 - shielded there
            self.check_alive()
            raise NegotiationFailed(f"{peer_text(self.peer)} supports none of {', '.join(protocols)}") from problem
        except FAILURES as problem:
            await _give_up(net)  # noqa: ASYNC120 - shielded there
            raise ConnectionLost(f"{peer_text(self.peer)}: no stream: {problem}") from problem
        except BaseException:
            await _give_up(net)  # noqa: ASYNC102 - shielded there
            raise
        stream = HostStream(self, net, str(chosen), inbound=False)
        self._spawn("a stream of py-libp2p", stream.run)
        return stream

    async def ping(self) -> float:
        """One round trip of /ipfs/ping/1.0.0 in seconds. Raises ConnectionLost, NegotiationFailed. No deadline."""
        stream = await self.open_stream((PING,))
        try:
            payload = os.urandom(PING_SIZE)
            exchange = PingExchange(payload, trio.current_time())
            await stream.send_all(payload)
            while (rtt := exchange.receive(await _some(stream, exchange.missing), trio.current_time())) is None:
                pass
        finally:
            stream.abort()
        self.rtt = rtt
        self.rtt_least = rtt if self.rtt_least is None else min(rtt, self.rtt_least)
        return rtt

    def prove(self) -> None:
        """The host punches by itself, if it does; there is nothing to settle here."""

    async def ask_identify(self) -> None:
        """Asks the peer who it is and what it speaks; sets `identified` whatever comes of it. Raises nothing."""
        try:
            stream = await self.open_stream((IDENTIFY,))
            try:
                self.identify = decode_update(await read_message(stream), self.peer).merged_into(None)
            finally:
                stream.abort()
        except (BridgeError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.identified.set()

    async def aclose(self, reason: str = "NORMAL") -> None:
        """Has the host close the connection. Cancelling leaves it to the host."""
        self.gone(reason)
        try:
            await self.raw.close()
        except FAILURES:
            pass

    def abort(self, reason: str) -> None:
        """Has the host close the connection, in a task of the bridge; the first reason stays."""
        if not self.closed.is_set():
            self.gone(reason)
            self._spawn("the end of a connection of py-libp2p", partial(self.aclose, reason))

    def gone(self, reason: str) -> None:
        """The host says that the connection has ended."""
        self.close_reason = self.close_reason or reason
        self.closed.set()
        self.identified.set()


async def _some(stream: HostStream, size: int) -> bytes:
    data = await stream.receive_some(size)
    if not data:
        raise ConnectionLost("the peer ended a ping without an echo")
    return data


async def _give_up(net: Any) -> None:
    if net is not None:
        with trio.move_on_after(1) as scope:
            scope.shield = True
            try:
                await net.reset()
            except FAILURES:
                pass


def _relay(remote: Multiaddr) -> PeerId | None:
    """The relay that a circuit's address names."""
    try:
        circuit = circuit_of(remote)
    except AddressError:
        return None
    return None if circuit is None else circuit.relay_peer


def _remote(raw: SwarmConn) -> Multiaddr:
    """The address at the other end; a circuit's one is preferred, since py-libp2p may list the relay's beside it."""
    found = []
    for addr in raw.get_transport_addresses():
        try:
            found.append(parse(str(addr)))
        except AddressError:
            continue
    return next((one for one in found if is_relayed(one)), found[0] if found else _UNKNOWN)
