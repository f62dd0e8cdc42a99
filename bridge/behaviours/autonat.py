"""AutoNAT v2 as a behaviour: asks servers whether our addresses can be reached, and answers others who ask.

The server dials back from a throw-away socket and identity, never from the listening port: a client that dialled us
from its own listening port would otherwise be reached through a hole of its own making (A8). Reachability is told
by events and `reachability`; what follows from it is decided elsewhere.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import trio

from punchbridge.addresses import Multiaddr, Proto, endpoint_of, is_relayed, parse, transport_of
from punchbridge.errors import ConnectionLost, ProtocolViolation, StreamReset
from punchbridge.events import AutonatResult, ConnectionClosed, Event, Identified, ObservedAddress, TransportName
from punchbridge.identity import PeerId, peer_text
from punchbridge.reach.autonat import Choice, DataMeter, Quota, Reachability, Refused, Tally, choose
from punchbridge.reach.candidates import Scope, own_candidates
from punchbridge.swarm.swarm import Swarm
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.tasks.nurseries import flat_nursery
from punchbridge.tasks.signal import Signal
from punchbridge.transport.base import Connection, Stream, Transport
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.wire import autonat
from punchbridge.wire.autonat import Answer, DataDue, Request

__all__ = ["Autonat", "Outside"]

Outside = Callable[[], AbstractAsyncContextManager[Transport]]
"""Makes a transport for one dial and ends it. What it dials from has dialled nobody before: where a client has answered
once, its NAT may let the next dial in that comes from there (A8)."""

_log = logging.getLogger(__name__)
_NOWHERE = parse("/ip4/192.0.2.1/tcp/1")
"""For documentation only (RFC 5737): refused, or dial data asked for, before anybody would dial it."""


@dataclass(eq=False)
class _Probe:
    """A request of ours under way."""

    addr: Multiaddr
    seen: trio.Event = field(default_factory=trio.Event)
    asked: float | None = None
    """When the server had everything that it needs for its dial."""


class Autonat:
    """`client`: probe our addresses at connected servers; `server`: answer requests, with dials by `outside`, for each
    protocol of ports a transport that is made for one dial, with another identity and a port of its own. Start `run`
    once."""

    def __init__(
        self, swarm: Swarm, outside: Mapping[Proto, Outside], *, client: bool = True, server: bool = False
    ) -> None:
        self._swarm = swarm
        self._limits = swarm.config.limits.autonat
        self._outside = outside
        self._client = client
        self._server = server
        self._tally = Tally(self._limits)
        self._quota = Quota(self._limits)
        self._probes: dict[int, _Probe] = {}
        self._servers: dict[int, PeerId] = {}
        self._asked: dict[tuple[PeerId, str], float] = {}
        self._news = Signal()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves and probes until cancelled."""
        total, per_peer = self._limits.streams, self._limits.streams_per_peer
        if self._server:
            await self._swarm.handle(
                autonat.DIAL_REQUEST,
                self._serve,
                max_streams=total,
                max_per_peer=per_peer,
                relayed=False,
            )
        unsubscribe = None
        try:
            if self._client:
                await self._swarm.handle(
                    autonat.DIAL_BACK,
                    self._dialled_back,
                    max_streams=total,
                    max_per_peer=per_peer,
                    relayed=False,
                    audience=self._awaited,
                )
                unsubscribe = self._swarm.events.subscribe(self._on_event)
            task_status.started()
            if self._client:
                await self._probe_for_ever()
            await trio.sleep_forever()
        finally:
            if unsubscribe is not None:
                unsubscribe()

    def _awaited(self, connection: Connection) -> bool:
        """Servers dial back under another id than the one that was asked, so anybody may while an answer is due."""
        return bool(self._probes) or self._swarm.gater.known(connection)

    @property
    def reachability(self) -> Reachability:
        """public when one of our addresses is, private when none is, unknown before anybody answered."""
        return self._tally.overall()

    @property
    def reachability_by_transport(self) -> dict[TransportName, Reachability]:
        """The same for the addresses of each transport alone: many a network lets one of them in and not the other."""
        return {"tcp": self._tally.overall("tcp"), "quic": self._tally.overall("udp")}

    def reachability_of(self, addr: Multiaddr) -> tuple[Reachability, int]:
        """The verdict for one of our addresses, and how many servers agree on it."""
        return self._tally.reachability(addr)

    def network_changed(self) -> None:
        """What servers found was about another place: it is forgotten, and they are asked anew."""
        self._tally = Tally(self._limits)
        self._asked.clear()
        self._news.notify()

    # --- client -------------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Identified):
            connection = self._swarm.connection(event.connection)
            if connection is None or connection.path != "direct" or autonat.DIAL_REQUEST not in event.protocols:
                return
            self._servers[connection.id] = connection.peer
            self._news.notify()
        elif isinstance(event, ObservedAddress):
            self._news.notify()
        elif isinstance(event, ConnectionClosed):
            self._servers.pop(event.connection, None)

    async def _probe_for_ever(self) -> None:
        while True:
            seen = self._news.number
            if not self._servers:
                await self._news.beyond(seen)
            await trio.sleep(self._limits.boot_delay)
            seen = self._news.number
            await self._round()
            with trio.move_on_after(self._limits.refresh if self.reachability != "unknown" else self._limits.retry):
                await self._news.beyond(seen)

    def _scope(self, loopback: bool) -> Scope:
        return Scope.chosen(self._swarm.config.allow_private, on_machine=loopback)

    async def _round(self) -> None:
        """Asks each server about each address, unless it was asked lately; forgets what is no address of ours now."""
        servers = {peer: self._swarm.connection(number) for number, peer in self._servers.items()}
        ours: set[Multiaddr] = set()
        for peer, connection in list(servers.items())[: self._limits.servers]:
            if connection is None or connection.closed.is_set():
                continue
            addrs = self._addresses(connection)
            ours.update(addrs)
            for addr in _few_of_each(addrs, self._limits.probes):
                now = trio.current_time()
                due = self._limits.refresh if self._tally.reachability(addr)[0] != "unknown" else self._limits.retry
                if now - self._asked.get((peer, str(addr)), -due) < due:
                    continue
                self._asked[peer, str(addr)] = now
                await self._probe(connection, addr)
        for addr in self._tally.keep(ours) if ours else ():
            self._swarm.set_external(addr, False)
        horizon = trio.current_time() - self._limits.refresh
        self._asked = {key: at for key, at in self._asked.items() if at > horizon}

    def _addresses(self, server: Connection) -> tuple[Multiaddr, ...]:
        remote = endpoint_of(server.remote)
        local_server = remote is not None and remote.on_loopback
        listen = [addr for addr in self._swarm.listen_addrs() if not is_relayed(addr)]
        observed = self._swarm.observed.addresses(trio.current_time())
        most = self._swarm.config.limits.punch.candidates
        return own_candidates(observed, listen, self._scope(local_server), most)

    async def _probe(self, server: Connection, addr: Multiaddr) -> None:
        """One request about one address; the tally and an event take the answer."""
        nonce = secrets.randbits(64)
        probe = self._probes[nonce] = _Probe(addr)
        stream: Stream | None = None
        try:
            with trio.fail_after(self._limits.stream_timeout):
                stream = await self._swarm.open_stream(server, [autonat.DIAL_REQUEST])
                answer = await self._ask(stream, probe, nonce)
                await stream.aclose()
        except NETWORK_FAILURES as problem:
            _log.debug("AutoNAT at %s failed: %r", peer_text(server.peer), problem)
            if not _fell_silent(server, probe, problem, self._limits.silence) or not await self._answers(server):
                return
            answer = autonat.SILENCE
        finally:
            del self._probes[nonce]
            if stream is not None:
                stream.reset()
        self._judge(server.peer, addr, answer, probe.seen.is_set())

    async def _answers(self, server: Connection) -> bool:
        """Whether a server that fell silent answers where there is nothing to dial. If not, it is overloaded or broken,
        and its silence says nothing about our address."""
        stream: Stream | None = None
        try:
            with trio.fail_after(self._limits.control_timeout):
                stream = await self._swarm.open_stream(server, [autonat.DIAL_REQUEST])
                await write_message(stream, autonat.encode_request([_NOWHERE], secrets.randbits(64)))
                autonat.decode_for_client(await read_message(stream, autonat.MAX_MESSAGE))
        except NETWORK_FAILURES as problem:
            _log.debug("AutoNAT at %s: no answer to a plain question either: %r", peer_text(server.peer), problem)
            return False
        finally:
            if stream is not None:
                stream.reset()
        return True

    async def _ask(self, stream: Stream, probe: _Probe, nonce: int) -> Answer:
        await write_message(stream, autonat.encode_request([probe.addr], nonce))
        probe.asked = trio.current_time()
        reply = autonat.decode_for_client(await read_message(stream, autonat.MAX_MESSAGE))
        if isinstance(reply, DataDue):
            probe.asked = None
            left = reply.size
            while left > 0:
                await write_message(stream, autonat.encode_data(left))
                left -= autonat.DATA_CHUNK
            probe.asked = trio.current_time()
            reply = autonat.decode_for_client(await read_message(stream, autonat.MAX_MESSAGE))
        if isinstance(reply, DataDue):
            raise ProtocolViolation("AutoNAT: the server asks for dial data twice")
        if reply.status == "OK" and reply.index != 0:
            raise ProtocolViolation(f"AutoNAT: an answer for address {reply.index} of 1")
        return reply

    def _judge(self, server: PeerId, addr: Multiaddr, answer: Answer, nonce_seen: bool) -> None:
        if not self._tally.record(addr, server, answer, nonce_seen=nonce_seen, now=trio.current_time()):
            _log.debug("AutoNAT: %s said %s for %s", peer_text(server), answer, addr)
            return
        reachability, confirmations = self._tally.reachability(addr)
        self._swarm.set_external(addr, reachability == "public")
        self._swarm.events.emit(
            AutonatResult(
                addr=str(addr),
                reachability=reachability,
                server=peer_text(server),
                status=answer.dial,
                confirmations=confirmations,
            )
        )

    async def _dialled_back(self, stream: Stream) -> None:
        """A server, under whatever identity (A5), brings a nonce; it counts when it came to the tested address."""
        with trio.fail_after(self._limits.dial_back_timeout):
            probe = self._probes.get(autonat.decode_dial_back(await read_message(stream, autonat.MAX_MESSAGE)))
            if probe is None or not stream.connection.inbound or not self._came_to(probe.addr, stream.connection):
                stream.reset()
                return
            await write_message(stream, autonat.encode_dial_back_response())
            probe.seen.set()
            await stream.aclose()

    def _came_to(self, tested: Multiaddr, connection: Connection) -> bool:
        """A11: on a listening port, and on the very address when that one is an interface's (no NAT between)."""
        listening = self._swarm.listen_addrs()
        return connection.local == tested if tested in listening else connection.local in listening

    # --- server -------------------------------------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        peer = stream.connection.peer
        admitted = self._quota.admit(peer, trio.current_time())
        try:
            with trio.fail_after(self._limits.stream_timeout):
                answer = await self._decide(stream) if admitted else Answer("E_REQUEST_REJECTED")
                await write_message(stream, autonat.encode_answer(answer))
                await stream.aclose()
        finally:
            if admitted:
                self._quota.release(peer)

    async def _decide(self, stream: Stream) -> Answer:
        request = autonat.decode_for_server(await read_message(stream, autonat.MAX_MESSAGE))
        if not isinstance(request, Request):
            raise ProtocolViolation("AutoNAT: dial data before a request")
        client = endpoint_of(stream.connection.remote)
        if client is None or client.kind not in ("ip4", "ip6"):
            return Answer("E_REQUEST_REJECTED")
        listening = [endpoint for endpoint in map(endpoint_of, self._swarm.listen_addrs()) if endpoint is not None]
        loopback = client.on_loopback
        choice = choose(
            request,
            client_ip=client.host,
            own=() if loopback else {endpoint.host for endpoint in listening},
            scope=self._scope(loopback),
            sources={
                (version, proto)
                for version in (4, 6)
                for proto in self._outside
                if self._swarm.listen_port(version, proto) is not None
            },
        )
        if isinstance(choice, Refused):
            return choice.answer
        if choice.foreign:
            if not self._quota.admit_data(trio.current_time()):
                return Answer("E_REQUEST_REJECTED")
            await self._collect_data(stream, choice)
        return Answer("OK", choice.index, await self._dial_back(choice, stream.connection.peer))

    async def _collect_data(self, stream: Stream, choice: Choice) -> None:
        """A4: who makes us dial a stranger's IP pays more bytes than the dial costs."""
        due = DataDue(choice.index, random.randint(autonat.MIN_DATA, autonat.MAX_DATA))
        await write_message(stream, autonat.encode_data_due(due))
        meter, paid = DataMeter(due.size), False
        while not paid:
            size = autonat.decode_for_server(await read_message(stream, autonat.MAX_MESSAGE))
            if not isinstance(size, int):
                raise ProtocolViolation("AutoNAT: a second request on one stream")
            paid = meter.receive(size)

    async def _dial_back(self, choice: Choice, client: PeerId) -> str:
        """Dials, and brings the nonce. Returns the name of the DialStatus; leaves no connection."""
        async with self._outside[choice.proto]() as outside:
            return await self._dial_back_by(outside, choice, client)

    async def _dial_back_by(self, outside: Transport, choice: Choice, client: PeerId) -> str:
        try:
            with trio.fail_after(self._limits.dial_timeout + self._swarm.config.limits.muxed.upgrade_timeout):
                connection = await outside.dial(choice.addr, client)
        except NETWORK_FAILURES:
            return "E_DIAL_ERROR"
        try:
            async with flat_nursery() as nursery:
                nursery.start_soon(connection.run, _refuse, tuple)
                try:
                    with trio.fail_after(self._limits.dial_back_timeout):
                        await _bring(connection, choice.nonce)
                    return "OK"
                finally:
                    connection.abort("NORMAL")
                    nursery.cancel_scope.cancel()
        except NETWORK_FAILURES:
            return "E_DIAL_BACK_ERROR"


def _few_of_each(addrs: Sequence[Multiaddr], most: int) -> tuple[Multiaddr, ...]:
    """At most so many addresses of each transport, in their order."""
    seen: Counter[str | None] = Counter()
    kept: list[Multiaddr] = []
    for addr in addrs:
        transport = transport_of(addr)
        seen[transport] += 1
        if seen[transport] <= most:
            kept.append(addr)
    return tuple(kept)


async def _bring(connection: Connection, nonce: int) -> None:
    stream = await connection.open_stream([autonat.DIAL_BACK])
    try:
        await write_message(stream, autonat.encode_dial_back(nonce))
        try:
            autonat.decode_dial_back_response(await read_message(stream, autonat.MAX_MESSAGE))
            await stream.aclose()
        except StreamReset:
            # rust-libp2p drops its stream right behind the answer. The nonce was there; go takes any end for the
            # answer, too. A client trusts an OK only with its nonce (A5).
            pass
    finally:
        stream.reset()
    await connection.aclose()


def _fell_silent(server: Connection, probe: _Probe, problem: BaseException, silence: float) -> bool:
    """The server took the request and, on a connection that lives, had time for a dial before it gave up."""
    if isinstance(problem, ConnectionLost) or server.closed.is_set() or probe.asked is None:
        return False
    given_up = isinstance(problem, StreamReset | trio.TooSlowError)
    return given_up and trio.current_time() - probe.asked >= silence


def _refuse(stream: Stream, _protocol: str) -> None:
    stream.reset()
