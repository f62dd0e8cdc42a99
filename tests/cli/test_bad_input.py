"""What strangers and mishaps do to running programs: a typed end with advice, or a shrug; never a lost service."""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchbridge.addresses import endpoint_of, parse
from punchbridge.identity import Identity
from punchbridge_node.peerstore import PeerStore
from tests.cli.programs import LOCAL, LOOPBACK, Program, Run, Start, failed

SOMEBODY = str(Identity.generate())


@pytest.fixture
def listener(start: Start) -> tuple[Program, str]:
    """A directly reachable listener and its address."""
    program = start("listen", *LOCAL)
    return program, program.line()


def place_of(address: str) -> tuple[str, int]:
    endpoint = endpoint_of(parse(address))
    assert endpoint is not None
    return endpoint.host, endpoint.port


# --- relays -------------------------------------------------------------------------------------------------


def test_a_peer_that_is_no_relay_is_named_so(run: Run, listener: tuple[Program, str], tmp_path: Path) -> None:
    other = ("--key", str(tmp_path / "other"), "--new-key")
    failed(run("listen", "--relay", listener[1], *LOCAL, *other), 1, "no circuit relay", "address that a relay printed")
    failed(run("dial", f"{listener[1]}/p2p-circuit/p2p/{SOMEBODY}", *LOCAL), 1, "no circuit relay")


def test_a_relay_that_is_this_node_itself_is_a_bad_address(run: Run, tmp_path: Path) -> None:
    key = ("--key", str(tmp_path / "key"))
    code, peer, _ = run("key", "new", *key)
    assert code == 0
    relay = f"/ip4/127.0.0.1/tcp/1/p2p/{peer.splitlines()[0]}"
    failed(run("listen", "--relay", relay, *LOCAL, *key), 2, "BAD_ADDRESS", "this node itself")


def test_the_address_of_the_relay_is_no_target(run: Run, relay: tuple[Program, str]) -> None:
    failed(run("dial", relay[1], *LOCAL), 1, "UNSUPPORTED", "the whole line that the listener printed")


@pytest.mark.parametrize(
    ("behind", "named"),
    [
        ("tcp/443/wss", "/wss"),
        ("tcp/1/tls/ws", "/tls/ws"),
        ("tcp/80/http", "/http"),
        ("udp/1/quic-v1/webtransport", "/webtransport"),
        ("udp/1", "/udp"),
    ],
)
def test_a_transport_that_we_do_not_speak_is_refused_by_its_name(run: Run, behind: str, named: str) -> None:
    words = "BAD_ADDRESS", f"{named} is not spoken by this node"
    place = f"/ip4/127.0.0.1/{behind}"
    failed(run("listen", "--relay", f"{place}/p2p/{SOMEBODY}", *LOCAL), 2, *words)
    failed(run("dial", f"{place}/p2p/{SOMEBODY}", *LOCAL), 2, *words)
    failed(run("listen", *LOCAL, "--listen", place), 2, *words)


def test_an_unknown_relay_cannot_be_reached(run: Run) -> None:
    relay = f"tcp/4001/p2p/{SOMEBODY}/p2p-circuit/p2p/{Identity.generate()}"
    failed(run("dial", f"/dns4/relay.invalid/{relay}", *LOCAL, "--timeout", "30"), 3, "relay.invalid")


def test_a_full_relay_is_asked_again_until_the_time_is_over(run: Run, start: Start, tmp_path: Path) -> None:
    relay = start("relay", "--listen", LOOPBACK, "--lan", "--reservations", "1", "--json")
    address = relay.event("relay.listening")["addrs"][0]
    first = start("listen", "--relay", address, *LOCAL)
    assert "/p2p-circuit/" in first.line()
    second = run("listen", "--relay", address, *LOCAL, "--key", str(tmp_path / "second"), "--new-key", "--timeout", "3")
    failed(second, 6, "RELAY_REFUSED", "RESERVATION_REFUSED", "another relay")
    # For ever: it goes on until the first listener has left.
    other = ("--key", str(tmp_path / "third"), "--new-key")
    third = start("listen", "--relay", address, *LOCAL, *other, "--timeout", "0", "--json")
    assert third.event("reservation.lost")["code"] == "RESERVATION_REFUSED"
    first.stop()
    assert third.event("reservation.accepted")["addrs"]
    assert third.stop()[0] == 0


# --- peers of another kind ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "words"), [("5", "at least 10, got 5"), ("11", "at least 11, got 10")])
def test_a_peer_of_another_protocol_version(run: Run, listener: tuple[Program, str], version: str, words: str) -> None:
    outcome = run("dial", listener[1], *LOCAL, "--protocol-version", version, "--min-protocol", version)
    failed(outcome, 1, words, "both sides")


# --- garbage on any port ------------------------------------------------------------------------------------

NOISE = random.Random(9).randbytes(4096)
GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "tls": bytes.fromhex("160301020001000001fc0303") + NOISE[:500],
    "noise": NOISE,
    "oversized-prefix": b"\xff\xff\xff\xff\x7f" + b"x" * 64,
    "endless-prefix": b"\xff" * 64,
    "oversized-after-multistream": b"\x13/multistream/1.0.0\n" + b"\xff\xff\xff\xff\x0f",
    "zero-bytes": bytes(1000),
    "nothing": b"",
}


def annoy(place: tuple[str, int]) -> None:
    """All of it, each on a connection of its own; the other side may close, and has to within its deadline."""
    with contextlib.ExitStack() as stack:
        sockets = []
        for text in GARBAGE.values():
            sock = stack.enter_context(socket.create_connection(place, 5))
            sock.sendall(text)
            sockets.append(sock)
        for sock, text in zip(sockets, GARBAGE.values(), strict=True):
            if not text:
                continue  # silence is cut at its deadline, which other tests wait for
            sock.settimeout(20)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(65536):
                    pass


def test_garbage_on_the_ports_of_relay_and_listener_harms_nobody(
    start: Start, relay: tuple[Program, str], run: Run
) -> None:
    listener = start("listen", "--relay", relay[1], *LOCAL)
    target = listener.line()
    bound = start("listen", *LOCAL, "--key", "other", "--new-key")
    annoy(place_of(relay[1]))
    annoy(place_of(bound.line()))
    for address in (target, bound.line()):
        code, stdout, stderr = run("ping", address, *LOCAL, "--count", "1")
        assert code == 0, stderr
        assert stdout.startswith(("relay ", "direct "))
    for program in (listener, bound, relay[0]):
        code, _, stderr = program.stop()
        assert code == 0
        assert "Traceback" not in stderr


class Backwards(socketserver.BaseRequestHandler):
    """No gRPC server: it sends back what came first, the other way round, then closes."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.request.sendall(self.request.recv(4096)[::-1])


class Threads(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture
def backwards() -> Iterator[str]:
    with Threads(("127.0.0.1", 0), Backwards) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(5)


def test_garbage_on_the_port_of_forward_is_carried_and_harms_nobody(
    start: Start, relay: tuple[Program, str], backwards: str
) -> None:
    exposed = start("expose", backwards, "--relay", relay[1], *LOCAL)
    forwarded = start("forward", exposed.line(), *LOCAL)
    host, _, port = forwarded.line().rpartition(":")
    annoy((host, int(port)))
    with socket.create_connection((host, int(port)), 5) as sock:
        sock.settimeout(20)
        sock.sendall(b"still there?")
        assert sock.recv(100) == b"?ereht llits"
    for program in (forwarded, exposed):
        code, _, stderr = program.stop()
        assert code == 0
        assert "Traceback" not in stderr


# --- the peer store -----------------------------------------------------------------------------------------


def test_an_unusable_peer_store_ends_with_2_before_anybody_is_served(run: Run, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_text("no database at all")
    failed(run("listen", *LOCAL, "--peer-store", str(garbage)), 2, "PEER_STORE_CORRUPT", "move it away")
    assert garbage.read_text() == "no database at all"
    missing = tmp_path / "missing" / "peers"
    failed(run("listen", *LOCAL, "--peer-store", str(missing)), 2, "PEER_STORE_UNAVAILABLE", "name another file")
    failed(run("listen", *LOCAL, "--peer-store", str(tmp_path)), 2, "PEER_STORE_UNAVAILABLE", "Is a directory")


def test_a_full_disk_is_told_once_and_the_node_goes_on(start: Start, tmp_path: Path) -> None:
    """The kernel lets the listener's files grow no more, then again: what it does on a full disk."""
    path = tmp_path / "peers"
    listener = start("listen", *LOCAL, "--peer-store", str(path), "--json")
    address = f"{listener.event('node.started')['listen'][0]}/p2p/{listener.event('node.started')['peer_id']}"
    first = start("dial", address, *LOCAL, "--json", "--gossip-interval", "0.1", "--stats-interval", "0.2")
    listener.event("handshake.completed", peer=first.event("node.started")["peer_id"])
    before = resource.prlimit(listener.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    second = start("dial", address, *LOCAL, "--json")
    second.event("handshake.completed")
    told = listener.event("error")
    assert told["code"] == "PEER_STORE_FULL"
    assert "free space" in told["message"]
    assert "the node goes on" in told["message"]
    stats = len(first.events)
    first.wait_for(lambda: any(one["event"] == "flow.stats" for one in first.events[stats:]), "further gossip")
    resource.prlimit(listener.process.pid, resource.RLIMIT_FSIZE, before)
    third = start("dial", address, *LOCAL, "--json")
    peer = third.event("node.started")["peer_id"]
    listener.event("handshake.completed", peer=peer)
    assert listener.stop()[0] == 0
    with contextlib.closing(PeerStore(path)) as store:
        assert peer in {one.peer_id for one in store.peers(now=time.time())}
