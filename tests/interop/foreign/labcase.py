"""One punch in the NAT lab, in a process of its own because that process moves into private namespaces.

`python -m foreign.labcase '{"relay": "rust", …}'` prints one JSON object. Direct is what the kernel's sockets and
packet counters show, and what outlives the relay; what the peers say is only reported.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from lab import proof
from lab.lab import Lab

from foreign.base import until
from foreign.inlab import answer
from foreign.peer import QUIC, TCP, Event, Peer, PeerFailed

DELAY = {"relay": 15.0, "a": 10.0, "b": 20.0}
DIRECT_SECONDS = 40.0
"""go waits up to 10 s for its unilateral dial before each of three attempts."""
SIZE = 1_000_000
DCUTR = "/libp2p/dcutr"
PLACES = {"relay": ("11.0.0.10", 4001), "a": ("0.0.0.0", 4101), "b": ("0.0.0.0", 4102)}
FORMS = {TCP: "/ip4/{}/tcp/{}", QUIC: "/ip4/{}/udp/{}/quic-v1"}
PROTOCOLS = {TCP: "tcp", QUIC: "udp"}
"""What the lab's proof calls each transport."""
RELAY = FORMS[TCP].format(*PLACES["relay"])


def _peers(lab: Lab, order: dict[str, Any]) -> tuple[Peer, Peer, Peer]:
    def start(host: str, kind: str, *flags: str) -> Peer:
        listen = FORMS[order["transport"]].format(*PLACES[host])
        return Peer(kind, "-listen", listen, *flags, popen=partial(popen, lab, host))

    # One observer has to do for go: the lab has one relay. It asks for four otherwise.
    punching = ("-punch", "-observers", "1")
    return (
        start("relay", order["relay"], "-relay"),
        start("a", order["listener"], *punching),
        start("b", order["dialer"], *punching),
    )


def popen(lab: Lab, host: str, argv: list[str], **options: Any) -> Any:
    return lab.popen(host, argv, **options)


def _direct(lab: Lab, transport: str, since: Sequence[proof.Pair] = ()) -> list[proof.Pair]:
    """What the kernel shows of this transport."""
    return [pair for pair in proof.direct_pairs(lab, since) if pair.protocol == PROTOCOLS[transport]]


def _wait_direct(lab: Lab, one: Peer, other: Peer, transport: str, seconds: float) -> bool:
    """Until the kernel shows a direct connection and `one` uses a direct connection for what follows."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        conns = one.ask("conns", peer=other.id)["conns"]
        if any(not conn["relay"] for conn in conns) and _direct(lab, transport):
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
        transport = order["transport"]
        found["direct"] = _wait_direct(lab, ours, other, transport, order.get("seconds", DIRECT_SECONDS))
        found["seconds"] = round(time.monotonic() - began, 2)
        pairs = proof.established_pairs(lab) if found["direct"] else []
        found["echo"] = _echo(lab, ours, other)
        found["sockets"] = [pair.as_json() for pair in _direct(lab, transport, pairs)]
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
