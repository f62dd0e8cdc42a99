"""Dials that fail, peers that vanish, and what the caller is told."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator

import grpc
import pytest

import punchbridge
from punchbridge.addresses import Multiaddr
from punchbridge.events import ConnectionClosed, Event
from punchbridge.rpc.channel import DialFailed
from tests.support.muxed import cut
from tests.support.rpc_lab import LOOPBACK, Service, details, eventually, method, open_pair, serving, trailing


@pytest.fixture(scope="module")
def dialer() -> Iterator[punchbridge.Bridge]:
    with punchbridge.open(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE) as opened:
        yield opened


def stranger() -> str:
    return str(punchbridge.Identity.generate())


def test_dial_failure_is_told_by_every_kind_of_call(dialer: punchbridge.Bridge) -> None:
    peer = stranger()
    with dialer.channel(f"/ip4/127.0.0.1/tcp/1/p2p/{peer}") as channel:
        calls = (
            lambda: method(channel, "Echo")(b"", timeout=10),
            lambda: method(channel, "Echo").with_call(b"", timeout=10),
            lambda: method(channel, "Echo").future(b"", timeout=10).result(),
            lambda: method(channel, "Up")(iter([b""]), timeout=10),
            lambda: list(method(channel, "Down")(b"1", timeout=10)),
            lambda: list(method(channel, "Chat")(iter([]), timeout=10)),
        )
        for call in calls:
            with pytest.raises(grpc.RpcError) as caught:
                call()
            problem = caught.value
            assert isinstance(problem, DialFailed)
            assert isinstance(problem.reason, punchbridge.Unreachable)
            assert problem.code() is grpc.StatusCode.UNAVAILABLE
            assert problem.details().startswith("UNREACHABLE: ")
            assert "127.0.0.1" in problem.details()
            assert trailing(problem)["punchbridge-error"] == "UNREACHABLE"
        future = method(channel, "Echo").future(b"", timeout=10)
        assert isinstance(future.exception(10), DialFailed)
        assert future.details().startswith("UNREACHABLE: ")
    assert isinstance(dialer.last_error(peer), punchbridge.Unreachable)
    assert dialer.last_error(stranger()) is None


def test_wait_for_ready_waits_to_its_deadline_and_tells_why(dialer: punchbridge.Bridge) -> None:
    with dialer.channel(f"/ip4/127.0.0.1/tcp/1/p2p/{stranger()}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            method(channel, "Echo")(b"", timeout=0.5, wait_for_ready=True)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "UNREACHABLE" in details(caught.value)
        with pytest.raises(grpc.FutureTimeoutError):
            grpc.channel_ready_future(channel).result(0.3)


def test_wrong_peer_id(dialer: punchbridge.Bridge) -> None:
    with (
        punchbridge.open(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE) as other,
        serving(other, Service()),
    ):
        addr = other.addrs[0].rpartition("/p2p/")[0]
        peer = stranger()
        with dialer.channel(f"{addr}/p2p/{peer}") as channel:
            with pytest.raises(grpc.RpcError) as caught:
                method(channel, "Echo")(b"", timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            error = dialer.last_error(peer)
            assert error is not None
            assert "WRONG_PEER" in f"{error.code} {error}"
            assert other.peer_id in details(caught.value)


def test_a_peer_without_the_protocol(dialer: punchbridge.Bridge) -> None:
    with punchbridge.open(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE) as other:
        with dialer.channel(other.addrs[0]) as channel, pytest.raises(grpc.RpcError) as caught:
            method(channel, "Echo")(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert details(caught.value).startswith("UNSUPPORTED: ")
        assert isinstance(dialer.last_error(other.peer_id), punchbridge.NegotiationFailed)
        with serving(other, Service()), dialer.channel(other.addrs[0]) as channel:
            assert method(channel, "Echo")(b"", timeout=10) == b""
        assert dialer.last_error(other.peer_id) is None, "a success forgets the failure"


def test_unknown_peer_without_an_address(dialer: punchbridge.Bridge) -> None:
    with dialer.channel(stranger()) as channel, pytest.raises(grpc.RpcError) as caught:
        method(channel, "Echo")(b"", timeout=10)
    assert "no address was given" in details(caught.value)


def test_relay_policy_needs_a_relay() -> None:
    with open_pair() as (listener, dialing), serving(listener, Service()):
        with dialing.channel(listener.addrs[0], path="relay") as channel, pytest.raises(grpc.RpcError) as caught:
            method(channel, "Echo")(b"", timeout=10)
        assert "give its circuit address" in details(caught.value)
        with dialing.channel(listener.addrs[0], path="direct") as channel:
            assert method(channel, "Echo")(b"d", timeout=10) == b"d"


@pytest.mark.parametrize("target", ["/ip4/127.0.0.1/tcp/1", "nonsense", "/ip4/1.2.3.4/udp/5/p2p/12D3KooW"])
def test_malformed_targets_raise_at_once(dialer: punchbridge.Bridge, target: str) -> None:
    with pytest.raises(punchbridge.AddressError):
        dialer.channel(target)


def test_bad_arguments_raise_at_once(dialer: punchbridge.Bridge) -> None:
    target = f"/p2p/{stranger()}"
    for wrong in ({"path": "fast"}, {"protocol": "x"}, {"direct_wait": 0}, {"direct_wait": 1000.0}):
        with pytest.raises(punchbridge.ConfigError):
            dialer.channel(target, **wrong)


def test_a_server_that_runs_already_is_refused() -> None:
    """grpc would bind the socket and never accept on it: every call would wait for its deadline."""
    with (
        punchbridge.open(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE) as listener,
        serving(listener, Service()) as server,
    ):
        with pytest.raises(punchbridge.ConfigError, match="before start"):
            listener.serve(server, "/test/late/1")
        assert "/test/late/1" not in listener._control.host.swarm.registry


def test_what_is_asked_for_in_vain_is_told_at_once(dialer: punchbridge.Bridge) -> None:
    with pytest.raises(punchbridge.ConfigError, match=r"relays=\[…\]"):
        dialer.wait_reservation(20)
    for wrong in (None, b"/ip4/127.0.0.1/tcp/1", 7):
        with pytest.raises(punchbridge.AddressError, match="peer id or a multiaddr"):
            dialer.channel(wrong)
    with pytest.raises(
        punchbridge.DirectRequired, match=r"not connected: NO_RELAY.*Connect to the peer first"
    ) as caught:
        dialer.wait_direct(stranger(), 0.1)
    assert caught.value.verdict.code == "NO_RELAY"
    for single in ("/ip4/127.0.0.1/tcp/0", Multiaddr("/ip4/127.0.0.1/tcp/0")):
        with pytest.raises(punchbridge.ConfigError, match=r"write listen=\["), punchbridge.open(listen=single):
            pass
        with pytest.raises(punchbridge.ConfigError, match=r"write relays=\["), punchbridge.open(relays=single):
            pass


def test_a_vanished_peer_ends_the_call_and_the_next_one_dials_again() -> None:
    identity = punchbridge.Identity.generate()
    service = Service()
    with punchbridge.open(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE) as dialing:
        with punchbridge.open(key=identity, listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE) as first:
            addr = first.addrs[0]
            with serving(first, service):
                channel = dialing.channel(addr)
                stream = method(channel, "Wait")(b"", timeout=20)
                assert next(stream) == b"first"
                first.close()
                with pytest.raises(grpc.RpcError) as caught:
                    next(stream)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        listen = addr.partition("/p2p/")[0]
        with (
            punchbridge.open(key=identity, listen=(listen,), allow_private=True, allow=punchbridge.ANYONE) as second,
            serving(second, service),
        ):
            assert method(channel, "Echo")(b"back", timeout=20, wait_for_ready=True) == b"back"
            channel.close()


def test_a_server_that_is_gone_resets_streams() -> None:
    with open_pair() as (listener, dialing):
        with serving(listener, Service()), dialing.channel(listener.addrs[0]) as channel:
            assert method(channel, "Echo")(b"", timeout=10) == b""
        with dialing.channel(listener.addrs[0]) as channel, pytest.raises(grpc.RpcError) as caught:
            method(channel, "Echo")(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert details(caught.value).startswith("RESET: ")
        assert isinstance(dialing.last_error(listener.peer_id), punchbridge.StreamReset)


def test_garbage_instead_of_a_handshake() -> None:
    with socket.create_server(("127.0.0.1", 0)) as junk, open_pair() as (listener, dialing):

        def talk() -> None:
            accepted, _ = junk.accept()
            with accepted:
                accepted.sendall(b"220 this is a mail server\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        addr = f"/ip4/127.0.0.1/tcp/{junk.getsockname()[1]}/p2p/{listener.peer_id}"
        with dialing.channel(addr) as channel, pytest.raises(grpc.RpcError) as caught:
            method(channel, "Echo")(b"", timeout=15)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert details(caught.value).split(":")[0] in ("UNREACHABLE", "PROTOCOL", "CONNECTION_LOST")
        thread.join()
        with serving(listener, Service()), dialing.channel(listener.addrs[0]) as channel:
            assert method(channel, "Echo")(b"ok", timeout=10) == b"ok"


def test_event_callbacks_may_fail() -> None:
    seen: list[str] = []

    def callback(event: Event) -> None:
        seen.append(event.name)
        raise RuntimeError("mine")

    with punchbridge.open(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE, events=callback) as one:
        with punchbridge.open(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE) as other:
            assert one.connect(other.addrs[0]).peer_id == other.peer_id
            closed = threading.Event()
            end = one.subscribe(lambda event: closed.set() if isinstance(event, ConnectionClosed) else None)
        assert closed.wait(10)
        end()
        eventually(lambda: not one.connections())
    assert "connection.opened" in seen


def test_errors_at_open_are_raised_in_the_caller(tmp_path: object) -> None:
    with punchbridge.open(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE) as one:
        port = one.addrs[0].split("/")[4]
        with pytest.raises(punchbridge.PortInUse), punchbridge.open(listen=(f"/ip4/127.0.0.1/tcp/{port}",)):
            pass
    with pytest.raises(punchbridge.AddressError), punchbridge.open(listen=("/ip4/999.0.0.1/tcp/0",)):
        pass
    with pytest.raises(punchbridge.AddressError, match="/p2p/ID"), punchbridge.open(relays=("/ip4/127.0.0.1/tcp/1",)):
        pass
    with pytest.raises(punchbridge.IdentityError), punchbridge.open(key="/dev/null"):
        pass


def _chat_and_cut(
    listener: punchbridge.Bridge, channel: grpc.Channel, dice: random.Random, cuts: set[int], count: int
) -> tuple[list[bytes], list[bytes], grpc.RpcError | None]:
    """A bidi call of `count` messages; the listener's side cuts all connections after the replies in `cuts`."""
    swarm = listener._control.host.swarm
    sent: list[bytes] = []
    received: list[bytes] = []

    def requests() -> Iterator[bytes]:
        for number in range(count):
            sent.append(str(number).encode() * dice.randrange(1, 3000))
            yield sent[-1]

    caught: grpc.RpcError | None = None
    try:
        for message in method(channel, "Chat")(requests(), timeout=30, wait_for_ready=True):
            received.append(message)
            if len(received) in cuts:
                listener._thread.ask(lambda: cut(swarm.connections()))
    except grpc.RpcError as problem:
        caught = problem
    return sent, received, caught


def test_plain_streams_cut_at_any_moment_never_corrupt_or_fake_an_end() -> None:
    """What arrived is an exact prefix, and the call ends as UNAVAILABLE: whatever was in flight when it was cut."""
    dice = random.Random(2)
    with (
        open_pair(sessions=False) as (listener, dialing),
        serving(listener, Service()),
        dialing.channel(listener.addrs[0]) as channel,
    ):
        for _ in range(15):
            cut_at = dice.randrange(1, 60)
            sent, received, caught = _chat_and_cut(listener, channel, dice, {cut_at}, 100_000)
            assert caught is not None
            assert caught.code() is grpc.StatusCode.UNAVAILABLE
            assert len(received) >= cut_at
            assert received == sent[: len(received)]
            # The next call is to begin on a connection that lives.
            eventually(lambda: not dialing.connections())


def test_a_session_carries_a_call_over_every_cut() -> None:
    dice = random.Random(3)
    with (
        open_pair() as (listener, dialing),
        serving(listener, Service()),
        dialing.channel(listener.addrs[0]) as channel,
    ):
        sent, received, caught = _chat_and_cut(listener, channel, dice, {5, 6, 20, 45, 46, 47, 80}, 100)
        assert caught is None
        assert received == sent
        assert len(sent) == 100


def test_a_peer_without_sessions_is_reached_over_a_plain_stream_both_ways() -> None:
    for server_has, client_has in ((True, False), (False, True)):
        with (
            punchbridge.open(
                listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE, sessions=server_has
            ) as server,
            punchbridge.open(
                listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE, sessions=client_has
            ) as client,
            serving(server, Service()),
            client.channel(server.addrs[0]) as channel,
        ):
            assert method(channel, "Echo")(b"plain", timeout=15) == b"plain"
            assert channel.info is not None
            assert not channel.info.moves
