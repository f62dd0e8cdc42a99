"""One punch in the NAT lab, in a process of its own because that process moves into private namespaces.

`python -m foreign.labcase '{"relay": "rust", …}'` prints one JSON object. Direct is what the kernel's sockets and
packet counters show, and what outlives the relay; what the peers say is only reported.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any

from lab import proof
from lab.lab import Lab

from foreign.base import until
from foreign.inlab import answer
from foreign.peer import Event, Peer, PeerFailed

DELAY = {"relay": 15.0, "a": 10.0, "b": 20.0}
DIRECT_SECONDS = 40.0
"""go waits up to 10 s for its unilateral dial before each of three attempts."""
SIZE = 1_000_000
DCUTR = "/libp2p/dcutr"
RELAY, LISTENER, DIALER = "/ip4/11.0.0.10/tcp/4001", "/ip4/0.0.0.0/tcp/4101", "/ip4/0.0.0.0/tcp/4102"


def _peers(lab: Lab, order: dict[str, Any]) -> tuple[Peer, Peer, Peer]:
    def start(host: str, kind: str, listen: str, *flags: str) -> Peer:
        return Peer(kind, "-listen", listen, *flags, popen=partial(popen, lab, host))

    # One observer has to do for go: the lab has one relay. It asks for four otherwise.
    punching = ("-punch", "-observers", "1")
    return (
        start("relay", order["relay"], RELAY, "-relay"),
        start("a", order["listener"], LISTENER, *punching),
        start("b", order["dialer"], DIALER, *punching),
    )


def popen(lab: Lab, host: str, argv: list[str], **options: Any) -> Any:
    return lab.popen(host, argv, **options)


def _wait_direct(lab: Lab, one: Peer, other: Peer, seconds: float) -> bool:
    """Until the kernel shows a direct socket pair and `one` uses a direct connection for what follows."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        conns = one.ask("conns", peer=other.id)["conns"]
        if any(not conn["relay"] for conn in conns) and proof.direct_pairs(lab):
            return True
        time.sleep(0.1)
    return False


def _echo(lab: Lab, one: Peer, other: Peer) -> dict[str, Any]:
    before = proof.traffic(lab)
    got = one.ask("echo", peer=other.id, size=SIZE)
    after = proof.traffic(lab)
    return {"same": got["same"], **{f"{path}_bytes": after[path] - before[path] for path in before}}


def _told(peer: Peer) -> list[Event]:
    return [{key: value for key, value in one.items() if key != "at"} for one in peer.find("punch")]


def conduct(lab: Lab, order: dict[str, Any]) -> dict[str, Any]:
    """Reserve, dial through the relay, wait for the direct connection, prove it."""
    relay, listener, dialer = _peers(lab, order)
    ours, other = (listener, dialer) if listener.kind == "ours" else (dialer, listener)
    found: dict[str, Any] = {"versions": {one.kind: one.version for one in (relay, listener, dialer)}}
    try:
        listener.ask("reserve", addr=relay.addr)
        if listener.kind == "go":  # it punches only with whom it meets after it knows a public address of its own
            until(lambda: DCUTR in relay.ask("identify", peer=listener.id)["protocols"], "go never offered DCUtR", 20)
        began = time.monotonic()
        dialer.ask("dial", addr=f"{relay.addr}/p2p-circuit/p2p/{listener.id}")
        found["direct"] = _wait_direct(lab, ours, other, order.get("seconds", DIRECT_SECONDS))
        found["seconds"] = round(time.monotonic() - began, 2)
        pairs = proof.established_pairs(lab) if found["direct"] else []
        found["echo"] = _echo(lab, ours, other)
        found["sockets"] = [pair.as_json() for pair in proof.direct_pairs(lab, since=pairs)]
        if found["direct"]:
            relay.process.kill()
            relay.process.wait()
            found["after_kill"] = _echo(lab, ours, other)
    except (PeerFailed, AssertionError) as problem:
        found["error"] = str(problem)
    found["ours"], found["theirs"] = _told(ours), _told(other)
    return found


def in_lab(order: dict[str, Any]) -> dict[str, Any]:
    with Lab(order["listener_nat"], order["dialer_nat"], delay=DELAY) as lab:
        return conduct(lab, order)


if __name__ == "__main__":
    sys.exit(answer(in_lab))
