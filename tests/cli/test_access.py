"""`punchbridge invite`, `allow`, `deny`, `revoke`: the access file as its users edit it, and tickets made from it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from punchbridge.access.contact import read_contact
from punchbridge.access.invitations import Outcome
from punchbridge.access.secret import Secret
from punchbridge.access.store import AccessFile
from punchbridge.access.ticket import Ticket, parse_ticket
from punchbridge.addresses import parse
from punchbridge.cli.invite import duration
from punchbridge.config.access import AccessLimits
from punchbridge.errors import ConfigError
from punchbridge.identity import Identity, load, parse_peer_id
from tests.cli.programs import LOCAL, LOOPBACK, Program, Run, Start, failed

ALICE, BOB = str(Identity.generate()), str(Identity.generate())
RELAY = f"/ip4/203.0.113.5/tcp/4001/p2p/{Identity.generate()}"


@pytest.fixture
def file(tmp_path: Path) -> AccessFile:
    return AccessFile(tmp_path / "state" / "punchbridge" / "key.access", AccessLimits())


def detail(outcome: tuple[int, str, str]) -> dict[str, Any]:
    code, stdout, stderr = outcome
    assert code == 0, stderr
    found: dict[str, Any] = json.loads(stdout.splitlines()[-1])["detail"]
    return found


def test_allow_deny_and_revoke_a_peer(run: Run, file: AccessFile) -> None:
    code, stdout, stderr = run("allow", ALICE, "--label", "alice")
    assert (code, stdout) == (0, "")
    assert f"allowed: {ALICE}; noted in {file.path}" in stderr
    assert run("allow", "203.0.113.7/24")[0] == 0
    assert run("deny", BOB)[0] == 0
    assert run("allow", "--list")[1] == f"{ALICE} alice\n203.0.113.0/24"
    assert detail(run("deny", "--list", "--json"))["denied"] == [{"who": BOB, "label": ""}]
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert run("deny", ALICE)[0] == 0
    assert file.read().allow.peers == frozenset()
    assert {str(peer) for peer in file.read().deny.peers} == {ALICE, BOB}
    assert f"nothing is said of {ALICE} any more" in run("revoke", ALICE)[2]
    assert {str(peer) for peer in file.read().deny.peers} == {BOB}
    failed(run("revoke", ALICE), 2, "CONFIG", "neither allowed nor denied here")
    failed(run("allow", "bob"), 2, "CONFIG", "'bob' is neither a peer id nor an IP network")
    failed(run("allow"), 2, "CONFIG", "give one peer id or network, or --list")
    failed(run("deny", BOB, "--list"), 2, "CONFIG", "give one peer id or network, or --list")
    file.path.chmod(0o644)
    failed(run("allow", ALICE), 2, "BAD_ACCESS_FILE", "run: chmod 600")


def test_the_file_of_another_program(run: Run, tmp_path: Path) -> None:
    assert run("allow", ALICE, "--key", "state/relay-key")[0] == 0
    assert run("deny", BOB, "--access-file", "state/relay-key.access")[0] == 0
    assert run("deny", "10.0.0.0/8", PUNCHBRIDGE_ACCESS_FILE="state/relay-key.access")[0] == 0
    records = AccessFile(tmp_path / "state" / "relay-key.access", AccessLimits()).read()
    assert {str(peer) for peer in records.allow.peers} == {ALICE}
    assert {str(one.who) for one in records.denied} == {BOB, "10.0.0.0/8"}


def test_an_invitation_from_ticket_to_revoking(run: Run, file: AccessFile) -> None:
    failed(run("invite"), 2, "CONFIG", "nothing is known of how the server is reached", "give --relay")
    failed(run("invite", "--relay", RELAY), 5, "BAD_KEY", "there is no key file", "give --key")
    assert not file.path.exists()
    peer = run("key", "new")[1].splitlines()[0]
    code, stdout, stderr = run("invite", "--relay", RELAY, "--uses", "2", "--label", "team", "--expires", "12h")
    assert code == 0
    ticket = parse_ticket(stdout)
    assert len(stdout.strip()) <= 160
    assert "\n" not in stdout
    assert (str(ticket.peer), [str(one) for one in ticket.relays]) == (peer, [RELAY])
    assert ticket.secret is not None
    assert ticket.secret.to_bytes().hex() not in file.path.read_text()
    (made,) = file.read().invitations
    assert (made.digest, made.uses, made.label) == (ticket.secret.digest, 2, "team")
    assert made.expires == made.made + 12 * 3600
    assert f"invitation {made.name} lets 2 peers in, until 20" in stderr
    guest = Identity.generate().peer_id
    assert file.redeem(ticket.secret, guest, made.made) is Outcome.GRANTED
    code, stdout, _ = run("invite", "--list")
    assert stdout.startswith(f"{made.name} open, 1 of 2 used, until ")
    assert stdout.splitlines()[0].endswith(" UTC team")
    assert stdout.splitlines()[1].startswith(f"  {guest} since 20")
    (listed,) = detail(run("invite", "--list", "--json"))["invitations"]
    assert (listed["invitation"], listed["state"]) == (made.name, "GRANTED")
    failed(run("revoke", str(guest)), 2, "CONFIG", f"was let in by invitation {made.name}")
    assert f"invitation {made.name} is revoked" in run("revoke", made.name[:5])[2]
    assert file.redeem(ticket.secret, guest, made.made) is Outcome.REVOKED
    assert file.read().allow.peers == frozenset()
    assert run("invite", "--list")[1].startswith(f"{made.name} revoked, ")
    failed(run("revoke", made.name), 2, "CONFIG", "is revoked already")
    failed(run("revoke", "abcdef01"), 2, "CONFIG", "no invitation has the name 'abcdef01'")


def test_those_who_were_let_in_can_be_kept(run: Run, file: AccessFile) -> None:
    run("key", "new")
    made = detail(run("invite", "--relay", RELAY, "--expires", "never", "--json"))
    ticket = parse_ticket(made["ticket"])
    assert made["expires"] is None
    assert ticket.secret is not None
    guest = Identity.generate().peer_id
    assert file.redeem(ticket.secret, guest, 1) is Outcome.GRANTED
    assert run("revoke", made["invitation"], "--keep")[0] == 0
    assert file.read().allow.peers == {guest}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--expires", "soon"), "--expires 'soon' is no time; write 12h, 7d or 2w"),
        (("--expires", "0d"), "is no time"),
        (("--uses", "0"), "for 1 to 1000 peers, not 0"),
        (("--label", "x" * 65), "at most 64 characters"),
        (("--relay", "/ip4/203.0.113.5/tcp/4001"), "not a relay address"),
    ],
)
def test_a_bad_flag_makes_no_invitation(run: Run, file: AccessFile, flags: tuple[str, ...], words: str) -> None:
    run("key", "new")
    failed(run("invite", "--relay", RELAY, *flags), 2, words)
    assert file.read().invitations == ()


def test_durations() -> None:
    assert [duration(text) for text in ("90s", "30m", "12h", " 7D", "2w", "never")] == [
        90,
        1800,
        43200,
        604800,
        1209600,
        None,
    ]
    for text in ("", "7", "d", "-1d", "1y", "0s", "1000w", "9" * 20 + "s", "1 d", "٣d"):
        with pytest.raises(ConfigError, match="is no time"):
            duration(text)


def test_expose_notes_how_it_is_reached(
    start: Start, run: Run, relay: tuple[Program, str], file: AccessFile, tmp_path: Path
) -> None:
    exposed = start("expose", "127.0.0.1:9", "--relay", relay[1], *LOCAL)
    printed, target = exposed.line(), exposed.line(1)
    ticket = parse_ticket(run("invite")[1])
    assert parse_ticket(printed).targets == ticket.targets
    assert parse_ticket(printed).secret != ticket.secret
    peer = load(file.path.with_name("key")).peer_id
    assert ticket.peer == peer
    assert parse(target) in ticket.targets
    path = file.path.with_name("key.access.contact")
    assert path.stat().st_mode & 0o777 == 0o600
    noted = read_contact(path)
    assert noted is not None
    assert all(str(one).startswith("/ip4/127.0.0.1/tcp/") for one in noted.addrs)  # private ones: --lan was given
    assert len(noted.addrs) == 1
    # --relay wins; and what another key's program has noted is not believed.
    assert [str(one) for one in parse_ticket(run("invite", "--relay", RELAY)[1]).relays] == [RELAY]
    os.rename(file.path.with_name("key"), tmp_path / "old")
    run("key", "new")
    failed(run("invite"), 2, "nothing is known of how the server is reached")
    assert exposed.stop()[0] == 0


@pytest.mark.parametrize("command", [("forward", "-", "--bind", "127.0.0.1:0"), ("ping", "--lan", "-"), ("dial", "-")])
def test_a_target_is_read_from_stdin(command: tuple[str, ...], environment: dict[str, str], tmp_path: Path) -> None:
    """A ticket among the arguments could be read by every user of the machine."""
    done = subprocess.run(
        [sys.executable, "-m", "punchbridge", *command],
        input="from-stdin\n",
        text=True,
        capture_output=True,
        env=environment,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    failed((done.returncode, done.stdout, done.stderr), 2, "BAD_ADDRESS", "'from-stdin' is no address")


def test_sighup_tells_each_time_what_was_read(start: Start, tmp_path: Path) -> None:
    members = tmp_path / "members"
    members.write_text(f"{ALICE}\n")
    relay = start("relay", "--listen", LOOPBACK, "--lan", "--allow-file", str(members))
    relay.wait_for(lambda: "the relay accepts reservations" in relay.stderr, "start")

    def told(line: str, times: int) -> None:
        """The line has been printed so often."""
        relay.wait_for(lambda: sum(line in one for one in relay.stderr) >= times, f"{line!r}, {times} times")

    for times in (1, 2):
        relay.process.send_signal(signal.SIGHUP)
        told("read the lists again: 1 allowed, 0 denied", times)
    members.write_text(f"{ALICE}\nalice\n")
    told("line 2: 'alice' is neither", 1)
    for times in (1, 2):
        relay.process.send_signal(signal.SIGHUP)
        told("read the lists again; a file of them cannot be read, and what was in force stays so", times)
        told("line 2: 'alice' is neither", 1 + times)
    members.write_text(f"{ALICE}\n")  # the same as before: nothing changes, and yet it is news that it can be read
    told("read the lists again: 1 allowed, 0 denied", 3)
    assert not any("who may call has changed" in one for one in relay.stderr)
    assert relay.stop()[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("allow", "TICKET"),
        ("revoke", "TICKET"),
        ("expose", "TICKET"),
        ("forward", "TICKET", "TICKET"),
        ("forward", "TICKET", "--bind", "TICKET"),
        ("forward", "TICKET", "--json", "--bind", "TICKET"),
        ("ping", "TICKET", "--count", "TICKET"),
        ("listen", "--relay", "TICKET"),
        ("relay", "--allow-file", "list"),
        ("TICKET",),
    ],
)
def test_no_error_repeats_a_ticket_that_stands_in_the_wrong_place(
    run: Run, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    ticket = Ticket(parse_peer_id(ALICE), Secret(bytes(range(16))), (parse(RELAY),)).encode()
    (tmp_path / "list").write_text(f"{ticket}\n")
    code, stdout, stderr = run(*(ticket if one == "TICKET" else one for one in arguments))
    assert code == 2, stderr
    assert ticket[20:40] not in stdout + stderr
    assert ticket[60:80] not in stdout + stderr


@pytest.mark.parametrize("json_", [True, False])
def test_an_open_server_says_so_before_anybody_can_call(start: Start, json_: bool) -> None:
    """Without a relay that accepts it, too."""
    nowhere = f"/ip4/127.0.0.1/tcp/1/p2p/{ALICE}"
    server = start("expose", "127.0.0.1:1", "--open", "--relay", nowhere, *LOCAL, *(("--json",) if json_ else ()))
    if json_:
        server.event("access.open", protocol="")
    else:
        server.wait_for(lambda: "OPEN: anybody who knows an address may call" in server.stderr, "warning")


def test_a_second_program_at_once_is_told_that_it_is_another_peer(start: Start, run: Run, tmp_path: Path) -> None:
    """And one after the other are the same: as README shows it."""
    server = start("expose", "127.0.0.1:1", *LOCAL)
    ticket = server.line()
    assert run("ping", ticket, "--count", "1", *LOCAL)[0] == 0
    forward = start("forward", ticket, "--bind", f"unix:{tmp_path}/s", "--json", *LOCAL)
    forward.event("local.listening", bind=f"unix:{tmp_path}/s")
    failed(run("ping", ticket, "--count", "1", *LOCAL), 7, "as many peers as it is for", "two programs at once are two")
    assert forward.stop()[0] == 0
    assert run("ping", ticket, "--count", "1", *LOCAL)[0] == 0


def test_a_closed_listener_tells_a_dialer_at_once(start: Start, run: Run) -> None:
    """And not after the ten minutes that the dialer has."""
    listener = start("listen", "--key", "listener", "--new-key", "--allow", ALICE, *LOCAL)
    failed(run("dial", listener.line(), "--timeout", "600", *LOCAL), 7, "NOT_ALLOWED", "does not let this peer in")


DENIED = ("NOT_ALLOWED", "does not let this peer in")


@pytest.mark.parametrize("command", ["dial", "forward", "identify", "ping"])
@pytest.mark.parametrize("over", ["directly", "over a relay"])
def test_who_is_denied_at_a_server_is_told_so(
    start: Start, run: Run, relay: tuple[Program, str], command: str, over: str
) -> None:
    """What the peer asks for may be on its way when it is told."""
    me = run("key", "new", "--key", "mine")[1].splitlines()[0]
    server = start("expose", "127.0.0.1:1", "--open", "--deny", me, "--relay", relay[1], "--json", *LOCAL)
    target = server.event("reservation.accepted")["addrs"][0]
    if over == "directly":
        target = f"{server.event('node.started')['listen'][0]}/p2p/{target.rsplit('/', 1)[1]}"
    failed(run(command, target, "--key", "mine", *LOCAL), 7, *DENIED)


def test_who_is_denied_at_a_relay_is_told_so(start: Start, run: Run) -> None:
    me = run("key", "new", "--key", "mine")[1].splitlines()[0]
    relay = start("relay", "--listen", LOOPBACK, "--lan", "--deny", me, "--json")
    addr = relay.event("relay.listening")["addrs"][0]
    failed(run("ping", f"{addr}/p2p-circuit/p2p/{ALICE}", "--key", "mine", *LOCAL), 7, *DENIED)
    failed(run("listen", "--relay", addr, "--key", "mine", "--timeout", "3", *LOCAL), 7, *DENIED)


@pytest.mark.parametrize("command", ["dial", "forward", "identify", "ping"])
def test_a_target_need_not_stand_among_the_arguments(run: Run, command: str) -> None:
    failed(run(command, PUNCHBRIDGE_TARGET="from-the-environment"), 2, "BAD_ADDRESS", "'from-the-environment'")
