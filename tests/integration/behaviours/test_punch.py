"""The simultaneous open on real sockets: redial after refusals, accepted sockets, losers, cancellation, own errors."""

from __future__ import annotations

import random
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from punchbridge.addresses import Endpoint, Multiaddr, tcp_addr
from punchbridge.config import PunchLimits
from punchbridge.reach.dials import AttemptDials, DialBudget, RunDials
from punchbridge.reach.verdict import Evidence, judge
from punchbridge.transport.tcp.dial import Dial, KeptDials, TupleTaken
from punchbridge.transport.tcp.simultaneous import How, SimultaneousOpen
from punchbridge.transport.tcp.sockets import TcpStream, listen_socket
from punchbridge.verdict import Code
from tests.support.pairs import free_port
from tests.support.swarms import open_descriptors

LIMITS = PunchLimits()
Take = Callable[[TcpStream, How], Awaitable[str | None]]


class Watched(Counter[str]):
    """Errno names, with the times of refusals and an event for the third."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals: list[float] = []
        self.refused_thrice = trio.Event()

    def __setitem__(self, name: str, count: int) -> None:
        super().__setitem__(name, count)
        if name == "ECONNREFUSED":
            self.refusals.append(trio.current_time())
            if count >= 3:
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
        self.rng = random.Random(1)
        self.start = trio.Event()
        self.taken = trio.Event()
        self.streams: list[TcpStream] = []
        self.kept = KeptDials()
        self.budget: AttemptDials | None = None
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
            rng=self.rng,
            limits=LIMITS,
            budget=self.budget,
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
    listener.close()
    stream.abort()
    side.close()
    assert got == ["connect"]
    assert judge(side.evidence).code is Code.RESET_BY_NAT


async def test_punches_that_name_one_victim_share_its_dials() -> None:
    bounds = PunchLimits(stranger_dials_per_run=6, stranger_host_interval=10.0)
    target, budget = free_port(), DialBudget(bounds, 5.0)
    sides = [Side(free_port(), tcp_addr("127.0.0.1", target), echo_word) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for side in sides:
            side.budget = AttemptDials(budget, RunDials(), side, frozenset())
            side.start.set()
            nursery.start_soon(side.run, nursery)
        await trio.sleep(20 * LIMITS.redial_most)
        nursery.cancel_scope.cancel()
    assert sum(side.evidence.dials for side in sides) == 6
    for side in sides:
        side.close()


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
    side.kept.close()
    assert {fd for fd, what in open_descriptors().items() if what.startswith("socket")} <= before


def endpoint(listener: socket.socket) -> Endpoint:
    host, port = listener.getsockname()
    return Endpoint("ip4", host, port, "tcp")


@contextmanager
def deaf_listener() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A listener whose queue is full, so that the kernel drops further SYNs; and what it has to accept first."""
    with socket.socket() as listener, socket.socket() as first:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        first.connect(listener.getsockname())
        yield listener, first


async def test_a_dial_in_the_air_is_the_next_attempts_dial() -> None:
    """Its SYN is still under way, or its mapping waits for the peer's: the same socket takes the answer."""
    with deaf_listener() as (listener, _), trio.fail_after(10):
        here = listener.getsockname()
        side = Side(free_port(), tcp_addr(*here), takes_all)
        side.start.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(side.run, nursery)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert (side.evidence.dials, side.evidence.sockets) == (1, 0)
        [in_the_air] = [kept.dial._socket.fileno() for kept in side.kept._dials.values()]
        listener.accept()[0].close()  # room again: the SYN's next copy is answered
        async with trio.open_nursery() as nursery:
            assert await side.run(nursery) == "connect"
        assert side.streams[0].socket.fileno() == in_the_air
        assert side.evidence.errors == side.evidence.local_errors == {}
        side.close()


async def test_a_refusal_that_took_its_time_is_followed_by_the_next_dial_at_once() -> None:
    """After an ICMP error the mapping stays open: without a dial the peer's SYN would come to the listener."""

    class Slow(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return 0.4

    with trio.fail_after(10), deaf_listener() as (listener, _):
        side = Side(free_port(), tcp_addr(*listener.getsockname()), takes_all)
        side.rng = Slow()
        side.start.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(side.run, nursery)
            await trio.testing.wait_all_tasks_blocked()
            listener.close()  # the SYN's next copy, after a second, is refused
            await side.errors.refused_thrice.wait()
            nursery.cancel_scope.cancel()
        first, second, third = side.errors.refusals[:3]
        assert second - first < 0.4 <= third - second
        side.close()


async def takes_all(_stream: TcpStream, how: How) -> str | None:
    return how


async def test_what_stood_between_two_attempts_is_taken_at_once() -> None:
    with deaf_listener() as (listener, _), trio.fail_after(10):
        side = Side(free_port(), tcp_addr(*listener.getsockname()), takes_all)
        dial = Dial(endpoint(listener), ("127.0.0.1", side.port))
        side.kept.keep(dial)
        listener.accept()[0].close()
        accepted = await trio.to_thread.run_sync(listener.accept)
        assert dial.stands
        side.start.set()
        async with trio.open_nursery() as nursery:
            assert await side.run(nursery) == "connect"
        accepted[0].close()
        side.close()


async def test_what_stood_and_was_reset_since_is_dialled_anew() -> None:
    with listening() as listener, trio.fail_after(10):
        side = Side(free_port(), tcp_addr(*listener.getsockname()), takes_all)
        side.kept.keep(Dial(endpoint(listener), ("127.0.0.1", side.port)))
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()
        side.start.set()
        async with trio.open_nursery() as nursery:
            assert await side.run(nursery) == "connect"
        assert side.evidence.errors == {"ECONNRESET": 1}
        side.close()


def test_only_dials_that_fit_the_next_attempt_are_kept() -> None:
    with deaf_listener() as (listener, _), deaf_listener() as (other, _), listening() as open_one:
        here, there, stands = (endpoint(one) for one in (listener, other, open_one))
        port = free_port()
        source = ("127.0.0.1", port)
        kept = KeptDials()
        dials = {endpoint: Dial(endpoint, source) for endpoint in (here, there, stands)}
        for dial in dials.values():
            kept.keep(dial, plain=True)
        kept.restrict(frozenset({here, stands}))
        assert kept.take(there, source) is None  # not a candidate any more
        assert kept.take(stands, source) is None  # its acceptor may have taken it for a plain dial
        assert kept.take(here, source) is dials[here]
        kept.keep(dials[here])
        assert kept.take(here, ("127.0.0.1", port + 1)) is None  # we listen elsewhere now
        assert all(dial._socket.fileno() == -1 for dial in dials.values())


def test_of_the_dials_of_an_earlier_run_only_those_that_stand_are_taken() -> None:
    with deaf_listener() as (listener, _), listening() as open_one:
        here, stands = (endpoint(one) for one in (listener, open_one))
        source = ("127.0.0.1", free_port())
        kept = KeptDials()
        assert not kept
        dials = {endpoint: Dial(endpoint, source) for endpoint in (here, stands)}
        for dial in dials.values():
            kept.keep(dial)
        kept.age()
        kept.restrict(frozenset({here, stands}))
        assert dials[here]._socket.fileno() != -1  # it holds its place until another one can leave
        assert kept.take(here, source) is None
        assert dials[here]._socket.fileno() == -1
        assert kept.take(stands, source) is dials[stands]
        assert not kept
        dials[stands].close()


def test_a_4_tuple_that_is_taken_is_told_from_an_address_that_is_missing() -> None:
    with listening() as listener:
        there = endpoint(listener)
        source = ("127.0.0.1", free_port())
        first = Dial(there, source)
        with pytest.raises(TupleTaken):
            Dial(there, source)
        first.close()
    with pytest.raises(OSError, match="assign") as caught:
        Dial(there, ("192.0.2.1", 0))  # not an address of this machine
    assert not isinstance(caught.value, TupleTaken)


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener


async def test_errors_of_our_own_machine_are_told_apart() -> None:
    side = Side(free_port(), tcp_addr("127.0.0.1", free_port()), echo_word)

    def elsewhere(endpoint: Endpoint) -> tuple[str, int]:
        return "192.0.2.1", 0  # not an address of this machine

    side.source = elsewhere  # type: ignore[method-assign]
    side.start.set()
    with trio.move_on_after(0.3):
        async with trio.open_nursery() as nursery:
            await side.run(nursery)
    assert set(side.evidence.local_errors) == {"EADDRNOTAVAIL"}
    assert side.evidence.dials == 0
    assert judge(side.evidence).code is Code.NO_ROUTE


async def connected_pair() -> tuple[TcpStream, TcpStream]:
    listener = listen_socket(tcp_addr("127.0.0.1", 0))
    sock = trio.socket.socket()
    await sock.connect(listener.getsockname())
    other, _ = await listener.accept()
    listener.close()
    return TcpStream(other), TcpStream(sock)
