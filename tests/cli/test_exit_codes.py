"""Every failure a user can run into ends with its code, one error event, and a line that says what to do."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from punchbridge.identity import Identity
from tests.cli.programs import LOCAL, LOOPBACK, Run, Start, failed

SOMEBODY = str(Identity.generate())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("bogus",), "Unknown command"),
        (("dial",), "TARGET"),
        (("dial", "nonsense"), "the whole line that the listener printed"),
        (("dial", SOMEBODY), "the whole line that the listener printed"),
        (("dial", "/ip4/127.0.0.1/tcp/4001"), "/p2p/ID"),
        (("dial", f"/p2p/{SOMEBODY}"), "does not begin with an IP"),
        (("dial", f"/ip4/127.0.0.1/tcp/1/p2p/{SOMEBODY}", "--bogus"), "Unknown option"),
        (("dial", f"/ip4/127.0.0.1/tcp/1/p2p/{SOMEBODY}", "--timeout", "soon"), "float"),
        (("dial", f"/ip4/127.0.0.1/tcp/1/p2p/{SOMEBODY}", "--timeout", "-1"), "--timeout"),
        (("dial", f"/ip4/127.0.0.1/tcp/1/p2p/{SOMEBODY}", "--timeout", "nan"), "--timeout"),
        (("dial", f"/ip4/127.0.0.1/tcp/1/p2p/{SOMEBODY}", "--require-direct", "--no-p2p"), "exclude"),
        (("dial", f"/ip4/127.0.0.1/tcp/1/p2p/{SOMEBODY}", "--network", "bitcoin"), "kaspa-"),
        (("listen", "--relay", "/ip4/127.0.0.1/tcp/4001"), "/p2p/RELAY-ID"),
        (("listen", "--listen", "/ip4/127.0.0.1/udp/1"), "/udp is not spoken"),
        (("listen", "--listen", f"/ip4/127.0.0.1/tcp/1/p2p/{SOMEBODY}/p2p-circuit"), "cannot listen"),
        (("relay", "--listen", "/ip4/127.0.0.1"), "no port"),
        (("relay", "--deny", "not-a-network"), "neither a peer id nor an IP network"),
        (("relay", "--reservation-ttl", "1"), "at least 60"),
        (("relay", "--stats-interval", "0"), "--stats-interval"),
        (("expose", "localhost", *LOCAL), "HOST:PORT"),
        (("identify", "/ip4/127.0.0.1/tcp/4001"), "/p2p/ID"),
        (("ping", f"/ip4/127.0.0.1/tcp/1/p2p/{SOMEBODY}", "--timeout", "0"), "--timeout"),
        (("ping", f"/ip4/127.0.0.1/tcp/1/p2p/{SOMEBODY}", "--timeout", "nan"), "--timeout"),
    ],
)
def test_usage_ends_with_2(run: Run, arguments: tuple[str, ...], word: str) -> None:
    failed(run(*arguments), 2, word)


def test_usage_error_as_json(run: Run) -> None:
    status, stdout, _ = run("dial", "--json", "nonsense")
    assert status == 2
    events = [json.loads(line) for line in stdout.splitlines()]
    assert [one["event"] for one in events] == ["error", "summary"]
    assert events[0]["code"] == "BAD_ADDRESS"
    assert events[1]["exit_code"] == 2


def test_port_in_use_ends_with_2(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        failed(run("relay", "--listen", f"/ip4/127.0.0.1/tcp/{port}"), 2, "PORT_IN_USE", str(port))
        failed(run("listen", "--listen", f"/ip4/127.0.0.1/tcp/{port}"), 2, "PORT_IN_USE", str(port))


def test_key_file_open_to_others_ends_with_5(run: Run, tmp_path: Path) -> None:
    key = tmp_path / "key"
    assert run("key", "new", "--key", str(key))[0] == 0
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    failed(run("listen", "--key", str(key), *LOCAL), 5, "BAD_KEY", "chmod 600")
    failed(run("relay", "--key", str(key), "--listen", LOOPBACK), 5, "chmod 600")


@pytest.mark.parametrize("command", ["relay", "listen", "dial", "forward", "expose", "ping", "identify"])
def test_a_key_file_that_is_named_and_missing_ends_with_5(run: Run, tmp_path: Path, command: str) -> None:
    key = tmp_path / "typo.key"
    places = {"expose": "127.0.0.1:1", "relay": "", "listen": ""}
    place = places.get(command, f"/ip4/127.0.0.1/tcp/1/p2p/{SOMEBODY}")
    failed(run(command, *filter(None, [place]), "--key", str(key)), 5, "BAD_KEY", "there is no key file", "--new-key")
    assert not key.exists()
    code, _, errors = run(command, *filter(None, [place]), PUNCHBRIDGE_KEY_FILE=str(key))
    assert code == 5, errors


def test_a_new_key_is_made_where_it_is_asked_for(start: Start, tmp_path: Path) -> None:
    key = tmp_path / "deep" / "server.key"
    first = start("listen", *LOCAL, "--key", str(key), "--new-key", "--json").event("node.started")
    assert key.stat().st_mode & 0o777 == 0o600
    again = start("listen", *LOCAL, "--key", str(key), "--json").event("node.started")
    assert again["peer_id"] == first["peer_id"]


def test_a_key_in_a_folder_where_others_write_ends_with_5(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    key = folder / "key"
    assert run("key", "new", "--key", str(key))[0] == 0
    folder.chmod(0o777)
    failed(run("listen", "--key", str(key), *LOCAL), 5, "BAD_KEY", "other users can write in the folder", "chmod go-w")
    failed(run("key", "new", "--key", str(folder / "other")), 5, "BAD_KEY", "chmod go-w")
    folder.chmod(0o1777)
    assert run("key", "show", "--key", str(key))[0] == 0


def test_key_file_with_garbage_ends_with_5(run: Run, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"no key at all")
    key.chmod(0o600)
    failed(run("key", "show", "--key", str(key)), 5, "BAD_KEY")
    failed(run("key", "new", "--key", str(key)), 5, "exists already")
    assert key.read_bytes() == b"no key at all"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file that belongs to somebody else")
def test_key_file_of_another_user_ends_with_5(run: Run, tmp_path: Path) -> None:
    key = tmp_path / "key"
    assert run("key", "new", "--key", str(key))[0] == 0
    os.chown(key, 12345, -1)
    failed(run("key", "show", "--key", str(key)), 5, "12345")


def test_nobody_listens_ends_with_3(run: Run) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        port = free.getsockname()[1]
        target = f"/ip4/127.0.0.1/tcp/{port}/p2p/{SOMEBODY}"
        failed(run("dial", target, *LOCAL), 3, "is it running")
        failed(run("ping", target, *LOCAL, "--timeout", "5"), 3, "is it running")
        failed(run("forward", target, *LOCAL, "--timeout", "5"), 3, "is it running")
        failed(
            run("listen", "--relay", target, *LOCAL, "--timeout", "2"), 3, "no reservation at relay", "is it running"
        )


def test_peer_that_never_speaks_ends_with_3(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}/p2p/{SOMEBODY}"
        failed(run("dial", target, *LOCAL, "--timeout", "2"), 3)


def test_wrong_peer_id_ends_with_5(run: Run, relay: tuple[object, str]) -> None:
    address = relay[1].rsplit("/", 1)[0]
    failed(run("identify", f"{address}/{SOMEBODY}", *LOCAL), 5, "WRONG_PEER")
    failed(run("listen", "--relay", f"{address}/{SOMEBODY}", *LOCAL), 5, "WRONG_PEER", "/p2p/ID")


def test_no_reservation_ends_with_6(run: Run, relay: tuple[object, str]) -> None:
    failed(run("dial", f"{relay[1]}/p2p-circuit/p2p/{SOMEBODY}", *LOCAL), 6, "RELAY_REFUSED", "reservation")


def test_relay_that_denies_ends_with_6(run: Run, start: Start) -> None:
    relay = start("relay", "--listen", LOOPBACK, "--lan", "--allow", str(Identity.generate()), "--json")
    address = relay.event("relay.listening")["addrs"][0]
    failed(run("listen", "--relay", address, *LOCAL), 6, "PERMISSION_DENIED")


def test_other_network_ends_with_1(run: Run, start: Start) -> None:
    listener = start("listen", *LOCAL, "--network", "kaspa-simnet")
    failed(run("dial", listener.line(), *LOCAL, "--network", "kaspa-devnet"), 1, "--network")


def test_sighup_ends_a_client_and_has_servers_read_their_lists_again(start: Start) -> None:
    relay = start("relay", "--listen", LOOPBACK, "--lan", "--json")
    address = relay.event("relay.listening")["addrs"][0]
    listener = start("listen", "--relay", address, *LOCAL, "--json")
    dialer = start("dial", listener.event("reservation.accepted")["addrs"][0], *LOCAL, "--json")
    dialer.event("handshake.completed")
    for server in (listener, relay):
        server.process.send_signal(signal.SIGHUP)
    assert dialer.stop(signal.SIGHUP)[0] == 0
    again = start("dial", listener.event("reservation.accepted")["addrs"][0], *LOCAL, "--json")
    again.event("handshake.completed")
    for program in (again, listener, relay):
        assert program.stop(signal.SIGTERM)[0] == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_drain(start: Start, number: int, code: int) -> None:
    relay = start("relay", "--listen", LOOPBACK, "--lan", "--json")
    address = relay.event("relay.listening")["addrs"][0]
    listener = start("listen", "--relay", address, *LOCAL, "--json")
    target = listener.event("reservation.accepted")["addrs"][0]
    dialer = start("dial", target, *LOCAL, "--json")
    dialer.event("handshake.completed")
    for program in (dialer, listener, relay):
        status, _, stderr = program.stop(number)
        assert status == code, stderr
        assert program.events[-1]["event"] == "summary"
        assert program.events[-1]["exit_code"] == code


def test_second_signal_ends_at_once(start: Start) -> None:
    """A drain that hangs (a stopped reader of stdout cannot be waited for) is cut by the user's second signal."""
    relay = start("relay", "--listen", LOOPBACK, "--json")
    relay.event("relay.listening")
    relay.process.send_signal(signal.SIGTERM)
    relay.process.send_signal(signal.SIGTERM)
    assert relay.ended()[0] in (0, -signal.SIGTERM)


def test_a_required_direct_path_is_awaited_through_the_next_run_of_punches(
    start: Start, relay: tuple[object, str]
) -> None:
    """The dialer has no address to offer without --lan, so each run fails; the next one begins within --timeout."""
    listener = start("listen", "--relay", relay[1], *LOCAL, "--punch-retry", "1")
    target = listener.line()
    arguments = ("--require-direct", "--timeout", "10", "--punch-retry", "1", "--json")
    dialer = start("dial", target, "--listen", LOOPBACK, *arguments)
    code, _, stderr = dialer.ended()
    assert code == 4, stderr
    failures = [event for event in dialer.events if event["event"] == "punch.failed"]
    assert len({failure["run"] for failure in failures}) >= 2, failures
    told = dialer.event("error")
    assert told["verdict"] == failures[-1]["code"] == "NO_CANDIDATES"
    assert failures[-1]["message"] in told["message"]
