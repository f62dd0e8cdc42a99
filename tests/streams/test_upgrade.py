"""The upgrade: failures are typed, and neither failure nor cancellation leaves a socket behind."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import trio
import trio.testing

from punchbridge.errors import AuthenticationFailed, BridgeError, ConnectionLost, NegotiationFailed, ProtocolViolation
from punchbridge.identity import Identity
from punchbridge.transport.link import Link
from punchbridge.transport.muxed.connection import MuxedConnection
from punchbridge.transport.muxed.upgrade import upgrade
from punchbridge.transport.tcp.sockets import TcpStream
from punchbridge.wire.multistream import HEADER, Initiator, line
from punchbridge.wire.noise import NOISE, Handshake
from tests.support.pairs import tcp_pair, upgraded_pair

ME = Identity.generate()


def link_of(tcp: TcpStream, *, inbound: bool = False) -> Link:
    return Link(tcp, tcp.local, tcp.remote, "direct", inbound)


async def secure(tcp: TcpStream, role: str, identity: Identity = ME) -> MuxedConnection:
    link = link_of(tcp, inbound=role == "responder")
    return await upgrade(link, role=role, identity=identity, expected=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("role", "said", "error"),
    [
        ("initiator", HEADER + line("na"), NegotiationFailed),
        ("initiator", b"HTTP/1.1 400 Bad Request\r\n\r\n", ProtocolViolation),
        ("initiator", HEADER + line(NOISE) + b"\x00\x10" + bytes(16), AuthenticationFailed),
        ("initiator", HEADER + line(NOISE) + b"\x00\x60" + bytes(96), AuthenticationFailed),
        ("responder", b"GET / HTTP/1.1\r\n\r\n", ProtocolViolation),
        ("responder", b"\xff" * 20, ProtocolViolation),
        ("responder", HEADER + line("/plaintext/2.0.0"), ConnectionLost),
        ("responder", HEADER + line(NOISE) + b"\x00\x05abcde", AuthenticationFailed),
        ("responder", HEADER + line(NOISE) + b"\x00\x20" + bytes(32), AuthenticationFailed),
        ("responder", b"", ConnectionLost),
        ("responder", HEADER + line(NOISE) + b"\x00\x20half", ConnectionLost),
    ],
)
async def test_a_bad_peer_ends_in_a_typed_error(role: str, said: bytes, error: type[BridgeError]) -> None:
    async with tcp_pair() as (ours, theirs):
        await theirs.send_all(said)
        await theirs.send_eof()
        with pytest.raises(error) as caught:
            await secure(ours, role)
        assert type(caught.value) is error
        assert ours.socket.fileno() == -1


@pytest.mark.parametrize("role", ["initiator", "responder"])
async def test_random_bytes_end_in_a_typed_error(role: str) -> None:
    for _ in range(20):
        async with tcp_pair() as (ours, theirs):
            await theirs.send_all(os.urandom(200))
            await theirs.send_eof()
            with pytest.raises(BridgeError):
                await secure(ours, role)
            assert ours.socket.fileno() == -1


async def test_a_reset_ends_in_connection_lost() -> None:
    async with tcp_pair() as (ours, theirs):
        await ours.send_all(b"unread")  # closing over unread data makes the kernel send RST
        await trio.testing.wait_all_tasks_blocked(0.01)
        theirs.abort()
        with pytest.raises(ConnectionLost):
            await secure(ours, "responder")


async def test_ourselves_are_no_peer() -> None:
    async with tcp_pair() as (ours, theirs):
        failed: list[str] = []

        async def side(tcp: TcpStream, role: str) -> None:
            with pytest.raises((AuthenticationFailed, ConnectionLost)) as caught:
                await secure(tcp, role)
            failed.append(caught.value.code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(side, ours, "initiator")
            nursery.start_soon(side, theirs, "responder")
        assert "AUTHENTICATION" in failed
        assert len(failed) == 2


@pytest.mark.parametrize("role", ["initiator", "responder"])
@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_cancelled_at_each_wait(role: str, steps: int) -> None:
    """The peer falls silent after `steps` of its messages."""
    async with tcp_pair() as (ours, theirs), trio.open_nursery() as nursery:
        other = Handshake(Identity.generate(), "responder" if role == "initiator" else "initiator")
        if role == "responder" and steps:
            await theirs.send_all(Initiator([NOISE]).start() + (other.start() if steps > 1 else b""))
        elif steps:
            await theirs.send_all(HEADER + line(NOISE))

        async def answer() -> None:
            if role == "initiator" and steps > 1:
                data = b""
                while len(data) < len(HEADER + line(NOISE)) + 34:
                    data += await theirs.receive_some()
                await theirs.send_all(other.receive(data[len(HEADER + line(NOISE)) :])[:50])

        nursery.start_soon(answer)
        with trio.move_on_after(0.1) as scope:
            await secure(ours, role)
        assert scope.cancelled_caught
        assert ours.socket.fileno() == -1


@pytest.mark.parametrize("without", ["initiator", "responder"])
async def test_yamux_is_negotiated_in_the_channel_when_one_side_offers_nothing_early(
    without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import punchbridge.transport.muxed.upgrade as module

    original = Handshake

    def handshake(identity: Identity, role: str, *, expected: object, muxers: tuple[str, ...]) -> Handshake:
        return original(identity, role, muxers=() if role == without else muxers)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "Handshake", handshake)
    async with tcp_pair() as (ours, theirs):
        pair = upgraded_pair(link_of(ours), link_of(theirs, inbound=True), ME, Identity.generate(), ["/test/1.0.0"])
        async with pair as (first, second):
            stream = await first.connection.open_stream(["/test/1.0.0"])
            await stream.send_all(b"hello")
            assert await (await second.accept()).receive_some() == b"hello"


async def test_round_trips_of_an_upgrade() -> None:
    """Header, proposal and Noise message 1 leave together; so do the answers and message 2; message 3 ends it."""
    flights: list[str] = []

    def counted(tcp: TcpStream, name: str) -> TcpStream:
        send: Callable[[bytes], object] = tcp.send_all

        async def send_all(data: bytes) -> None:
            flights.append(name)
            await send(data)  # type: ignore[misc]

        tcp.send_all = send_all  # type: ignore[assignment, method-assign]
        return tcp

    async with tcp_pair() as (ours, theirs):
        counted(ours, "initiator"), counted(theirs, "responder")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(secure, ours, "initiator")
            nursery.start_soon(secure, theirs, "responder", Identity.generate())
        turns = [name for index, name in enumerate(flights) if not index or flights[index - 1] != name]
        assert turns == ["initiator", "responder", "initiator"]
