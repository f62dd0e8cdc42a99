"""Kaspa's own client and server behind two home routers, joined by `forward` and `expose` over a punched path.

`python -m foreign.kaspalab '{"own": false}'` prints one JSON object. With `own` the two programs are those that the
crate kaspa-p2p-lib brings, unchanged, and meet only once the path is direct and the relay is dead. Both speak tonic's
HTTP/2 over TCP on their own loopback. Direct is what the kernel's sockets and counters show, and what outlives the
relay.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from lab import proof
from lab.lab import Lab

from foreign.base import until
from foreign.build import command
from foreign.inlab import answer
from foreign.labcase import DELAY, popen
from foreign.peer import Peer, PeerFailed

SERVER = "127.0.0.1:16611"
RELAY, LISTEN = "/ip4/11.0.0.10/tcp/4001", "/ip4/0.0.0.0/tcp/4101"
DIRECT_SECONDS = 40.0
RELEASED_SECONDS = 15.0
"""Until the session has moved and the circuit was given back."""
BODIES = 60
"""Transactions and blocks, about 1 KB each with its request: more than keepalives by far."""


def program(lab: Lab, host: str, folder: Path, *arguments: str) -> tuple[Any, str]:
    """(a punchbridge program in a host, the first line it printed)."""
    home = folder / host
    home.mkdir(exist_ok=True)
    env = {**os.environ, "HOME": str(home), "XDG_STATE_HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    argv = [sys.executable, "-m", "punchbridge", *arguments]
    with (home / f"{arguments[0]}.log").open("w") as log:
        running = lab.popen(host, argv, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
    assert running.stdout is not None
    line = str(running.stdout.readline()).strip()
    if not line:
        raise PeerFailed(f"{arguments[0]} printed nothing: {(home / f'{arguments[0]}.log').read_text()[-500:]}")
    return running, line


def exchange(lab: Lab, one: Peer, other: Peer) -> dict[str, int]:
    """Bodies both ways; returns the bytes that went over each path meanwhile."""
    before = proof.traffic(lab)
    for sender, receiver in ((one, other), (other, one)):
        told = [sender.ask("publish") for _ in range(BODIES)]
        wanted = {body for each in told for kind in ("transactions", "blocks") for body in each[kind]}

        def came(receiver: Peer = receiver, wanted: set[str] = wanted) -> bool:
            got = receiver.ask("counts")
            return wanted <= {*got["transactions"], *got["blocks"]}

        until(came, f"bodies published by the {'client' if sender is one else 'server'} did not arrive", 20)
    after = proof.traffic(lab)
    return {path: after[path] - before[path] for path in before}


def conduct(lab: Lab, folder: Path) -> dict[str, Any]:
    """Handshake, wait for the direct path, exchange, kill the relay, exchange again."""
    relay, relay_addr = program(lab, "relay", folder, "relay", "--listen", RELAY)
    server = Peer("kaspa", "-serve", SERVER, "-ping", "1", popen=partial(popen, lab, "a"))
    _, target = program(lab, "a", folder, "expose", SERVER, "--relay", relay_addr, "--listen", LISTEN)
    _, place = program(lab, "b", folder, "forward", target, "--listen", LISTEN)
    client = Peer("kaspa", "-serve", "127.0.0.1:16612", "-ping", "1", popen=partial(popen, lab, "b"))
    found: dict[str, Any] = {"versions": {"kaspa": client.version}}
    client.ask("connect", addr=place)
    began = time.monotonic()
    for peer in (client, server):
        peer.wait("handshake")
    until(lambda: proof.direct_pairs(lab), "the path did not become direct", DIRECT_SECONDS)
    found["seconds"] = round(time.monotonic() - began, 1)
    until(lambda: _still(lab), "the relay still carries the session", RELEASED_SECONDS)
    pairs = proof.established_pairs(lab)
    found["talk"] = exchange(lab, client, server)
    found["sockets"] = [pair.as_json() for pair in proof.direct_pairs(lab, since=pairs)]
    relay.kill()
    relay.wait()
    pings = {peer: len(peer.find("pinged")) for peer in (client, server)}
    found["after_kill"] = exchange(lab, client, server)
    for peer, count in pings.items():
        peer.wait("pinged", count=count + 3)
    found["sockets_at_the_end"] = [pair.as_json() for pair in proof.direct_pairs(lab)]
    found["pings"] = sum(len(peer.find("pinged")) for peer in (client, server))
    found["after"] = found["pings"] - sum(pings.values())
    found["ended"] = [one for peer in (client, server) for what in ("ended", "unanswered") for one in peer.find(what)]
    return found


OWN = "[::1]:50051"
"""Where the crate's server listens and its client dials; neither takes an argument."""
OWN_SECONDS = 45.0
"""The client stays for 5 s and ends 10 s later; the server first tries 16 s for a peer of its own."""


def conduct_own(lab: Lab, folder: Path) -> dict[str, Any]:
    """Direct path first, then the relay's end, then the whole life of a connection between the crate's programs."""
    logs = {name: (folder / name) for name in ("kaspa_p2p_server", "kaspa_p2p_client")}
    relay, relay_addr = program(lab, "relay", folder, "relay", "--listen", RELAY)
    with logs["kaspa_p2p_server"].open("w") as log:
        lab.popen("a", command("kaspa_p2p_server"), cwd=folder, stdout=log, stderr=log)
    _, target = program(lab, "a", folder, "expose", OWN, "--relay", relay_addr, "--listen", LISTEN)
    program(lab, "b", folder, "forward", target, "--bind", OWN, "--listen", LISTEN)
    until(lambda: proof.direct_pairs(lab), "the path did not become direct", DIRECT_SECONDS)
    relay.kill()
    relay.wait()
    pairs, before = proof.established_pairs(lab), proof.traffic(lab)
    with logs["kaspa_p2p_client"].open("w") as log:
        client = lab.popen("b", command("kaspa_p2p_client"), cwd=folder, stdout=log, stderr=log)
    status = client.wait(OWN_SECONDS)
    after = proof.traffic(lab)
    return {
        "versions": {},
        "status": status,
        "sockets": [pair.as_json() for pair in proof.direct_pairs(lab, since=pairs)],
        "bytes": {path: after[path] - before[path] for path in before},
        "logs": {name: path.read_text()[-20_000:] for name, path in logs.items()},
    }


def _still(lab: Lab) -> bool:
    """A ping of each side went, and the relay saw next to nothing of it."""
    before = proof.traffic(lab)
    time.sleep(1.1)
    after = proof.traffic(lab)
    return after["direct"] > before["direct"] and after["relay"] - before["relay"] < after["direct"] - before["direct"]


def in_lab(order: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="pbi-") as folder, Lab("home", "home", delay=DELAY) as lab:
        try:
            return (conduct_own if order["own"] else conduct)(lab, Path(folder))
        except (PeerFailed, AssertionError, subprocess.TimeoutExpired) as problem:
            return {"versions": {}, "error": str(problem)}


if __name__ == "__main__":
    sys.exit(answer(in_lab))
