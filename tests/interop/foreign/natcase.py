"""One AutoNAT v2 question in the NAT lab: servers on a public host, a client behind a NAT of the given behaviour.

`python -m foreign.natcase '{"server": "go", …}'` prints one JSON object. Run in a process of its own, like labcase.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any

from lab.lab import Lab

from foreign.inlab import answer
from foreign.labcase import RELAY, popen
from foreign.peer import Peer, PeerFailed

VERDICT_SECONDS = 45.0
"""go asks several times before it believes; ours waits before its first question."""
CLIENT = "/ip4/0.0.0.0/tcp/4101"
SERVERS = {"go": 3}
"""How many servers a client of this kind needs: go believes two that agree and asks each once in two minutes."""


def verdict(client: Peer, public: str) -> bool | None:
    """Whether the client believes that its public address can be reached; None while it does not know."""
    for event in reversed(client.find("autonat")):
        if "reachable" in event:  # go tells lists
            if any(public in addr for addr in event["reachable"]):
                return True
            if any(public in addr for addr in event["unreachable"]):
                return False
        elif public in event["addr"]:
            return bool(event["ok"])
    return None


def conduct(lab: Lab, order: dict[str, Any]) -> dict[str, Any]:
    """The client connects to the servers and finds out."""
    port = int(RELAY.rpartition("/")[2])
    listen = [f"{RELAY.rpartition('/')[0]}/{port + i}" for i in range(SERVERS.get(order["client"], 1))]
    servers = [Peer(order["server"], "-listen", one, "-autonat", popen=partial(popen, lab, "relay")) for one in listen]
    flags = ("-listen", CLIENT, "-autonat", "-observers", "1")
    client = Peer(order["client"], *flags, popen=partial(popen, lab, "a"))
    public = str(lab.hosts["a"].public)
    found: dict[str, Any] = {"versions": {one.kind: one.version for one in (*servers, client)}, "public": public}
    began = time.monotonic()
    try:
        for server in servers:
            client.ask("dial", addr=server.addr)
        while (said := verdict(client, public)) is None and time.monotonic() - began < VERDICT_SECONDS:
            time.sleep(0.1)
        found |= {"reachable": said, "seconds": round(time.monotonic() - began, 1)}
    except PeerFailed as problem:
        found["error"] = str(problem)
    found["told"] = [{key: value for key, value in one.items() if key != "at"} for one in client.find("autonat")][-3:]
    return found


def in_lab(order: dict[str, Any]) -> dict[str, Any]:
    with Lab(order["nat"], "home") as lab:
        return conduct(lab, order)


if __name__ == "__main__":
    sys.exit(answer(in_lab))
