"""The Kaspa rows: our node and Kaspa's own P2P library, over TCP and through expose and forward."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from foreign.base import until
from foreign.build import REPOSITORY, command
from foreign.cases import Case, Known
from foreign.inlab import run_lab
from foreign.peer import Peer, PeerFailed, Pool
from foreign.punches import RELAYED_MOST

Then = Callable[[Peer, Peer], str]
LOCAL = ("--listen", "/ip4/127.0.0.1/tcp/0", "--lan")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def pair(pool: Pool, *kaspa_flags: str, node_flags: tuple[str, ...] = ()) -> tuple[Peer, Peer]:
    """(our node, Kaspa's): fresh for each row, since counters and peers are kept by process."""
    number = len(pool.memory)
    pool.memory["kaspa", number] = True
    flags = [("-serve", f"127.0.0.1:{free_port()}") for _ in range(2)]
    if "-ping" not in kaspa_flags:
        kaspa_flags = (*kaspa_flags, "-ping", "1")
    node = pool.get("node", f"node {number}", *flags[0], *node_flags)
    return node, pool.get("kaspa", f"kaspa {number}", *flags[1], *kaspa_flags)


def shaken(node: Peer, kaspa: Peer) -> None:
    """Both have shaken hands and list each other."""
    kaspa.wait("handshake")
    node.wait("handshake")
    until(lambda: kaspa.ask("counts")["active"] == 1, "Kaspa's hub does not list us")


def alive(node: Peer, kaspa: Peer) -> None:
    for one in (node, kaspa):
        for what in ("ended", "invalid", "unanswered", "rejected"):
            assert not one.find(what), f"{one.kind}: {one.find(what)}"


def received(node: Peer) -> dict[str, int]:
    found: dict[str, int] = node.ask("counts")["counts"].get("received", {})
    return found


def talking(node: Peer, kaspa: Peer) -> str:
    """Both have shaken hands; pings and addresses pass both ways; the connection stays."""
    shaken(node, kaspa)
    kaspa.ask("talk")

    def all_heard() -> bool:
        theirs, ours = kaspa.ask("counts")["counts"], received(node)
        heard = theirs.get("Ping", 0) >= 2 and {"RequestAddresses", "Addresses"} <= set(theirs)
        return heard and ours.get("pong", 0) >= 2 and "addresses" in ours and len(kaspa.find("pinged")) >= 2

    until(all_heard, "pings or addresses did not pass", 20)
    alive(node, kaspa)
    return ""


def inventories(node: Peer, kaspa: Peer) -> str:
    """A transaction and a block of each side reach the other, under the id that the other computes of them."""
    shaken(node, kaspa)
    ours, theirs = node.ask("publish"), kaspa.ask("publish")

    def they_have() -> bool:
        found = kaspa.ask("counts")
        return all(set(ours[kind]) <= set(found[kind]) for kind in ("transactions", "blocks"))

    until(they_have, "our transaction or block did not reach Kaspa's library")
    until(lambda: all(node.ask("has", **theirs).values()), "Kaspa's transaction or block did not reach us")
    until(lambda: "transactionNotFound" in received(node), "no TransactionNotFound for the id that nobody has")
    alive(node, kaspa)
    return ""


def we_dial(then: Then, pool: Pool) -> str:
    node, kaspa = pair(pool)
    node.ask("connect", addr=kaspa.addr)
    return then(node, kaspa)


def they_dial(then: Then, pool: Pool) -> str:
    node, kaspa = pair(pool)
    kaspa.ask("connect", addr=node.addr)
    return then(node, kaspa)


def past_first_ping(pool: Pool) -> str:
    """Both ways and through the bridge at once: nothing but kaspad's 120 s ping, each side's own, and then more."""
    slow = ("-ping", PING)
    pairs = [pair(pool, *slow, node_flags=slow) for _ in range(3)]
    with tunnel(pairs[2][1].addr) as place:
        pairs[0][0].ask("connect", addr=pairs[0][1].addr)
        pairs[1][1].ask("connect", addr=pairs[1][0].addr)
        pairs[2][0].ask("connect", addr=place)
        began = time.monotonic()
        for node, kaspa in pairs:
            shaken(node, kaspa)
        for node, kaspa in pairs:
            kaspa.wait("pinged", PING_SECONDS)
            until(lambda node=node: "pong" in received(node), "our own ping was not answered", PING_SECONDS)  # type: ignore[misc]
        seconds = time.monotonic() - began
        for node, kaspa in pairs:
            inventories(node, kaspa)
            assert received(node)["ping"] == 1, received(node)
    assert seconds > 119, seconds
    return f"after {seconds:.0f} s; both ways, and through forward and expose"


def _rejected(we_dial: bool, words: str, flags: tuple[str, ...], pool: Pool) -> str:
    """Both refuse, and say why."""
    node, kaspa = pair(pool, *flags)
    _dial(node, kaspa, we_dial)
    ours, theirs = node.wait("refused"), kaspa.wait("refused")
    assert words in ours["error"].lower(), ours
    assert words in theirs["error"].lower(), theirs
    return f"ours: {ours['error']}; theirs: {theirs['error']}"


def _dial(node: Peer, kaspa: Peer, we_dial: bool) -> None:
    dialer, other = (node, kaspa) if we_dial else (kaspa, node)
    try:
        dialer.ask("connect", addr=other.addr)
    except PeerFailed:
        return  # expected: either side may be the first to say so; both are asked
    raise AssertionError("the connection was not refused")


def _we_refuse(we_dial: bool, pool: Pool) -> str:
    """Our reason arrives there as a Reject. Their handshake ends with a closed route, whatever the reason was; the
    library tells it to its log alone, and the peer tells us of that."""
    node, kaspa = pair(pool, "-protocol", "5")
    _dial(node, kaspa, we_dial)
    ours = node.wait("refused")["error"]
    assert "version" in ours, ours
    theirs = kaspa.wait("rejected")["reason"]
    assert theirs == ours, f"we said {ours!r}, they read {theirs!r}"
    return f"they read: {theirs}"


def _they_refuse(we_dial: bool, pool: Pool) -> str:
    """Their reason arrives here as a Reject."""
    node, kaspa = pair(pool, node_flags=("-protocol", "9"))
    _dial(node, kaspa, we_dial)
    theirs, ours = kaspa.wait("refused")["error"], node.wait("refused")
    assert "version mismatch" in theirs, theirs
    assert ours["error"] == theirs, f"they said {theirs!r}, we read {ours}"
    assert ours["by"] == "peer", ours
    return f"we read: {ours['error']}"


@contextmanager
def tunnel(server: str) -> Iterator[str]:
    """A relay, `expose` and `forward` as programs on loopback; yields the forwarded HOST:PORT."""
    running: list[subprocess.Popen[str]] = []

    def start(home: str, *arguments: str) -> str:
        env = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "HOME": home,
            "XDG_STATE_HOME": home,
            "XDG_RUNTIME_DIR": home,
        }
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "punchbridge", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=env,
            )
        )
        pipe = running[-1].stdout
        assert pipe is not None
        line = pipe.readline().strip()
        if not line:
            raise PeerFailed(f"punchbridge {arguments[0]} printed nothing")
        return line

    with tempfile.TemporaryDirectory(prefix="pbi-") as home:
        try:
            relay = start(home, "relay", *LOCAL)
            target = start(home, "expose", server, "--relay", relay, *LOCAL)
            yield start(home, "forward", target, *LOCAL)
        finally:
            for program in reversed(running):
                program.terminate()
            for program in running:
                program.wait(15)
                assert program.stdout is not None
                program.stdout.close()


def exposed_kaspa(then: Then, pool: Pool) -> str:
    node, kaspa = pair(pool)
    with tunnel(kaspa.addr) as place:
        node.ask("connect", addr=place)
        return then(node, kaspa)


def exposed_node(then: Then, pool: Pool) -> str:
    node, kaspa = pair(pool)
    with tunnel(node.addr) as place:
        kaspa.ask("connect", addr=place)
        return then(node, kaspa)


def punched(pool: Pool) -> str:
    """Kaspa's client behind one home router, Kaspa's server behind another: HTTP/2 of tonic over a punched path."""
    found = run_lab(pool, "foreign.kaspalab", own=False)
    assert found["sockets"], found
    assert found["sockets_at_the_end"], found
    for name in ("talk", "after_kill"):
        moved = found[name]
        assert isinstance(moved, dict)
        assert moved["direct"] > 0, found
        assert moved["relay"] < RELAYED_MOST * moved["direct"], found
    assert not found["ended"], found
    when, pings, after = found["seconds"], found["pings"], found["after"]
    return f"direct {when} s after the handshake; {pings} pings, {after} after the relay's end"


def punched_own(pool: Pool) -> str:
    """The two programs of the crate itself: their whole connection runs after the relay has died."""
    found = run_lab(pool, "foreign.kaspalab", own=True)
    assert found["status"] == 0, found
    assert found["sockets"], found
    moved, logs = found["bytes"], found["logs"]
    assert isinstance(moved, dict)
    assert isinstance(logs, dict)
    for name, text in logs.items():
        for said in SHAKEN:
            assert said in text, f"{name} does not log {said!r}: {text[-1000:]}"
    assert moved["direct"] > HANDSHAKE_BYTES, moved
    return f"{moved['direct']} bytes directly, with the relay dead before"


SHAKEN = ("accepted version message", "accepted verack_message", "accepted ready message")
"""What kaspa-p2p-lib logs of a handshake."""
HANDSHAKE_BYTES = 1000


@contextmanager
def own_program(name: str) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    """(a program of the crate itself, what it has logged so far)."""
    with tempfile.TemporaryDirectory(prefix="pbi-") as folder:
        path = Path(folder) / name
        with path.open("w") as log:
            program = subprocess.Popen(command(name), cwd=folder, stdout=log, stderr=log)
        try:
            yield program, path.read_text
        finally:
            program.kill()
            program.wait()


def own_node(pool: Pool, *flags: str) -> Peer:
    """Our node as the crate's programs want it: mainnet and protocol 5, which is all they speak."""
    pool.memory["own", len(pool.memory)] = True
    return pool.get("node", f"node {len(pool.memory)}", *flags, "-network", "kaspa-mainnet", "-protocol", "5")


def echoed(node: Peer, log: Callable[[], str]) -> str:
    """They send every message back: a ping, its pong, a question for addresses, its answer."""
    node.wait("handshake", 20)
    until(lambda: received(node).get("pong", 0) >= 2, "our pings did not come back")
    assert {"ping", "requestAddresses", "addresses"} <= set(received(node)), received(node)
    assert not node.find("ended"), node.find("ended")
    for said in SHAKEN:
        assert said in log(), f"no {said!r} in its log: {log()[-1000:]}"
    return ""


def own_server(pool: Pool) -> str:
    with own_program("kaspa_p2p_server") as (_, log):
        node = own_node(pool, "-serve", f"127.0.0.1:{free_port()}")
        until(lambda: _listens(OWN), "kaspa_p2p_server does not listen")
        node.ask("connect", addr=OWN)
        return echoed(node, log)


def own_client(pool: Pool) -> str:
    node = own_node(pool, "-serve", OWN)
    with own_program("kaspa_p2p_client") as (program, log):
        note = echoed(node, log)
        assert program.wait(30) == 0
    node.close()  # its port is the next one's
    return note


def _listens(place: str) -> bool:
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), 1):
            return True
    except OSError:
        return False


OWN = "[::1]:50051"
"""Where the crate's server listens and its client dials; neither takes an argument."""
PING, PING_SECONDS = "120", 140.0
OUT, IN = "our node dials kaspa-p2p-lib", "kaspa-p2p-lib dials our node"
NETWORK, WE_REFUSE, THEY_REFUSE = "another network: refused", "protocol 5: our Reject", "protocol 9: their Reject"
WRONG_NETWORK = ("-network", "kaspa-mainnet")
WAYS: tuple[tuple[str, Callable[[Then, Pool], str]], ...] = (
    (OUT, we_dial),
    (IN, they_dial),
    ("our node → forward → expose → kaspa-p2p-lib", exposed_kaspa),
    ("kaspa-p2p-lib → forward → expose → our node", exposed_node),
)
ROWS: tuple[tuple[str, str, Callable[[Pool], str]], ...] = (
    *(("handshake, pings, addresses", who, partial(way, talking)) for who, way in WAYS),
    *(("transactions, blocks", who, partial(way, inventories)) for who, way in WAYS),
    (NETWORK, OUT, partial(_rejected, True, "network", WRONG_NETWORK)),
    (NETWORK, IN, partial(_rejected, False, "network", WRONG_NETWORK)),
    *((WE_REFUSE, who, partial(_we_refuse, who == OUT)) for who in (OUT, IN)),
    *((THEY_REFUSE, who, partial(_they_refuse, who == OUT)) for who in (OUT, IN)),
)
LONG = "past the first ping at 120 s"


KNOWN = {
    (THEY_REFUSE, IN): Known(
        "tonic's client resets the HTTP/2 stream right behind its Reject: in some runs the Reject never leaves, in "
        "others gRPC's core hands out the reset in place of it (both seen in the frames between the two); our node "
        "then says that the peer closed",
        "they said",
        sometimes=True,
    )
}
"""(row, combination): why it fails on their side."""


def cases() -> Iterator[Case]:
    for row, who, run in ROWS:
        yield Case("kaspa", row, who, ("node", "kaspa"), run, KNOWN.get((row, who)))
    yield Case("kaspa", LONG, "our node and kaspa-p2p-lib", ("node", "kaspa"), past_first_ping, seconds=300)
    who = "kaspa-p2p-lib → forward → punched path → expose → kaspa-p2p-lib"
    yield Case("kaspa", "tonic end to end behind two NATs", who, ("kaspa",), punched, lab=True)
    echo = "the crate's own programs: handshake, echo"
    yield Case("kaspa", echo, "our node dials kaspa_p2p_server", ("node", "kaspa_p2p_server"), own_server)
    yield Case("kaspa", echo, "kaspa_p2p_client dials our node", ("node", "kaspa_p2p_client"), own_client)
    own = "kaspa_p2p_client → forward → punched path → expose → kaspa_p2p_server"
    kinds = ("kaspa_p2p_client", "kaspa_p2p_server")
    yield Case("kaspa", "tonic end to end behind two NATs", own, kinds, punched_own, lab=True)
