"""What happens between two attempts of a punch: exchanges that overtake, dials and sockets that wait for the next."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
import trio
import trio.testing

from punchbridge.addresses import Endpoint, parse
from punchbridge.config import Limits, PunchLimits
from punchbridge.errors import StreamReset
from punchbridge.events import PunchFailed
from punchbridge.transport.base import Connection
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.transport.tcp.dial import Dial
from punchbridge.wire.dcutr import PROTOCOL, encode_connect, encode_sync
from tests.support.fresh import fresh
from tests.support.punch_lab import LIMITS, QUICK, Peer, lie, open_peer, open_relay, over_relay, say_connect

BRIEF = replace(QUICK, attempt_timeout=0.3)


@contextmanager
def deaf_port() -> Iterator[socket.socket]:
    """A listener whose queue is full: the kernel drops further SYNs, so that a dial stays in the air."""
    with socket.socket() as listener, socket.socket() as first:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        first.connect(listener.getsockname())
        yield listener


def relayed_from(listener: Peer, dialer: Peer) -> Connection:
    [connection] = [c for c in listener.host.swarm.connections(dialer.peer) if c.path == "relay"]
    return connection


def dials_kept_for(peer: Peer, other: Peer) -> list[Dial]:
    sockets = peer.puncher.kept.of(other.peer)
    assert sockets is not None
    return list(sockets.dials)


async def exchange(peer: Peer, connection: Connection, candidate: socket.socket) -> None:
    """A whole exchange, as the opener, that offers one socket's address."""
    stream = await peer.host.swarm.open_stream(connection, [PROTOCOL])
    await write_message(stream, encode_connect([parse(f"/ip4/127.0.0.1/tcp/{candidate.getsockname()[1]}")]))
    await read_message(stream)
    await write_message(stream, encode_sync())
    await stream.aclose()


async def test_the_next_exchange_overtakes_the_one_that_is_still_answered() -> None:
    """The opener begins another only when the last is over for it: to refuse it would cost its attempt."""
    async with open_relay() as relay, open_peer(None) as listener, open_peer() as dialer:
        await over_relay(relay, dialer, listener)
        theirs = relayed_from(listener, dialer)
        with trio.fail_after(10):
            stream = await listener.host.swarm.open_stream(theirs, [PROTOCOL])
            await write_message(stream, encode_connect([parse("/ip4/127.0.0.1/tcp/1")]))
            await read_message(stream)
            assert await say_connect(listener, theirs)
            with pytest.raises(StreamReset):
                await stream.receive_some()
        failed = await dialer.record.wait(PunchFailed)
        assert (failed.code, failed.attempt, failed.final) == ("TIMEOUT", 1, False)
        assert dialer.puncher.active(listener.peer)


async def test_dials_in_the_air_stay_from_attempt_to_attempt_and_then_for_the_next_run() -> None:
    async with open_relay() as relay, open_peer() as listener, open_peer() as dialer:
        with deaf_port() as deaf, trio.fail_after(20):
            lie(listener, f"/ip4/127.0.0.1/tcp/{deaf.getsockname()[1]}")
            lie(dialer, "/ip4/127.0.0.2/tcp/1")
            await over_relay(relay, dialer, listener)
            kept = dialer.puncher.kept
            seen = []
            for attempt in (1, 2, 3):
                await dialer.record.wait(PunchFailed, attempt)
                seen.append(dials_kept_for(dialer, listener))
            sockets = kept.of(listener.peer)
            assert sockets is not None
            with pytest.raises(trio.ClosedResourceError):  # nothing is diverted in the meantime
                await sockets.accepted.receive()
            assert len(seen[0]) == 1
            assert seen[0] == seen[1] == seen[2]
            assert not fresh(seen[0][0].closed)
            # The next run: its dial leaves in the place of the old one, at the moment when it is due.
            await listener.record.wait(PunchFailed, 3)
            await trio.testing.wait_all_tasks_blocked()
            listener.puncher.retry_now(dialer.peer)
            await dialer.record.wait(PunchFailed, 4)
            assert kept.of(listener.peer) is sockets
            [dial] = sockets.dials
            assert dial is not seen[0][0]
            assert seen[0][0].closed
        assert [failed.code for failed in dialer.record.of(PunchFailed)] == ["SYN_FILTERED"] * 4


async def test_dials_end_with_a_run_whose_successor_comes_after_their_mappings() -> None:
    policy = replace(QUICK, retry=LIMITS.keep_for_run)
    async with open_relay() as relay, open_peer() as listener, open_peer(policy) as dialer:
        with deaf_port() as deaf, trio.fail_after(20):
            lie(listener, f"/ip4/127.0.0.1/tcp/{deaf.getsockname()[1]}")
            lie(dialer, "/ip4/127.0.0.2/tcp/1")
            await over_relay(relay, dialer, listener)
            await dialer.record.wait(PunchFailed, 2)
            [dial] = dials_kept_for(dialer, listener)
            await dialer.record.wait(PunchFailed, 3)
        assert dialer.puncher.kept.peers == ()
        assert dial.closed


async def test_another_network_ends_the_dials_that_wait_and_the_pause() -> None:
    """The dials left from an address that the machine may have lost; the verdict was about another place."""
    once = replace(QUICK, attempts=1)
    async with open_relay() as relay, open_peer(once) as listener, open_peer(once) as dialer:
        with deaf_port() as deaf, trio.fail_after(30):
            lie(listener, f"/ip4/127.0.0.1/tcp/{deaf.getsockname()[1]}")
            lie(dialer, "/ip4/127.0.0.2/tcp/1")
            await over_relay(relay, dialer, listener)
            await dialer.record.wait(PunchFailed)
            await listener.record.wait(PunchFailed)
            [dial] = dials_kept_for(dialer, listener)
            dialer.host.network_changed()
            assert dial.closed
            assert dialer.puncher.kept.peers == ()
            listener.host.network_changed()  # the next run would be half a minute away
            await listener.record.wait(PunchFailed, 2)


async def test_sockets_of_an_attempt_during_which_the_network_changed_are_not_kept() -> None:
    async with open_peer() as peer, open_peer(None) as other:
        kept = peer.puncher.kept
        with deaf_port() as deaf:
            taken = kept.take(other.peer)
            taken.dials.keep(Dial(Endpoint("ip4", "127.0.0.1", deaf.getsockname()[1], "tcp"), None))
            [dial] = taken.dials
            peer.host.network_changed()
            assert not fresh(dial.closed)  # the attempt goes on
            kept.keep(taken)
            assert dial.closed
            assert kept.peers == ()


async def test_dials_of_runs_that_are_over_make_room() -> None:
    limits = Limits(punch=PunchLimits(kept_peers=1))
    async with open_peer(limits=limits) as peer, open_peer(None) as one, open_peer(None) as two:
        kept = peer.puncher.kept
        with deaf_port() as deaf:
            endpoint = Endpoint("ip4", "127.0.0.1", deaf.getsockname()[1], "tcp")
            first = kept.take(one.peer)
            first.dials.keep(Dial(endpoint, None))
            kept.keep(first)
            kept.keep_for_next_run(one.peer, 30.0)
            kept.keep(kept.take(two.peer))
            assert kept.peers == (two.peer,)
            assert not first.dials
            kept.keep(kept.take(one.peer))  # the other one waits for an attempt that may come at any moment
            assert kept.peers == (two.peer,)


async def test_a_socket_accepted_between_two_attempts_is_the_next_ones() -> None:
    """It came from a candidate's exact endpoint: it waits for DCUtR's role instead of an ordinary handshake."""
    async with open_relay() as relay, open_peer(None) as listener, open_peer(BRIEF) as dialer:
        await over_relay(relay, dialer, listener)
        theirs = relayed_from(listener, dialer)
        [here] = dialer.host.swarm.listen_addrs()
        with socket.socket() as candidate, trio.fail_after(10):
            candidate.bind(("127.0.0.1", 0))  # it does not listen: the first attempt's dials are refused
            await exchange(listener, theirs, candidate)
            assert (await dialer.record.wait(PunchFailed)).code == "RESET_BY_NAT"
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(candidate))
            await stream.socket.connect(("127.0.0.1", int(str(here).rsplit("/", 1)[1])))
            await exchange(listener, theirs, candidate)
            # Here the dialer takes the initiator's part, as it does on a socket of its own dial.
            assert (await stream.receive_some(64)).startswith(b"\x13/multistream/1.0.0\n")
            await stream.aclose()


async def test_too_many_punches_at_once_end_as_a_failure_with_its_reason() -> None:
    policy = replace(QUICK, reversal=True)
    async with open_relay() as relay, open_peer(policy) as listener, open_peer() as dialer:
        most = listener.host.swarm.config.limits.tcp.diverters
        with ExitStack() as others, trio.fail_after(10):
            for _ in range(most):
                others.enter_context(listener.host.swarm.divert(lambda _: False))
            await over_relay(relay, dialer, listener)
            failed = await listener.record.wait(PunchFailed)
        assert failed.code == "UNKNOWN"
        assert f"{most} punches are in progress" in failed.message


async def test_what_no_attempt_comes_back_for_is_closed() -> None:
    limits = Limits(punch=PunchLimits(keep_for_attempt=0.2))
    async with open_relay() as relay, open_peer(None) as listener, open_peer(BRIEF, limits=limits) as dialer:
        await over_relay(relay, dialer, listener)
        with deaf_port() as deaf, trio.fail_after(10):
            await exchange(listener, relayed_from(listener, dialer), deaf)
            await dialer.record.wait(PunchFailed)
            sockets = dialer.puncher.kept.of(listener.peer)
            assert sockets is not None
            [dial] = sockets.dials
            with pytest.raises((trio.EndOfChannel, trio.ClosedResourceError)):
                await sockets.accepted.receive()
        assert dial.closed
        assert dialer.puncher.kept.peers == ()
