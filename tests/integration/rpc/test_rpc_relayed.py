"""gRPC over a relay and past it, on loopback: which path a channel takes, and what it says when there is none."""

from __future__ import annotations

import grpc
import pytest

import punchbridge
from tests.support.rpc_lab import LOOPBACK, Service, details, method, relay, relayed_pair, serving, trailing, who


def test_grpc_over_the_relay() -> None:
    with relayed_pair(punch=False) as (listener, dialer, circuit), serving(listener, Service()):
        assert circuit in listener.addrs
        status = listener.status()
        assert (status.peer_id, status.addrs) == (listener.peer_id, listener.addrs)
        assert status.relays == (circuit.split("/p2p/")[1].split("/")[0],)
        with dialer.channel(circuit) as channel:
            peer_id, path, multiaddr, *_ = who(channel)
            assert (peer_id, path) == (dialer.peer_id, "relay")
            assert "/p2p-circuit" in multiaddr
            assert method(channel, "Echo")(bytes(60_000), timeout=15) == bytes(60_000)
        # A spare circuit may stand beside the one in use: the relay's cap is near.
        connections = [one for one in dialer.connections() if one.peer_id == listener.peer_id]
        assert connections
        assert all(one.path == "relay" and one.relay is not None for one in connections)


def test_a_circuit_that_is_cut_at_its_limit_ends_the_call_as_unavailable() -> None:
    """The relay's default is 128 KiB a direction; the message is cut in its middle and never looks whole."""
    with (
        relayed_pair(punch=False, sessions=False) as (listener, dialer, circuit),
        serving(listener, Service()),
        dialer.channel(circuit) as channel,
    ):
        with pytest.raises(grpc.RpcError) as caught:
            method(channel, "Echo")(bytes(1 << 20), timeout=15)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        # The next call finds a circuit of its own.
        assert method(channel, "Echo")(b"next", timeout=15, wait_for_ready=True) == b"next"


def test_a_session_moves_to_a_fresh_circuit_before_the_cap_cuts() -> None:
    """1 MiB each way over circuits of 128 KiB: the application notices nothing but pace."""
    with (
        relayed_pair(punch=False) as (listener, dialer, circuit),
        serving(listener, Service()),
        dialer.channel(circuit) as channel,
    ):
        message = bytes(range(256)) * 4096
        assert method(channel, "Echo")(message, timeout=30) == message


def test_direct_required_without_a_punch_tells_the_verdict() -> None:
    with relayed_pair(punch=False) as (listener, dialer, circuit), serving(listener, Service()):
        with dialer.channel(circuit, path="direct", direct_wait=1) as channel, pytest.raises(grpc.RpcError) as caught:
            method(channel, "Echo")(b"", timeout=15)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert details(caught.value).startswith("RELAYED: ")
        assert trailing(caught.value)["punchbridge-verdict"] == "DISABLED"
        error = dialer.last_error(listener.peer_id)
        assert isinstance(error, punchbridge.DirectRequired)
        assert error.verdict.code == "DISABLED"
        with pytest.raises(punchbridge.DirectRequired):
            dialer.wait_direct(listener.peer_id, 1)
        with dialer.channel(circuit, path="relay") as channel:
            assert who(channel)[1] == "relay"


def test_after_the_punch_a_fresh_channel_is_direct_and_the_relayed_one_goes_on() -> None:
    with relayed_pair(punch=True) as (listener, dialer, circuit):
        service = Service()
        with serving(listener, service), dialer.channel(circuit, path="relay") as relayed:
            assert who(relayed)[1] == "relay"
            info = dialer.wait_direct(listener.peer_id, 15)
            assert info.path == "direct"
            with dialer.channel(circuit, fresh=True) as direct, dialer.channel(circuit, path="direct") as required:
                for channel in (direct, required):
                    peer_id, path, multiaddr, *_ = who(channel)
                    assert (peer_id, path) == (dialer.peer_id, "direct")
                    assert "/p2p-circuit" not in multiaddr
                assert method(relayed, "Echo")(b"still there", timeout=15) == b"still there"
                assert who(relayed)[1] == "relay"


def test_a_channel_that_insists_on_direct_waits_for_the_punch() -> None:
    with (
        relayed_pair(punch=True) as (listener, dialer, circuit),
        serving(listener, Service()),
        dialer.channel(circuit, path="direct") as channel,
    ):
        assert who(channel)[1] == "direct"


def test_no_reservation_is_told_with_its_own_code() -> None:
    with relay() as addr, punchbridge.open(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE) as dialer:
        nobody = str(punchbridge.Identity.generate())
        with dialer.channel(f"{addr}/p2p-circuit/p2p/{nobody}") as channel, pytest.raises(grpc.RpcError) as caught:
            method(channel, "Echo")(b"", timeout=15)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "NO_RESERVATION" in details(caught.value)
        with pytest.raises(punchbridge.ConfigError, match="given no relay"):
            dialer.wait_reservation(0.1)
