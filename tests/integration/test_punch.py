"""The simultaneous open on real sockets: redial after refusals, accepted sockets, losers, cancellation, own errors."""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from bridge.addresses import Endpoint, Multiaddr, tcp_addr
from bridge.net.dial import DialsKept
from bridge.net.punch import How, SimultaneousOpen
from bridge.net.tcp import TcpStream, listen_socket
from bridge.protocol.verdict import Code, Evidence, judge
from tests.support.swarms import open_descriptors

Take = Callable[[TcpStream, How], Awaitable[str | None]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Watched(Counter[str]):
    """Errno names, with an event for the third refusal."""

    def __init__(self) -> None:
        super().__init__()
        self.refused_thrice = trio.Event()

    def __setitem__(self, name: str, count: int) -> None:
        super().__setitem__(name, count)
        if name == "ECONNREFUSED" and count >= 3:
            self.refused_thrice.set()


class Side:
    """One punching side on loopback, from a fixed port. Streams that were judged are closed at the end of `run`."""

    def __init__(self, port: int, candidate: Multiaddr, take: Take, *, keep_losers: bool = False) -> None:
        self.port = port
        self.candidate = candidate
        self.take = take
        self.keep_losers = keep_losers
        self.errors = Watched()
        self.evidence = Evidence(errors=self.errors)
        self.start = trio.Event()
        self.taken = trio.Event()
        self.streams: list[TcpStream] = []
        self.kept = DialsKept()
        self.send, self.accepted = trio.open_memory_channel[TcpStream](8)

    def source(self, endpoint: Endpoint) -> tuple[str, int]:
        return endpoint.host, self.port

    async def judge(self, stream: TcpStream, how: How) -> str | None:
        self.streams.append(stream)
        self.taken.set()
        return await self.take(stream, how)

    async def run(self, nursery: trio.Nursery) -> str:
        opening: SimultaneousOpen[str] = SimultaneousOpen(
            [self.candidate],
            source=self.source,
            kept=self.kept,
            take=self.judge,
            evidence=self.evidence,
            nursery=nursery,
            keep_losers=self.keep_losers,
            rng=random.Random(1),
        )
        return await opening.run(self.accepted, self.start)

    def close(self) -> None:
        for stream in self.streams:
            stream.abort()
        self.kept.close()


async def echo_word(stream: TcpStream, how: How) -> str | None:
    """A round trip above TCP, symmetric for both sides."""
    await stream.send_all(b"hello")
    answer = await stream.receive_some()
    return how if answer == b"hello" else None


async def test_both_sides_dial_and_one_listens() -> None:
    """The early side's dials are refused until the late one is there; both end on one connection."""
    one, two = free_port(), free_port()
    early = Side(one, tcp_addr("127.0.0.1", two), echo_word)
    late = Side(two, tcp_addr("127.0.0.1", one), echo_word)
    won: list[str] = []
    with trio.fail_after(15):
        async with trio.open_nursery() as service:

            async def play(side: Side) -> None:
                side.start.set()
                won.append(await side.run(service))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(play, early)
                await early.errors.refused_thrice.wait()
                listener = listen_socket(tcp_addr("127.0.0.1", two))
                service.start_soon(feed, listener, late)
                nursery.start_soon(play, late)
            service.cancel_scope.cancel()
    assert len(won) == 2
    assert early.streams[-1].remote == late.streams[-1].local
    for side in (early, late):
        side.close()
    listener.close()


async def feed(listener: trio.socket.SocketType, side: Side) -> None:
    while True:
        sock, _addr = await listener.accept()
        await side.send.send(TcpStream(sock))


async def test_refused_dials_go_on_from_the_same_port_until_somebody_listens() -> None:
    port, target = free_port(), free_port()
    side = Side(port, tcp_addr("127.0.0.1", target), echo_word)
    side.start.set()
    got: list[str] = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def play() -> None:
                got.append(await side.run(nursery))
                nursery.cancel_scope.cancel()

            nursery.start_soon(play)
            await side.errors.refused_thrice.wait()
            listener = listen_socket(tcp_addr("127.0.0.1", target))
            sock, peer = await listener.accept()
            assert peer[1] == port
            stream = TcpStream(sock)
            await stream.send_all(await stream.receive_some())
            await trio.sleep_forever()
    listener.close()
    stream.abort()
    side.close()
    assert got == ["connect"]
    assert judge(side.evidence) is Code.RESET_BY_NAT


async def test_a_connection_that_stays_silent_does_not_stop_an_accepted_one() -> None:
    """A bare connect() is no success: the other socket wins by its round trip."""
    mute = listen_socket(tcp_addr("127.0.0.1", 0))
    side = Side(free_port(), tcp_addr("127.0.0.1", mute.getsockname()[1]), echo_word)
    side.start.set()
    ours, theirs = await connected_pair()
    got: list[str] = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def play() -> None:
                got.append(await side.run(nursery))
                nursery.cancel_scope.cancel()

            nursery.start_soon(play)
            await side.taken.wait()
            await side.send.send(ours)
            await theirs.send_all(await theirs.receive_some())
            await trio.sleep_forever()
    assert got == ["accept"]
    assert side.evidence.sockets == 2
    theirs.abort()
    side.close()
    mute.close()


@pytest.mark.parametrize("keep", [False, True])
async def test_losers_are_cut_by_the_initiator_and_kept_a_moment_by_the_responder(keep: bool) -> None:
    ours, theirs = await connected_pair()
    more, others = await connected_pair()
    cancelled = trio.Event()
    judged: list[TcpStream] = []

    async def take(stream: TcpStream, how: How) -> str | None:
        judged.append(stream)
        if len(judged) == 1:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                cancelled.set()
                raise
        return how

    side = Side(free_port(), tcp_addr("127.0.0.1", 1), take, keep_losers=keep)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await side.send.send(ours)
            await side.send.send(more)
            assert await side.run(nursery) == "accept"
            await trio.testing.wait_all_tasks_blocked()
            assert cancelled.is_set() is not keep
            await cancelled.wait()
    for stream in (theirs, others):
        stream.abort()
    side.close()


async def test_cancelling_leaves_no_socket() -> None:
    before = set(open_descriptors())
    # Nothing answers at this address of the lab's own machine: the dial is refused or stays outstanding.
    side = Side(free_port(), tcp_addr("127.0.0.1", free_port()), echo_word)
    side.start.set()
    ours, theirs = await connected_pair()

    async def never(_stream: TcpStream, _how: How) -> str | None:
        await trio.sleep_forever()
        raise AssertionError

    side.take = never
    with trio.move_on_after(0.3):
        async with trio.open_nursery() as nursery:
            await side.send.send(ours)
            await side.run(nursery)
    theirs.abort()
    assert {fd for fd, what in open_descriptors().items() if what.startswith("socket")} <= before


async def test_errors_of_our_own_machine_are_told_apart() -> None:
    side = Side(free_port(), tcp_addr("127.0.0.1", free_port()), echo_word)

    def elsewhere(_endpoint: Endpoint) -> tuple[str, int]:
        return "192.0.2.1", 0  # not an address of this machine

    side.source = elsewhere  # type: ignore[method-assign]
    side.start.set()
    with trio.move_on_after(0.3):
        async with trio.open_nursery() as nursery:
            await side.run(nursery)
    assert set(side.evidence.local_errors) == {"EADDRNOTAVAIL"}
    assert side.evidence.dials == 0
    assert judge(side.evidence) is Code.NO_ROUTE


async def connected_pair() -> tuple[TcpStream, TcpStream]:
    listener = listen_socket(tcp_addr("127.0.0.1", 0))
    sock = trio.socket.socket()
    await sock.connect(listener.getsockname())
    other, _ = await listener.accept()
    listener.close()
    return TcpStream(other), TcpStream(sock)
