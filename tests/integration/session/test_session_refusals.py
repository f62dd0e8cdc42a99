"""What a session refuses, over real streams: each refusal by its number, and the session unharmed beside it."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from struct import pack

import pytest
import trio

from punchbridge.access.policy import OPEN, Access
from punchbridge.addresses import is_relayed, parse
from punchbridge.config import Limits, Punch, SessionLimits
from punchbridge.errors import DirectRequired, LimitExceeded, NegotiationFailed, StreamReset
from punchbridge.eventhub import EventHub
from punchbridge.host.host import Host, HostConfig, open_host
from punchbridge.identity import Identity
from punchbridge.session import SESSION_PROTOCOL, SessionStream
from punchbridge.sessions.frames import HEADER, MAX_PAYLOAD, VERSION, Attach, Kind, SessionRefusal, encode
from punchbridge.transport.base import Stream
from tests.support.session_lab import SERVICE, Pair, Route, answer, attach, config, echo, pair, raw, read_exactly, until

LIMITS = SessionLimits()


async def to_the_end(stream: Stream) -> None:
    while await stream.receive_some():
        pass


async def reset_by_peer(stream: Stream) -> None:
    with trio.fail_after(5), pytest.raises(StreamReset):
        await to_the_end(stream)


async def said(stream: SessionStream, text: bytes) -> None:
    await stream.send_all(text)
    assert await read_exactly(stream, len(text)) == text


@asynccontextmanager
async def stranger() -> AsyncIterator[Host]:
    async with open_host(config(), EventHub()) as host:
        yield host


async def test_nobody_else_resumes_a_session() -> None:
    async with pair() as both, stranger() as thief:
        stream = await both.open()
        await said(stream, b"mine")
        machine = stream.live.machine
        taken = Attach(machine.id, machine.generation + 1, 0, 1 << 20, False, machine.generation)
        kind, value, _ = await attach(thief, both, taken)
        assert (kind, value) == (Kind.REFUSED, SessionRefusal.UNKNOWN_SESSION)
        nothing = Attach(os.urandom(16), 1, 0, 1 << 20, False, 0)
        assert await attach(thief, both, nothing) == await attach(thief, both, taken), "never told apart"
        await said(stream, b"still mine")


async def test_the_same_id_from_another_peer_is_another_session() -> None:
    async with pair() as both, stranger() as other:
        stream = await both.open()
        await said(stream, b"first")
        same = Attach(stream.live.machine.id, 1, 0, 1 << 20, True, 0, SERVICE)
        carrier = await raw(other, both)
        await carrier.send_all(same.encode() + encode(Kind.DATA, 0, b"other"))
        assert (await answer(carrier))[0] is Kind.ATTACHED
        assert both.acceptor.sessions.count == 2
        await said(stream, b"first still")


@pytest.mark.parametrize(
    ("generation", "received", "refusal"),
    [(0, 0, SessionRefusal.STALE_GENERATION), (9, 1 << 30, SessionRefusal.BAD_OFFSET)],
)
async def test_wrong_resume_by_the_right_peer(generation: int, received: int, refusal: SessionRefusal) -> None:
    async with pair() as both:
        stream = await both.open()
        await said(stream, b"before")
        wrong = Attach(stream.live.machine.id, generation, received, 1 << 20, False, 0)
        kind, value, _ = await attach(both.dialler, both, wrong)
        assert (kind, value) == (Kind.REFUSED, refusal)
        await said(stream, b"after")


async def test_attach_of_a_later_version_is_refused_as_such() -> None:
    async with pair() as both:
        body = bytes([VERSION + 1]) + b"a later version may say anything else here"
        stream = await raw(both.dialler, both)
        await stream.send_all(encode(Kind.ATTACH, 0, body))
        kind, value, _ = await answer(stream)
        assert (kind, value) == (Kind.REFUSED, SessionRefusal.BAD_VERSION)
        assert both.acceptor.sessions.count == 0


async def test_peer_of_another_version_is_a_typed_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Attach.encode

    def later(attach: Attach) -> bytes:
        frame = bytearray(plain(attach))
        frame[HEADER.size] = VERSION + 1
        return bytes(frame)

    monkeypatch.setattr(Attach, "encode", later)
    async with pair() as both:
        with pytest.raises(NegotiationFailed, match="bad version"):
            await both.open()
        await until(lambda: both.dialler.sessions.count == both.acceptor.sessions.count == 0)


async def test_finished_session_is_unknown() -> None:
    async with pair() as both:
        stream = await both.open()
        machine = stream.live.machine
        await stream.aclose()
        await until(lambda: both.acceptor.sessions.count == 0)
        kind, value, _ = await attach(both.dialler, both, Attach(machine.id, 9, 0, 1 << 20, False, 0))
        assert (kind, value) == (Kind.REFUSED, SessionRefusal.UNKNOWN_SESSION)


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(b"\x04" + (MAX_PAYLOAD + 1).to_bytes(4, "big") + bytes(8), id="oversized"),
        pytest.param(b"\x63" + bytes(12), id="unknown type"),
        pytest.param(encode(Kind.DATA, LIMITS.window_least, b"x"), id="beyond the window"),
        pytest.param(encode(Kind.ACK, 1 << 40, pack(">Q", 1 << 41)), id="acknowledges what was never sent"),
        pytest.param(b"".join(encode(Kind.DATA, 2 * i + 1, b"x") for i in range(LIMITS.ahead + 1)), id="reorder bound"),
    ],
)
async def test_carrier_that_breaks_a_rule_is_reset_and_its_session_waits(frames: bytes) -> None:
    async with pair() as both:
        connection = await both.connect()
        carrier = await connection.open_stream((SESSION_PROTOCOL,))
        identifier = os.urandom(16)
        await carrier.send_all(Attach(identifier, 1, 0, 1 << 20, True, 0, SERVICE).encode())
        assert (await answer(carrier))[0] is Kind.ATTACHED
        await carrier.send_all(frames)
        await reset_by_peer(carrier)
        (session,) = both.acceptor.sessions.accepted
        assert session.machine.over is None
        assert session.machine.incoming.received == 0
        # The right peer, well-behaved again, goes on where it was.
        kind, _, _ = await attach(both.dialler, both, Attach(identifier, 2, 0, 1 << 20, False, 0))
        assert kind is Kind.ATTACHED


@pytest.mark.parametrize("first", [encode(Kind.DATA, 0, b"x"), b"\xff" * 40, encode(Kind.ATTACH, 0, b"\x01shor")])
async def test_carrier_that_does_not_begin_with_an_attach_is_reset(first: bytes) -> None:
    async with pair() as both:
        stream = await raw(both.dialler, both)
        await stream.send_all(first)
        await reset_by_peer(stream)
        assert both.acceptor.sessions.count == 0


async def test_too_many_sessions_of_one_peer() -> None:
    most = 5
    async with pair(Limits(sessions=SessionLimits(per_peer=most))) as both:
        connection = await both.connect()
        route = Route(both.peer, both.addr)
        streams = [
            await both.dialler.sessions.open(connection, SERVICE, route=route, policy="any") for _ in range(most)
        ]
        with pytest.raises(LimitExceeded):
            await both.dialler.sessions.open(connection, SERVICE, route=route, policy="any")
        await said(streams[0], b"those that are open go on")
        await streams[0].aclose()
        await until(lambda: both.acceptor.sessions.count < most)
        await said(await both.dialler.sessions.open(connection, SERVICE, route=route, policy="any"), b"room again")


async def test_a_host_opens_and_takes_no_more_sessions_than_it_is_told() -> None:
    async with pair(Limits(sessions=SessionLimits(total=2))) as both, stranger() as other:
        for _ in range(2):
            await said(await both.open(), b"used")
        with pytest.raises(LimitExceeded, match="2 sessions are open"):
            await both.open()
        connection = await other.swarm.dial(both.addr)
        with pytest.raises(LimitExceeded, match="as many sessions of ours as it takes"):
            await other.sessions.open(connection, SERVICE, route=Route(both.peer, both.addr), policy="any")


async def test_service_for_direct_paths_takes_direct_ones_and_one_for_relayed_does_not() -> None:
    async with pair() as both:
        connection = await both.connect()
        await until(lambda: connection.identify is not None)

        async def echo(stream: SessionStream) -> None:
            while data := await stream.receive_some():
                await stream.send_all(data)

        both.acceptor.sessions.serve("/test/direct", echo, "direct")
        both.acceptor.sessions.serve("/test/relay", echo, "relay")
        await said(await both.open("/test/direct"), b"direct")
        with pytest.raises(DirectRequired) as refused:
            await both.open("/test/relay")
        assert refused.value.verdict.code == "PATH_NOT_ALLOWED"


async def test_what_is_refused_is_counted_under_its_name() -> None:
    async with pair() as both:
        both.acceptor.sessions.serve("/test/relay", echo, "relay")
        for service, error in (("/test/relay", DirectRequired), ("/test/nobody", NegotiationFailed)):
            with pytest.raises(error):
                await both.open(service)
        refusals = both.acceptor.swarm.refusals
        assert dict(refusals.counts) == {"path_not_allowed": 1, "unknown_service": 1}
        assert {one.peer for one in refusals.most(9)} == {str(both.dialler.swarm.peer)}


async def test_a_carrier_from_where_the_peer_is_not_admitted_is_refused_and_the_session_stays() -> None:
    # One identity at two addresses of loopback, of which one is on the list.
    me = Identity.generate()
    at = [replace(config(), identity=me, listen=(parse(f"/ip4/127.0.0.{one}/tcp/0"),)) for one in (1, 2)]
    listed = replace(config(), access=Access.of(["127.0.0.1"]))
    async with (
        open_host(at[0], EventHub()) as dialler,
        open_host(at[1], EventHub()) as elsewhere,
        open_host(listed, EventHub()) as acceptor,
    ):
        both = Pair(dialler, acceptor, [])
        acceptor.sessions.serve(SERVICE, echo)
        stream = await both.open()
        await said(stream, b"here")
        session, edge = stream.live.machine, stream.live.machine.incoming.edge
        resume = Attach(session.id, session.generation + 1, session.incoming.received, edge, False, session.generation)
        kind, value, _ = await attach(elsewhere, both, resume)
        assert (kind, value) == (Kind.REFUSED, SessionRefusal.PATH_NOT_ALLOWED)
        assert acceptor.swarm.refusals.counts["path_not_allowed"] == 1
        await said(stream, b"and still here")


async def test_later_carrier_on_a_path_not_allowed_is_refused_and_the_session_stays() -> None:
    async with pair() as both:
        stream = await both.open()
        await said(stream, b"here")
        (accepted,) = both.acceptor.sessions.accepted
        accepted.allowed = "relay"
        assert not await both.dialler.sessions.move(stream.live, await both.connect(), "TRIED")
        await said(stream, b"and still here")


async def test_reader_that_stops_bounds_memory_at_both_ends() -> None:
    async with pair() as both:
        stopped = trio.Event()

        async def deaf(stream: SessionStream) -> None:
            await stopped.wait()
            while await stream.receive_some():
                pass

        both.acceptor.sessions.serve("/test/deaf", deaf)
        stream = await both.open("/test/deaf")
        sent = 0
        with trio.move_on_after(1.0):
            while True:
                await stream.send_all(bytes(64 * 1024))
                sent += 64 * 1024
        (accepted,) = both.acceptor.sessions.accepted
        incoming, outgoing = accepted.machine.incoming, stream.live.machine.outgoing
        assert incoming.received - incoming.read_to <= LIMITS.window_least
        assert outgoing.written - outgoing.acked <= outgoing.capacity <= LIMITS.replay_most
        assert sent <= LIMITS.window_most + LIMITS.replay_most
        before = sent
        with trio.move_on_after(0.3):
            await stream.send_all(bytes(64 * 1024))
            sent += 1
        assert sent == before, "it should have waited"
        stopped.set()
        await until(lambda: accepted.machine.incoming.read_to > before // 2)


async def test_unknown_service_leaves_no_session() -> None:
    async with pair() as both:
        with pytest.raises(NegotiationFailed):
            await both.open("/test/nothing")
        assert both.dialler.sessions.count == both.acceptor.sessions.count == 0


async def test_silent_carrier_is_not_waited_for() -> None:
    async with pair(Limits(sessions=SessionLimits(first_frame_timeout=0.1))) as both:
        stream = await raw(both.dialler, both)
        await stream.send_all(b"\x01")
        await reset_by_peer(stream)


async def test_peer_cannot_aim_our_dials_by_the_relays_it_names() -> None:
    """Without a carrier the keeper looks for the peer at the relays it told of: not on this machine or the LAN."""
    hub, dials = EventHub(), 0
    stranger = Identity.generate()
    listen = HostConfig(
        Identity.generate(), listen=config().listen, access=OPEN, autonat=False, punch=Punch(enabled=False)
    )
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.0)
        async with open_host(listen, hub) as dialler, open_host(config(), EventHub()) as acceptor:
            acceptor.sessions.serve(SERVICE, echo)
            bait = (
                f"/ip4/127.0.0.1/tcp/{trap.getsockname()[1]}/p2p/{stranger}/p2p-circuit/p2p/{acceptor.swarm.identity}"
            )
            acceptor.swarm.set_circuit_addrs(
                stranger.peer_id, (parse(bait), parse(f"{bait}/p2p-circuit/p2p/{stranger}"))
            )
            both = Pair(dialler, acceptor, [])
            connection = await both.connect()
            await connection.identified.wait()
            assert connection.identify is not None
            assert any(map(is_relayed, connection.identify.listen))
            route = Route(both.peer, None)
            stream = await dialler.sessions.open(connection, SERVICE, route=route, policy="any")
            await said(stream, b"hello")
            connection.abort("TEST")
            await trio.sleep(1.0)
            with suppress(BlockingIOError):
                while True:
                    trap.accept()[0].close()
                    dials += 1
            stream.abort()
    assert dials == 0


async def test_one_address_with_many_ids_leaves_sessions_to_others() -> None:
    async with pair(Limits(sessions=SessionLimits(per_address=3))) as both, stranger() as same_machine:
        connection = await both.connect()
        route = Route(both.peer, both.addr)
        for _ in range(2):
            await said(await both.dialler.sessions.open(connection, SERVICE, route=route, policy="any"), b"used")
        connection = await same_machine.swarm.dial(both.addr)
        first = await same_machine.sessions.open(connection, SERVICE, route=route, policy="any")
        await said(first, b"used too")
        with pytest.raises(LimitExceeded):
            await same_machine.sessions.open(connection, SERVICE, route=route, policy="any")
        await first.aclose()
        await until(lambda: both.acceptor.sessions.count < 3)
        await said(await same_machine.sessions.open(connection, SERVICE, route=route, policy="any"), b"a place again")


async def test_a_session_that_carried_nothing_makes_room_for_another_one() -> None:
    async with pair(Limits(sessions=SessionLimits(per_address=3))) as both, stranger() as same_machine:
        connection = await both.connect()
        route = Route(both.peer, both.addr)
        used = await both.open()
        await said(used, b"used")
        mute = [await both.dialler.sessions.open(connection, SERVICE, route=route, policy="any") for _ in range(2)]
        connection = await same_machine.swarm.dial(both.addr)
        fresh = await same_machine.sessions.open(connection, SERVICE, route=route, policy="any")
        await said(fresh, b"a word")
        with pytest.raises(StreamReset, match="its place was needed"):
            await mute[0].receive_some()
        await said(used, b"still here")
        await said(mute[1], b"and so is the younger one")
        assert both.acceptor.swarm.refusals.counts["sessions_per_origin"] == 1
