"""The pure parts of the gRPC room: targets, places, options, reasons, the peer table, the lazy package."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

import punchbridge
from punchbridge.access.ticket import Ticket
from punchbridge.addresses import parse
from punchbridge.errors import (
    AddressError,
    BridgeError,
    ConfigError,
    DirectRequired,
    LimitExceeded,
    NotAllowed,
    NotBridged,
    Unreachable,
)
from punchbridge.identity import Identity, peer_id_forms, peer_text
from punchbridge.local.gateway import OpenFailure
from punchbridge.local.peer import TABLE, ConnectInfo, PeerTable, synthesized_address
from punchbridge.local.places import Place, parse_place
from punchbridge.local.target import Target, check_policy, check_protocol, parse_target
from punchbridge.rpc.options import channel_options, server_options
from punchbridge.rpc.reason import explained_by, explanation, trailing
from punchbridge.verdict import Code, Verdict

PEER = Identity.generate().peer_id
RELAY = Identity.generate().peer_id
DIRECT = f"/ip4/192.0.2.1/tcp/4001/p2p/{peer_text(PEER)}"
CIRCUIT = f"/ip4/192.0.2.9/tcp/4001/p2p/{peer_text(RELAY)}/p2p-circuit/p2p/{peer_text(PEER)}"


def test_targets() -> None:
    for text in (*peer_id_forms(PEER), f"/p2p/{peer_text(PEER)}"):
        assert parse_target(text) == Target(PEER)
    assert parse_target(DIRECT) == Target(PEER, parse(DIRECT))
    assert parse_target(CIRCUIT) == Target(PEER, parse(CIRCUIT))
    assert parse_target(parse(CIRCUIT)) == parse_target(f" {CIRCUIT}\n")
    assert parse_target(PEER) == parse_target(Target(PEER)) == Target(PEER)
    assert parse_target(CIRCUIT).text == CIRCUIT
    assert len({parse_target(CIRCUIT), parse_target(CIRCUIT)}) == 1


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("/ip4/192.0.2.1/tcp/4001", "add /p2p/ID"),
        (f"/ip4/192.0.2.9/tcp/4001/p2p/{peer_text(RELAY)}/p2p-circuit", "add /p2p/ID"),
        (f"/ip4/192.0.2.1/udp/4001/p2p/{peer_text(PEER)}", "/udp is not spoken by this node"),
        ("/ip4/300.0.0.1/tcp/1", "malformed multiaddr"),
        ("12D3KooWnonsense", "not a peer id"),
        ("", "not a peer id"),
    ],
)
def test_bad_targets_say_what_to_do(text: str, hint: str) -> None:
    with pytest.raises(AddressError, match=hint):
        parse_target(text)


def test_a_ticket_for_a_service_that_nobody_here_knows_leads_nowhere() -> None:
    """And not to another service of the same server."""
    assert parse_target(Ticket(PEER, None, addrs=(parse("/ip4/192.0.2.1/tcp/4001"),)).encode()).peer == PEER
    with pytest.raises(AddressError, match=r"the ticket is for the service 'billing', .*update"):
        parse_target(Ticket(PEER, None, service="billing").encode())


def test_policies_and_protocols() -> None:
    assert check_policy("direct") == "direct"
    with pytest.raises(ConfigError, match="'any', 'direct' and 'relay'"):
        check_policy("fast")
    assert check_protocol("/kaspa/p2p/1") == "/kaspa/p2p/1"
    for bad in ("kaspa", "", "/a\nb", "/" + "x" * 512):
        with pytest.raises(ConfigError, match="no protocol id"):
            check_protocol(bad)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:50051", Place("127.0.0.1", 50051)),
        ("localhost:0", Place("localhost", 0)),
        ("[::1]:80", Place("::1", 80)),
        ("unix:/run/x.sock", Place(path="/run/x.sock")),
        ("unix:///run/x.sock", Place(path="/run/x.sock")),
        ("unix:x.sock", Place(path="x.sock")),
        ("unix:/run/\udcff", Place(path="/run/\udcff")),
    ],
)
def test_places(text: str, place: Place) -> None:
    assert parse_place(text) == place
    assert parse_place(str(place)) == place


@pytest.mark.parametrize(
    "text",
    [
        *("", "50051", ":1", "host:", "host:x", "::1:80", "h:65536", "h:-1", "unix:", "h:²", "unix:/\ud800"),
        *("[[--]]:2", "[h:1", "h]:1", "h" * 254 + ":1"),
    ],
)
def test_bad_places(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_place(text)


@given(st.text(st.characters(), max_size=40))
def test_any_text_is_a_place_or_a_config_error(text: str) -> None:
    try:
        place = parse_place(text)
    except ConfigError:
        return
    assert parse_place(str(place)) == place


@given(st.text(max_size=60) | st.text("/ip4tcdns2p0123456789.-circu", max_size=60))
def test_any_text_is_a_target_or_an_address_error(text: str) -> None:
    try:
        target = parse_target(text)
    except AddressError:
        return
    assert parse_target(target.text).peer == target.peer


def test_synthesized_addresses_are_stable_and_local() -> None:
    known = synthesized_address("12D3KooWExample")
    assert known == synthesized_address("12D3KooWExample")
    host, port = known
    assert ipaddress.ip_address(host) in ipaddress.ip_network("fd00::/8")
    assert not ipaddress.ip_address(host).is_global
    assert 1024 <= port <= 65535
    assert synthesized_address("12D3KooWOther") != known


class Fake:
    path = "relay"
    multiaddr = CIRCUIT
    observed = None


class Context:
    def __init__(self, name: str) -> None:
        self.name = name

    def peer(self) -> str:
        return self.name


def test_table_finds_escaped_names_and_info_is_live() -> None:
    table, carrier = PeerTable(), Fake()
    info = ConnectInfo(peer_text(PEER), "/x", carrier)  # type: ignore[arg-type]
    table.add("/tmp/a_b/c1", info)
    assert table.find("unix:/tmp/a_b/c1") is table.find("unix:%2Ftmp%2Fa_b%2Fc1") is info
    assert table.find("ipv4:127.0.0.1:1") is None
    carrier.path = "direct"
    assert info.path == "direct"
    assert peer_text(PEER) in repr(info)
    table.remove("/tmp/a_b/c1")
    table.remove("/tmp/a_b/c1")
    assert len(table) == 0


def test_peer_of_a_foreign_call_raises() -> None:
    with pytest.raises(NotBridged, match="came another way"):
        punchbridge.peer(Context("ipv4:127.0.0.1:5"))
    info = ConnectInfo(peer_text(PEER), "/x", Fake())  # type: ignore[arg-type]
    TABLE.add("/tmp/q/c9", info)
    assert punchbridge.peer(Context("unix:/tmp/q/c9")) is info
    TABLE.remove("/tmp/q/c9")


def test_options_can_be_overridden() -> None:
    options = dict(channel_options("id", private=True, override=[("grpc.enable_http_proxy", 1), ("x", "y")]))
    assert options["grpc.enable_http_proxy"] == 1
    assert options["x"] == "y"
    assert options["grpc.default_authority"] == "id"
    assert options["grpc.use_local_subchannel_pool"] == 1
    assert "grpc.use_local_subchannel_pool" not in dict(channel_options("id"))
    assert dict(server_options([("a", 1)]))["a"] == 1


@dataclass
class Ended:
    """An endpoint whose last attempt to open a stream ended as told."""

    failure: OpenFailure | None
    info: ConnectInfo | None = None
    name: str = "/x"


class Mute:
    """A carrier of which nothing is asked."""


NOT_CONNECTED = "failed to connect to all addresses; last error: UNAVAILABLE: unix:/x"


def test_explanations() -> None:
    error: BridgeError = Unreachable("nobody answered")
    endpoint = Ended(OpenFailure(error, at=5.0))
    assert explained_by("UNAVAILABLE", NOT_CONNECTED, endpoint, began=6.0) is error
    assert explained_by("UNAVAILABLE", "Socket closed", endpoint, began=4.0) is None
    assert explained_by("UNAVAILABLE", NOT_CONNECTED, Ended(None), began=4.0) is None
    struck_out = Ended(OpenFailure(NotAllowed("no more"), at=5.0))
    assert explained_by("UNAVAILABLE", "Socket closed", struck_out, began=4.0) is not None
    assert explained_by("UNAVAILABLE", "Socket closed", struck_out, began=6.0) is None
    assert explained_by("DEADLINE_EXCEEDED", "Deadline Exceeded", endpoint, began=6.0) is error
    assert explained_by("NOT_FOUND", "no such thing", endpoint, began=4.0) is None
    assert explanation("UNAVAILABLE", NOT_CONNECTED, error) == "UNREACHABLE: nobody answered"
    assert explanation("DEADLINE_EXCEEDED", "Deadline Exceeded", error) == (
        "Deadline Exceeded; UNREACHABLE: nobody answered"
    )


def test_an_older_failure_does_not_explain_a_deadline_while_a_stream_works() -> None:
    """The 257th connection was refused; the calls on the other 256 that are slow later have another reason."""
    full = LimitExceeded("256 connections to this target are open")
    carrier = ConnectInfo(peer_text(PEER), "/x", Mute())  # type: ignore[arg-type]
    endpoint = Ended(OpenFailure(full, at=5.0), carrier)
    assert explained_by("DEADLINE_EXCEEDED", "Deadline Exceeded", endpoint, began=6.0) is None
    assert explained_by("DEADLINE_EXCEEDED", "Deadline Exceeded", endpoint, began=4.0) is full


def test_the_verdict_travels_in_the_metadata() -> None:
    verdict = Verdict(Code.SYN_FILTERED, retry_in=30.0, run=1)
    assert trailing(DirectRequired("no direct path", verdict)) == (
        ("punchbridge-error", "RELAYED"),
        ("punchbridge-verdict", "SYN_FILTERED"),
        ("punchbridge-retry-in", "30"),
    )
    assert dict(trailing(DirectRequired("x", Verdict(Code.DISABLED)))).keys() == {
        "punchbridge-error",
        "punchbridge-verdict",
    }
    assert trailing(Unreachable("nobody answered")) == (("punchbridge-error", "UNREACHABLE"),)


def test_importing_the_package_is_cheap() -> None:
    script = (
        "import sys, json, time; t = time.process_time(); import punchbridge; t = time.process_time() - t; "
        "print(json.dumps([t, [m for m in ('trio', 'grpc', 'libp2p', 'asyncio') if m in sys.modules]]))"
    )
    runs = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        seconds, heavy = json.loads(done.stdout)
        assert heavy == []
        runs.append(seconds)
        if seconds < 0.03:
            break
        time.sleep(0.2)  # A busy machine: the bound is for the work, not for the waiting.
    assert min(runs) < 0.03


def test_every_public_name_exists() -> None:
    for name in punchbridge.__all__:
        assert getattr(punchbridge, name) is not None
    assert set(punchbridge.__all__) <= set(dir(punchbridge))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = punchbridge.nonsense
