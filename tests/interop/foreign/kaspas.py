"""The Kaspa rows: our node and Kaspa's own P2P library, over TCP and through expose and forward."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from foreign.base import until
from foreign.build import REPOSITORY
from foreign.cases import Case
from foreign.peer import Peer, PeerFailed, Pool

LOCAL = ("--listen", "/ip4/127.0.0.1/tcp/0", "--lan")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def pair(pool: Pool, *kaspa_flags: str) -> tuple[Peer, Peer]:
    """(our node, Kaspa's): fresh for each row, since counters and peers are kept by process."""
    number = len(pool.memory)
    pool.memory["kaspa", number] = True
    flags = [("-serve", f"127.0.0.1:{free_port()}") for _ in range(2)]
    node = pool.get("node", f"node {number}", *flags[0])
    return node, pool.get("kaspa", f"kaspa {number}", *flags[1], *kaspa_flags)


def talking(node: Peer, kaspa: Peer) -> str:
    """Both have shaken hands; pings, addresses and inventories pass; the connection stays."""
    kaspa.wait("handshake")
    node.wait("handshake")
    until(lambda: kaspa.ask("counts")["active"] == 1, "Kaspa's hub does not list us")
    kaspa.ask("talk")

    def all_heard() -> bool:
        theirs = kaspa.ask("counts")["counts"]
        ours = node.ask("counts")["counts"].get("received", {})
        return theirs.get("Ping", 0) >= 2 and {"Pong", "Addresses"} <= set(theirs) and ours.get("pong", 0) >= 2

    until(all_heard, "pings or addresses did not pass", 20)
    assert not node.find("ended"), node.find("ended")
    assert not kaspa.find("ended"), kaspa.find("ended")
    return ""


def we_dial(pool: Pool) -> str:
    node, kaspa = pair(pool)
    node.ask("connect", addr=kaspa.addr)
    return talking(node, kaspa)


def they_dial(pool: Pool) -> str:
    node, kaspa = pair(pool)
    kaspa.ask("connect", addr=node.addr)
    return talking(node, kaspa)


def _rejected(we_dial: bool, words: str, flags: tuple[str, ...], pool: Pool) -> str:
    """Both sides say why."""
    node, kaspa = pair(pool, *flags)
    dialer, other = (node, kaspa) if we_dial else (kaspa, node)
    try:
        dialer.ask("connect", addr=other.addr)
    except PeerFailed:
        pass  # either side may be the first to say so; both are asked below
    ours, theirs = node.wait("refused"), kaspa.wait("refused")
    assert words in ours["error"].lower(), ours
    # Kaspa's router ends all routes when a Reject comes; its reason is only in their log.
    assert any(word in theirs["error"].lower() for word in (words, "reject", "closed")), theirs
    return f"ours: {ours['error']}; theirs: {theirs['error']}"


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
                [sys.executable, "-m", "node.cli", *arguments],
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


def exposed_kaspa(pool: Pool) -> str:
    node, kaspa = pair(pool)
    with tunnel(kaspa.addr) as place:
        node.ask("connect", addr=place)
        return talking(node, kaspa)


def exposed_node(pool: Pool) -> str:
    node, kaspa = pair(pool)
    with tunnel(node.addr) as place:
        kaspa.ask("connect", addr=place)
        return talking(node, kaspa)


WRONG_NETWORK, OLD = ("-network", "kaspa-mainnet"), ("-protocol", "5")
ROWS: tuple[tuple[str, str, Callable[[Pool], str]], ...] = (
    ("handshake, pings, addresses", "our node dials kaspa-p2p-lib", we_dial),
    ("handshake, pings, addresses", "kaspa-p2p-lib dials our node", they_dial),
    ("handshake, pings, addresses", "our node → forward → expose → kaspa-p2p-lib", exposed_kaspa),
    ("handshake, pings, addresses", "kaspa-p2p-lib → forward → expose → our node", exposed_node),
    (
        "another network: Reject",
        "our node dials kaspa-p2p-lib",
        partial(_rejected, True, "network", WRONG_NETWORK),
    ),
    (
        "another network: Reject",
        "kaspa-p2p-lib dials our node",
        partial(_rejected, False, "network", WRONG_NETWORK),
    ),
    ("protocol 5: Reject", "our node dials kaspa-p2p-lib", partial(_rejected, True, "version", OLD)),
    ("protocol 5: Reject", "kaspa-p2p-lib dials our node", partial(_rejected, False, "version", OLD)),
)


def cases() -> Iterator[Case]:
    for row, who, run in ROWS:
        yield Case("kaspa", row, who, ("node", "kaspa"), run)
