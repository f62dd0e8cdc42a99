"""Which path a channel and a server allow, and who is told of a move: gRPC over relay and direct, on loopback."""

from __future__ import annotations

import threading

import grpc
import pytest
import trio

import punchbridge
from punchbridge.config import Limits, SessionLimits
from punchbridge.events import Event, P2pFallback, P2pUpgrade, SessionSwitched
from tests.support.muxed import cut
from tests.support.rpc_lab import LOOPBACK, Service, method, relayed_pair, who
from tests.support.session_lab import SERVICE, Route, pair


def serve(listener: punchbridge.Bridge, path: str) -> tuple[grpc.Server, Service]:
    from concurrent.futures import ThreadPoolExecutor

    service, server = Service(), grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((service,))
    listener.serve(server, path=path)  # type: ignore[arg-type]
    server.start()
    return server, service


def test_server_for_direct_paths_refuses_the_relay_and_says_so() -> None:
    with relayed_pair(punch=False) as (listener, dialer, circuit):
        server, _ = serve(listener, "direct")
        with dialer.channel(circuit) as channel, pytest.raises(grpc.RpcError) as refused:
            method(channel, "Echo")(b"", timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        error = dialer.last_error(listener.peer_id)
        assert isinstance(error, punchbridge.DirectRequired)
        assert error.verdict.code == "PATH_NOT_ALLOWED"
        server.stop(None)


def test_server_for_direct_paths_resets_plain_streams_over_the_relay() -> None:
    with relayed_pair(punch=False, sessions=False) as (listener, dialer, circuit):
        server, service = serve(listener, "direct")
        with dialer.channel(circuit) as channel, pytest.raises(grpc.RpcError) as refused:
            method(channel, "Who")(b"", timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not service.infos
        server.stop(None)


def test_server_for_direct_paths_serves_once_the_punch_has_made_one() -> None:
    with relayed_pair(punch=True) as (listener, dialer, circuit):
        server, _ = serve(listener, "direct")
        with dialer.channel(circuit, path="direct") as channel:
            assert who(channel)[1] == "direct"
        server.stop(None)


def test_wait_direct_starts_on_the_punched_path_and_falls_back_without_a_punch() -> None:
    with relayed_pair(punch=True) as (listener, dialer, circuit):
        server, _ = serve(listener, "any")
        with dialer.channel(circuit, wait_direct=10.0) as channel:
            assert who(channel)[1] == "direct"
        server.stop(None)
    with relayed_pair(punch=False) as (listener, dialer, circuit):
        server, _ = serve(listener, "any")
        with dialer.channel(circuit, wait_direct=10.0) as channel:
            assert who(channel)[1] == "relay"
        server.stop(None)


@pytest.mark.parametrize("wait", [-1.0, 1e6])
def test_senseless_wait_direct_is_refused(wait: float) -> None:
    with punchbridge.open(listen=()) as b, pytest.raises(punchbridge.ConfigError):
        b.channel(str(punchbridge.Identity.generate()), wait_direct=wait)


def test_both_ends_see_the_path_and_its_round_trip_and_are_told_of_moves() -> None:
    with (
        punchbridge.open(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE) as listener,
        punchbridge.open(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE) as dialer,
    ):
        server, service = serve(listener, "any")
        with dialer.channel(listener.addrs[0]) as channel:
            who(channel)
            told: dict[str, list[SessionSwitched]] = {"caller": [], "handler": []}
            woken = {name: threading.Event() for name in told}
            ends = []
            for name, info in (("caller", channel.info), ("handler", service.infos[0])):
                assert info is not None
                assert info.moves
                assert info.round_trip is None or 0 < info.round_trip < 5

                def note(event: SessionSwitched, name: str = name) -> None:
                    told[name].append(event)
                    woken[name].set()
                    raise ValueError("an application's mistake ends nothing")

                ends.append(info.subscribe(note))
            dialer._thread.ask(lambda: cut(dialer._control.host.swarm.connections()))
            assert method(channel, "Echo")(b"on another one", timeout=10) == b"on another one"
            for name, event in woken.items():
                assert event.wait(5), name
                assert not told[name][0].planned
            assert channel.info is not None
            assert channel.info.round_trip is not None
            for end in ends:
                end()
                end()
        server.stop(None)


def test_the_way_to_direct_and_back_is_told_for_each_session_with_what_it_cost() -> None:
    with relayed_pair(punch=True) as (listener, dialer, circuit):
        server, _ = serve(listener, "any")
        told: list[Event] = []
        came = threading.Condition()

        def note(event: Event) -> None:
            with came:
                told.append(event)
                came.notify()

        def of_session(kind: type[P2pUpgrade | P2pFallback]) -> P2pUpgrade | P2pFallback:
            def found() -> P2pUpgrade | P2pFallback | None:
                return next((one for one in told if isinstance(one, kind) and one.session is not None), None)

            with came:
                assert came.wait_for(lambda: found() is not None, 15), told
            event = found()
            assert event is not None
            return event

        dialer.subscribe(note)
        with dialer.channel(circuit) as channel:
            assert method(channel, "Echo")(b"first", timeout=15) == b"first"
            up = of_session(P2pUpgrade)
            assert (up.peer, up.from_, up.to, up.reason) == (listener.peer_id, "relay", "direct", "DIRECT")
            assert (up.gap_ms, up.replayed) == (0.0, 0)
            assert up.rtt_after_ms is not None
            swarm = dialer._control.host.swarm
            dialer._thread.ask(lambda: cut(one for one in swarm.connections() if one.path == "direct"))
            assert method(channel, "Echo")(b"after", timeout=15) == b"after"
            down = of_session(P2pFallback)
            assert isinstance(down, P2pFallback)
            assert (down.code, down.from_, down.to, down.session) == ("DIRECT_LOST", "direct", "relay", up.session)
            assert down.gap_ms is not None
            assert down.gap_ms > 0
        server.stop(None)


async def test_session_that_must_be_direct_fails_with_the_reason_when_no_direct_path_returns() -> None:
    async with pair(Limits(sessions=SessionLimits(resume_timeout=0.5))) as both:
        connection = await both.connect()
        route = Route(both.peer, None)
        stream = await both.dialler.sessions.open(connection, SERVICE, route=route, policy="direct")
        connection.abort("CUT")
        with trio.fail_after(5), pytest.raises(punchbridge.DirectRequired) as failed:
            await stream.receive_some()
        assert failed.value.verdict.code == "DISABLED"
        stream.abort()
