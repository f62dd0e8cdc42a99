"""A stock py-libp2p host as a peer of the interop suite: Noise and Yamux forced, everything else as it comes.

Orders are carried out with its own circuit client, the way its documentation does it.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from importlib.metadata import version
from typing import Any

import trio
from exercises import HANDLERS, Handler, SeenReset, exercise, many
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_static_key
from libp2p.host.ping import PingService
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.identity.identify_push.identify_push import push_identify_to_peers
from libp2p.network.stream.exceptions import StreamEOF, StreamReset
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo, info_from_p2p_addr
from libp2p.peer.peerstore import PeerStoreError
from libp2p.relay.circuit_v2.config import RelayConfig, RelayRole
from libp2p.relay.circuit_v2.dcutr import DCUtRProtocol
from libp2p.relay.circuit_v2.protocol import PROTOCOL_ID as HOP
from libp2p.relay.circuit_v2.protocol import CircuitV2Protocol
from libp2p.relay.circuit_v2.resources import RelayLimits
from libp2p.relay.circuit_v2.transport import CircuitV2Transport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport
from libp2p.tools.anyio_service import background_trio_service
from libp2p.utils.varint import read_length_prefixed_protobuf
from multiaddr import Multiaddr
from wire import PROTOCOLS, Order, options, say, serve_orders

OWN_IDENTIFY = 5.0
"""Seconds for its own asking; it does not ask while it does over an earlier circuit (BasicHost._identify_inflight)."""


class Wrapped:
    """A py-libp2p stream as the exercises want it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def read(self, size: int) -> bytes:
        try:
            data: bytes = await self._stream.read(size)
        except StreamEOF:
            return b""
        except StreamReset as problem:
            raise SeenReset from problem
        return data

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)

    async def end(self) -> None:
        await self._stream.close()

    async def reset(self) -> None:
        await self._stream.reset()


def serving(handler: Handler) -> Callable[[Any], Awaitable[None]]:
    async def serve(stream: Any) -> None:
        await handler(Wrapped(stream))

    return serve


class CircuitLog(logging.Handler):
    """What its circuit client logs: it tells of a refusal's status and of renewals nowhere else."""

    last = "nothing was logged"

    def __init__(self) -> None:
        super().__init__()
        logger = logging.getLogger("libp2p.relay.circuit_v2.transport")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()
        if self.last.startswith("Refreshed reservation for relay "):
            say({"event": "reservation", "relay": self.last.rpartition(" ")[2], "renewal": True})


class Peer:
    """Carries out orders on one host."""

    def __init__(self, host: Any, circuits: CircuitV2Transport, nursery: trio.Nursery) -> None:
        self._host = host
        self._network = host.get_network()
        self._circuits = circuits
        self._nursery = nursery
        self._said = CircuitLog()

    async def obey(self, order: Order) -> dict[str, Any]:
        name = order["do"]
        if name in PROTOCOLS:
            return await self._stream(name, order)
        result: dict[str, Any] = await getattr(self, f"do_{name}")(order)
        return result

    async def do_dial(self, order: Order) -> dict[str, Any]:
        text = order["addr"]
        if "/p2p-circuit" not in text:
            info = info_from_p2p_addr(Multiaddr(text))
            await self._network.dial_addr(info.addrs[0], info.peer_id)
            return {"peer": str(info.peer_id)}
        relay, _, target = text.partition("/p2p-circuit/p2p/")
        peer = ID.from_base58(target)
        self._host.get_peerstore().clear_addrs(peer)  # or it takes the way of an earlier dial
        raw = await self._circuits.dial_peer_info(
            PeerInfo(peer, [Multiaddr(text)]), relay_info=info_from_p2p_addr(Multiaddr(relay))
        )
        await self._host.upgrade_outbound_connection(raw, peer)
        return {"peer": target}

    async def do_reserve(self, order: Order) -> dict[str, Any]:
        info = info_from_p2p_addr(Multiaddr(order["addr"]))
        await self._host.connect(info)
        stream = await self._host.new_stream(info.peer_id, [HOP])
        if not await self._circuits.reserve(stream, info.peer_id, self._nursery):
            raise RuntimeError(self._said.last)
        return {"addrs": [f"{order['addr']}/p2p-circuit/p2p/{self._host.get_id()}"]}

    async def do_conns(self, order: Order) -> dict[str, Any]:
        return {"conns": [describe(one) for one in self._network.get_connections(ID.from_base58(order["peer"]))]}

    async def do_listen(self, order: Order) -> dict[str, Any]:
        """It knows a listener by the address it was asked for, so port 0 serves only once; and it pushes when told."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            addr = f"/ip4/127.0.0.1/tcp/{sock.getsockname()[1]}"
        await self._network.listen(Multiaddr(addr))
        await push_identify_to_peers(self._host)
        return {"addr": addr}

    async def do_forget(self, order: Order) -> dict[str, Any]:
        self._host.get_peerstore().clear_protocol_data(ID.from_base58(order["peer"]))
        return {}

    async def do_close(self, order: Order) -> dict[str, Any]:
        await self._host.disconnect(ID.from_base58(order["peer"]))
        return {}

    async def do_ping(self, order: Order) -> dict[str, Any]:
        # Its own figures are whole milliseconds, so the time is taken here.
        service, times = PingService(self._host), []
        for _ in range(order["count"]):
            began = time.monotonic()
            await service.ping(ID.from_base58(order["peer"]), 1)
            times.append((time.monotonic() - began) * 1000)
        return {"ms": times}

    async def do_identify(self, order: Order) -> dict[str, Any]:
        store, peer = self._host.get_peerstore(), ID.from_base58(order["peer"])
        protocols: list[str] = []
        with trio.move_on_after(OWN_IDENTIFY):
            while not protocols:
                await trio.sleep(0.05)
                with suppress(PeerStoreError):
                    protocols = store.get_protocols(peer)
        if not protocols:
            stream = await self._host.new_stream(peer, [IDENTIFY])
            told = Identify()
            told.ParseFromString(await read_length_prefixed_protobuf(stream, use_varint_format=True))
            protocols = list(told.protocols)
        return {"agent": "", "protocols": list(protocols), "listen": [str(addr) for addr in store.addrs(peer)]}

    async def _stream(self, name: str, order: Order) -> dict[str, Any]:
        peer = ID.from_base58(order["peer"])

        async def opened() -> Wrapped:
            return Wrapped(await self._host.new_stream(peer, [PROTOCOLS[name]]))

        return await (many(opened, order["count"]) if name == "many" else exercise(name, await opened(), order))


def describe(connection: Any) -> dict[str, Any]:
    addrs = connection.get_transport_addresses()
    remote = str(addrs[0]) if addrs else ""
    return {
        "remote": remote,
        "relay": "relay" in str(connection.get_connection_type()).lower(),
        "inbound": "inbound" in str(connection.direction).lower(),
    }


async def main() -> None:
    given, keys = options(), create_new_key_pair()
    noise = Transport(keys, noise_privkey=create_static_key().private_key)
    host: Any = new_host(key_pair=keys, sec_opt={NOISE: noise}, muxer_preference="YAMUX")
    limits = RelayLimits(
        duration=given.limit_seconds or 86400,
        data=given.limit_bytes or 1 << 40,
        max_circuit_conns=given.circuits or 100,
        max_reservations=given.reservations,
        reservation_ttl=given.ttl,
    )
    protocol = CircuitV2Protocol(host, limits=limits, allow_hop=given.relay)
    circuits = CircuitV2Transport(
        host, protocol, RelayConfig(roles=RelayRole.HOP if given.relay else RelayRole.STOP, limits=limits)
    )
    for name, handler in HANDLERS.items():
        host.set_stream_handler(name, serving(handler))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(host.run(listen_addrs=[Multiaddr(addr) for addr in given.listen]))
        await stack.enter_async_context(background_trio_service(protocol))
        if given.punch:
            await stack.enter_async_context(background_trio_service(DCUtRProtocol(host)))
        await protocol.event_started.wait()
        addrs = [str(addr) for addr in host.get_addrs()]
        say({"event": "ready", "peer": str(host.get_id()), "addrs": addrs, "version": f"py-libp2p {version('libp2p')}"})
        nursery = await stack.enter_async_context(trio.open_nursery())
        await serve_orders(Peer(host, circuits, nursery).obey)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
