"""TCP and QUIC in the real programs on loopback: both, either one, and what is said where one is not there."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import punchbridge
from tests.cli.calls import shouted
from tests.cli.programs import LOCAL, LOOPBACK, Program, Run, Start, failed
from tests.support.built import NOT_BUILT

needs_quic = pytest.mark.skipif(find_spec("punchbridge_quic") is None, reason=NOT_BUILT)
UDP = "/ip4/127.0.0.1/udp/0/quic-v1"
TCP_ALONE = ("--listen", LOOPBACK, "--lan")
QUIC_ALONE = ("--listen", UDP, "--lan")
BOTH = (*TCP_ALONE, "--listen", UDP)


def transports(program: Program) -> set[str]:
    """What carried the connections that a program has opened."""
    return {one["transport"] for one in program.events if one["event"] == "connection.opened"}


def relayed(start: Start, server: str, relay_flags: tuple[str, ...], flags: tuple[str, ...]) -> list[Program]:
    """One call through relay, expose and forward, which stay on the relay; the three programs."""
    relay = start("relay", *relay_flags, "--json")
    address = relay.event("relay.listening")["addrs"][0]
    exposed = start("expose", server, "--relay", address, *flags, "--no-p2p", "--open", "--json")
    target = exposed.event("reservation.accepted")["addrs"][0]
    forwarded = start("forward", target, *flags, "--no-p2p", "--json")
    place = forwarded.event("local.listening")["bind"]
    assert shouted(place, b"over the relay") == b"OVER THE RELAY"
    assert shouted(place, b"x" * 60_000) == b"X" * 60_000
    return [relay, exposed, forwarded]


@needs_quic
def test_all_programs_over_quic_alone(start: Start, server: str) -> None:
    programs = relayed(start, server, QUIC_ALONE, QUIC_ALONE)
    assert [transports(one) for one in programs] == [{"quic"}, {"quic", "circuit"}, {"quic", "circuit"}]
    assert {one.stop()[0] for one in reversed(programs)} == {0}


@pytest.mark.parametrize("flags", [("--listen", LOOPBACK, "--lan", "--no-quic"), TCP_ALONE], ids=["no-quic", "tcp"])
def test_all_programs_over_tcp_alone(start: Start, server: str, flags: tuple[str, ...]) -> None:
    programs = relayed(start, server, flags, flags)
    assert [transports(one) for one in programs] == [{"tcp"}, {"tcp", "circuit"}, {"tcp", "circuit"}]
    for one in programs:
        assert all("/udp/" not in addr for addr in one.event("node.started")["listen"])
    assert {one.stop()[0] for one in reversed(programs)} == {0}


@needs_quic
def test_a_relay_joins_one_end_over_tcp_and_another_one_over_quic(start: Start, server: str) -> None:
    relay = start("relay", *BOTH, "--json")
    tcp, quic = relay.event("relay.listening")["addrs"]
    assert ("/tcp/" in tcp, "/quic-v1/" in quic) == (True, True)
    exposed = start("expose", server, "--relay", tcp, *TCP_ALONE, "--no-p2p", "--open", "--json")
    circuits = exposed.event("reservation.accepted")["addrs"]
    assert [addr.partition("/p2p-circuit")[0] for addr in circuits] == [tcp, quic]
    forwarded = start("forward", circuits[1], *QUIC_ALONE, "--no-p2p", "--json")
    assert shouted(forwarded.event("local.listening")["bind"], b"both") == b"BOTH"
    assert transports(exposed) == {"tcp", "circuit"}
    assert transports(forwarded) == {"quic", "circuit"}


@needs_quic
def test_a_direct_call_over_quic(start: Start, server: str) -> None:
    exposed = start("expose", server, *BOTH, "--open", "--json")
    started = exposed.event("node.started")
    tcp, udp = started["listen"]
    assert re.findall(r"\d+", tcp)[-1] == re.findall(r"\d+", udp)[-2]
    forwarded = start("forward", f"{udp}/p2p/{started['peer_id']}", *BOTH, "--json")
    assert shouted(forwarded.event("local.listening")["bind"], b"direct") == b"DIRECT"
    assert transports(forwarded) == {"quic"}
    pinged = start("ping", f"{udp}/p2p/{started['peer_id']}", *BOTH, "--count", "2", "--json")
    assert pinged.event("ping.result")["transport"] == "quic"
    assert pinged.ended()[0] == 0
    known = start("identify", f"{udp}/p2p/{started['peer_id']}", *BOTH, "--json").event("identify.result")
    assert (known["transport"], known["listen"]) == ("quic", [tcp, udp])
    assert known["observed"].endswith("/quic-v1")


@needs_quic
def test_the_kaspa_node_over_quic(start: Start) -> None:
    listener = start("listen", *BOTH, "--json")
    started = listener.event("node.started")
    dialer = start("dial", f"{started['listen'][1]}/p2p/{started['peer_id']}", *BOTH, "--json")
    assert dialer.event("handshake.completed")["path"] == "direct"
    assert transports(dialer) == {"quic"}


@needs_quic
def test_a_ticket_names_tcp_first_and_both_lead_in(start: Start, server: str) -> None:
    relay = start("relay", *BOTH, "--json")
    tcp, quic = relay.event("relay.listening")["addrs"]
    exposed = start("expose", server, "--relay", quic, "--relay", tcp, *BOTH)
    ticket = exposed.line()
    assert len(ticket) <= 160
    parsed = punchbridge_ticket(ticket)
    assert [str(one) for one in parsed.relays] == [tcp, quic]
    assert len(parsed.addrs) == 1
    assert "/tcp/" in str(parsed.addrs[0])
    forwarded = start("forward", ticket, *QUIC_ALONE)
    assert shouted(forwarded.line(), b"let in") == b"LET IN"


def punchbridge_ticket(text: str) -> Any:
    from punchbridge.access.ticket import parse_ticket

    return parse_ticket(text)


@needs_quic
def test_by_default_both_listen_at_one_number(start: Start) -> None:
    listen = start("listen", "--lan", "--json").event("node.started")["listen"]
    tcp = [addr.rpartition("/")[2] for addr in listen if "/tcp/" in addr]
    udp = [addr.split("/")[4] for addr in listen if addr.endswith("/quic-v1")]
    assert tcp
    assert tcp == udp
    listen = start("listen", "--lan", "--json", "--no-quic", "--ephemeral").event("node.started")["listen"]
    assert listen
    assert not [addr for addr in listen if "/udp/" in addr]


def test_addresses_of_quic_where_it_is_switched_off(run: Run) -> None:
    relay = f"/ip4/127.0.0.1/udp/9/quic-v1/p2p/{punchbridge.Identity.generate()}"
    words = "BAD_ADDRESS", "switched off"
    failed(run("listen", "--listen", UDP, "--no-quic"), 2, *words)
    failed(run("listen", "--relay", relay, *LOCAL, "--no-quic"), 2, *words)
    failed(run("dial", relay, *LOCAL, "--no-quic"), 2, *words)
    failed(run("relay", "--listen", UDP, PUNCHBRIDGE_NO_QUIC="1"), 2, *words)


def test_without_the_engine_all_runs_over_tcp(start: Start, run: Run, tmp_path: Path) -> None:
    """An interpreter that cannot find it: told once, and refused by name where it was asked for."""
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text("import sys; sys.modules['punchbridge_quic'] = None\n")
    path = f"{tmp_path / 'without'}:{Path(__file__).resolve().parents[2] / 'src'}"
    listener = start("listen", "--lan", "--json", PYTHONPATH=path)
    started = listener.event("node.started")
    assert not [addr for addr in started["listen"] if "/udp/" in addr]
    told = listener.event("transport.absent")
    assert (told["transport"], "punchbridge[quic]" in told["message"]) == ("quic", True)
    relay = start("relay", "--lan", "--listen", LOOPBACK, "--json", PYTHONPATH=path)
    assert relay.event("transport.absent")["transport"] == "quic"
    failed(run("listen", "--listen", UDP, "--ephemeral", PYTHONPATH=path), 2, "BAD_ADDRESS", "punchbridge[quic]")
    assert listener.stop()[0] == 0
    assert [one["event"] for one in listener.events].count("transport.absent") == 1
