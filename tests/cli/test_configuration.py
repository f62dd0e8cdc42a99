"""Programs and their configuration: a file, variables and flags make one value; a slip of the pen ends with 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from punchbridge.cli.configuration import filled
from tests.cli.programs import LOOPBACK, ROOT, Run, Start, failed

TARGET = f"{LOOPBACK}/p2p/12D3KooWFdu8gD1mzqTymB86AvMawyz5YwjFVMYEzwjpiYF9cYxe"
PAGE = ROOT / "docs" / "configuration.md"


def test_page_is_up_to_date() -> None:
    page = PAGE.read_text()
    assert filled(page) == page, "run: .venv/bin/python -m punchbridge.cli.configuration docs/configuration.md"


def test_a_file_says_where_to_listen_and_a_variable_and_a_flag_win(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text('listen = ["/ip4/127.0.0.3/tcp/0"]\nallow_private = true\n')
    relay = start("relay", "--json", "--config", str(file))
    assert "/ip4/127.0.0.3/" in relay.event("relay.listening")["addrs"][0]
    other = start("relay", "--json", PUNCHBRIDGE_CONFIG=str(file), PUNCHBRIDGE_LISTEN=LOOPBACK)
    assert "/ip4/127.0.0.1/" in other.event("relay.listening")["addrs"][0]
    third = start(
        "relay", "--json", "--config", str(file), "--listen", LOOPBACK, PUNCHBRIDGE_LISTEN="/ip4/127.0.0.2/tcp/0"
    )
    assert "/ip4/127.0.0.1/" in third.event("relay.listening")["addrs"][0]


def test_a_file_reaches_a_command_of_the_node(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "bridge.toml"
    file.write_text(f'listen = ["{LOOPBACK}"]\nallow_private = true\nannounce = ["/ip4/127.9.9.9/tcp/7"]\n')
    listener = start("listen", "--json", "--config", str(file))
    assert listener.event("node.started")["listen"][0].startswith("/ip4/127.0.0.1/")


def test_a_file_sets_what_the_node_has_flags_for(run: Run, tmp_path: Path) -> None:
    file, store = tmp_path / "node.toml", tmp_path / "peers.db"
    file.write_text(f'allow_private = true\n[node]\nduration = 0.1\npeer_store = "{store}"\n')
    code, _, _ = run("listen", "--listen", LOOPBACK, "--config", str(file))
    assert code == 0
    assert store.exists()


def test_an_announced_address_is_told_by_a_relay(start: Start) -> None:
    relay = start("relay", "--json", "--lan", "--listen", LOOPBACK, "--announce", "/dns4/relay.example/tcp/4001")
    assert relay.event("relay.listening")["addrs"][1].startswith("/dns4/relay.example/tcp/4001/p2p/")


def test_slips_end_with_2_and_name_the_nearest_right_word(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "bridge.toml"
    file.write_text("[limits.swarm]\nconnection = 5\n")
    failed(run("expose", "127.0.0.1:1", "--config", str(file)), 2, str(file), "did you mean limits.swarm.connections")
    failed(
        run("ping", f"{LOOPBACK}/p2p/x", "--set", "limits.swarm.halfopen=5"), 2, "did you mean limits.swarm.half_open"
    )
    failed(run("relay", "--config", str(tmp_path / "none")), 2, "cannot read the configuration", "No such file")
    failed(run("relay", PUNCHBRIDGE_RELAY_CIRCUIT="5"), 2, "did you mean PUNCHBRIDGE_RELAY_CIRCUITS")
    failed(run("key", "show", PUNCHBRIDGE_LISTN="5"), 2, "did you mean PUNCHBRIDGE_LISTEN")
    failed(run("relay", "--set", "relay.circuits=5"), 2, "--circuits does")


@pytest.mark.parametrize(
    "variable",
    [
        "PUNCHBRIDGE_BIND",
        "PUNCHBRIDGE_LAB_PROGRAM",
        "PUNCHBRIDGE_LIMITS_SWARM_MAILBOX",
        "PUNCHBRIDGE_RELAY_HOP_DRAIN",
        "PUNCHBRIDGE_NODE_LIMITS_PEERS",
        "PUNCHBRIDGE_REDIAL_MOST",
    ],
)
def test_variables_of_others_are_let_be(run: Run, variable: str, tmp_path: Path) -> None:
    code, _, _ = run("key", "new", "--key", str(tmp_path / "key"), **{variable: "5"})
    assert code == 0


def test_help_is_given_whatever_the_environment_says(run: Run) -> None:
    code, out, _ = run("relay", "--help", PUNCHBRIDGE_NONSENSE="1")
    assert code == 0
    assert "--config" in out
