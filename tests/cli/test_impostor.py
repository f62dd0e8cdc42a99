"""A relay that answers under another id than its address names: nothing is asked of it, by any command."""

from __future__ import annotations

import socket

from punchbridge.identity import Identity
from tests.cli.programs import LOCAL, Program, Run, Start, failed

SOMEBODY = str(Identity.generate())


def test_no_circuit_is_asked_for(start: Start, run: Run, relay: tuple[Program, str]) -> None:
    """The server behind it is there, and would answer: who holds the relay's address must not be asked all the same."""
    program, addr = relay
    server = start("expose", "127.0.0.1:1", "--open", "--relay", addr, "--json", *LOCAL)
    peer = server.event("reservation.accepted")["addrs"][0].rsplit("/", 1)[1]
    posing = f"{addr.rsplit('/', 1)[0]}/{SOMEBODY}/p2p-circuit/p2p/{peer}"
    failed(run("ping", posing, "--count", "1", "--timeout", "10", *LOCAL), 5, "WRONG_PEER")
    failed(run("dial", posing, "--timeout", "10", *LOCAL), 5, "WRONG_PEER")
    assert run("ping", f"{addr}/p2p-circuit/p2p/{peer}", "--count", "1", *LOCAL)[0] == 0
    opened = [one for one in program.events if one["event"] == "circuit.opened"]
    assert len(opened) == 1  # that of the right address


def test_a_relay_that_comes_back_as_another_keeps_nothing(start: Start) -> None:
    """No reservation, so no circuit and no punch over it: a server that was reached there says so, and names none."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"/ip4/127.0.0.1/tcp/{free.getsockname()[1]}"
    first = start("relay", "--listen", listen, "--lan", "--json", "--key", "one", "--new-key")
    addr = first.event("relay.listening")["addrs"][0]
    server = start("expose", "127.0.0.1:1", "--open", "--relay", addr, "--json", *LOCAL)
    server.event("reservation.accepted")
    first.kill()
    server.event("reservation.lost")
    second = start("relay", "--listen", listen, "--lan", "--json", "--key", "two", "--new-key")
    second.event("relay.listening")
    server.event("reservation.lost", code="WRONG_PEER")
    assert sum(one["event"] == "reservation.accepted" for one in server.events) == 1
    assert not any(one["event"] == "reservation.accepted" for one in second.events)
