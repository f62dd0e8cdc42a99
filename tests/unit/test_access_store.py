"""The access file on disk: several editors at once, what is refused, and what a crash may leave behind."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from punchbridge.access.contact import (
    Contact,
    contact_path,
    decode_contact,
    encode_contact,
    read_contact,
    write_contact,
)
from punchbridge.access.invitations import Outcome
from punchbridge.access.lists import Who, parse_who
from punchbridge.access.records import Records
from punchbridge.access.secret import SECRET_SIZE, Secret
from punchbridge.access.store import AccessFile, access_path
from punchbridge.access.ticket import parse_ticket
from punchbridge.addresses import parse
from punchbridge.config.access import AccessLimits
from punchbridge.errors import AccessFileError, ConfigError
from punchbridge.identity import Identity, PeerId

LIMITS = AccessLimits()
ALICE, BOB = Identity.generate().peer_id, Identity.generate().peer_id
SECRET = Secret(bytes(SECRET_SIZE))


@pytest.fixture
def file(tmp_path: Path) -> AccessFile:
    return AccessFile(tmp_path / "state" / "key.access", LIMITS)


def allow(file: AccessFile, who: Who, label: str = "") -> None:
    file.edit(lambda records: (None, records.allowing(who, label, LIMITS)))


def test_an_edit_is_there_for_everybody_and_private(file: AccessFile) -> None:
    assert file.read() == Records()
    assert not file.path.parent.exists()
    old = os.umask(0)
    try:
        allow(file, ALICE, "alice")
    finally:
        os.umask(old)
    assert AccessFile(file.path, LIMITS).read().allow.labels == {ALICE: {"alice"}}
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    assert [one.name for one in file.path.parent.iterdir()] == ["key.access"]
    assert access_path(Path("/a/relay-key")) == Path("/a/relay-key.access")


def test_an_edit_that_changes_nothing_or_fails_writes_nothing(file: AccessFile) -> None:
    allow(file, ALICE)
    before = file.path.stat()
    allow(file, ALICE)

    def fail(records: Records) -> tuple[None, Records]:
        raise ConfigError("no")

    with pytest.raises(ConfigError, match=r"^no$"):
        file.edit(fail)
    assert file.path.stat().st_ino == before.st_ino
    assert file.path.stat().st_mtime_ns == before.st_mtime_ns
    allow(file, BOB)  # the lock was given back
    assert file.read().allow.peers == {ALICE, BOB}


EDITOR = """
import sys
from pathlib import Path
from punchbridge.access.lists import Who, parse_who
from punchbridge.access.store import AccessFile
from punchbridge.config.access import AccessLimits

limits = AccessLimits(lock=60.0)
file, number = AccessFile(Path(sys.argv[1]), limits), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for edit in range(25):
    who = parse_who(f"10.{number}.0.{edit}")
    file.edit(lambda records: (None, records.allowing(who, str(edit), limits)))
    if edit % 5 == 4:
        file.edit(lambda records: (None, records.denying(who, "", limits)))
"""


def test_several_programs_that_edit_at_once_lose_nothing(file: AccessFile) -> None:
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", EDITOR, str(file.path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    seen = [0]
    ended = threading.Event()

    def watch() -> None:  # every state that a reader meets is a whole one
        while not ended.is_set():
            records = file.read()
            seen.append(len(records.allowed) + len(records.denied))

    for program in programs:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
    watcher = threading.Thread(target=watch)
    watcher.start()
    for program in programs:
        assert program.stdin is not None
        program.stdin.write("go\n")
        program.stdin.flush()
    try:
        for program in programs:
            assert program.communicate()[1] is None
            assert program.returncode == 0
    finally:
        ended.set()
        watcher.join()
    records = file.read()
    denied = {f"10.{number}.0.{edit}/32" for number in range(4) for edit in range(4, 25, 5)}
    assert {str(one.who) for one in records.denied} == denied
    everybody = {f"10.{number}.0.{edit}/32" for number in range(4) for edit in range(25)}
    assert {str(one.who) for one in records.allowed} == everybody - denied
    assert seen == sorted(seen)
    assert [one.name for one in file.path.parent.iterdir()] == ["key.access"]


def test_threads_exclude_each_other_too(file: AccessFile) -> None:
    def edit(number: int) -> None:
        for at in range(10):
            allow(file, parse_who(f"10.{number}.0.{at}"))

    threads = [threading.Thread(target=edit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(file.read().allowed) == 40


def test_a_use_is_given_once_however_many_ask_at_once(file: AccessFile) -> None:
    assert file.invite(SECRET, now=1.5, expires=None, uses=3, label="three") == file.read().invitations[0]
    peers = [Identity.generate().peer_id for _ in range(8)]
    answers: list[Outcome] = []
    gate = threading.Barrier(len(peers))

    def ask(peer: PeerId) -> None:
        gate.wait()
        answers.append(file.redeem(SECRET, peer, 2))

    threads = [threading.Thread(target=ask, args=(peer,)) for peer in peers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [Outcome.GRANTED] * 3 + [Outcome.USED_UP] * 5
    assert len(file.read().allow.peers) == 3


def test_a_secret_that_lets_nobody_in_writes_nothing(file: AccessFile) -> None:
    assert file.redeem(SECRET, ALICE, 1) is Outcome.UNKNOWN
    assert not file.path.exists()
    file.invite(SECRET, now=1, expires=9)
    assert file.redeem(SECRET, ALICE, 2) is Outcome.GRANTED
    before = file.path.stat()
    with file.path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # so that waiting for the lock would be seen
        assert file.redeem(SECRET, ALICE, 3) is Outcome.GRANTED
        assert file.redeem(SECRET, BOB, 3) is Outcome.USED_UP
        assert file.redeem(Secret(b"x" * SECRET_SIZE), BOB, 3) is Outcome.UNKNOWN
    assert file.path.stat().st_mtime_ns == before.st_mtime_ns


def test_whoever_holds_the_lock_too_long_is_told_of(file: AccessFile) -> None:
    allow(file, ALICE)
    impatient = AccessFile(file.path, AccessLimits(lock=0.0))
    with file.path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(AccessFileError, match="another program has held it locked"):
            allow(impatient, BOB)
    assert file.read().allow.peers == {ALICE}
    allow(impatient, BOB)


def test_a_program_that_is_killed_gives_the_lock_back(file: AccessFile) -> None:
    allow(file, ALICE)
    code = f"import fcntl; f = open({str(file.path)!r}); fcntl.flock(f, 2); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "held\n"
        program.send_signal(signal.SIGKILL)
    allow(file, BOB)
    assert file.read().allow.peers == {ALICE, BOB}


def test_a_file_that_others_can_open_is_refused(file: AccessFile) -> None:
    allow(file, ALICE)
    file.path.chmod(0o640)
    for call in (file.read, lambda: allow(file, BOB), lambda: file.redeem(SECRET, BOB, 1)):
        with pytest.raises(AccessFileError, match=r"open to other users \(mode 0640\); run: chmod 600 .*key.access"):
            call()
    file.path.chmod(0o600)
    assert file.read().allow.peers == {ALICE}


def test_a_folder_that_others_can_write_is_refused(file: AccessFile) -> None:
    allow(file, ALICE)
    file.path.parent.chmod(0o777)
    for call in (file.read, lambda: allow(file, BOB)):
        with pytest.raises(AccessFileError, match=r"other users can write in the folder .*; run: chmod go-w"):
            call()
    file.path.parent.chmod(0o1777)  # as /tmp: nobody can put another file in the place of ours
    assert file.read().allow.peers == {ALICE}


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir()
    for name, words in (("pipe", "not a regular file"), ("folder", "regular file|Is a directory")):
        file = AccessFile(tmp_path / name, LIMITS)
        with pytest.raises(AccessFileError, match=words):
            file.read()
        with pytest.raises(AccessFileError, match=words):
            allow(file, ALICE)
    with pytest.raises(AccessFileError, match=r"cannot read the access file .*: Not a directory; check its owner"):
        AccessFile(Path(sys.executable) / "below", LIMITS).read()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "list")
    allow(AccessFile(tmp_path / "link", LIMITS), ALICE)
    assert (tmp_path / "link").is_symlink()
    assert AccessFile(tmp_path / "real" / "list", LIMITS).read().allow.peers == {ALICE}


def test_a_malformed_file_stays_as_it_is(file: AccessFile) -> None:
    allow(file, ALICE)
    file.path.write_text("{")
    with pytest.raises(AccessFileError, match="not JSON"):
        allow(file, BOB)
    assert file.path.read_text() == "{"


def test_a_file_that_would_be_too_large_is_not_written(file: AccessFile) -> None:
    allow(file, ALICE)
    small = AccessFile(file.path, AccessLimits(file=file.path.stat().st_size + 10))
    with pytest.raises(AccessFileError, match=r"it would have more than .* bytes"):
        allow(small, BOB)
    assert file.read().allow.peers == {ALICE}


def test_a_full_disk_leaves_what_was_there(file: AccessFile) -> None:
    allow(file, ALICE)
    code = (
        "import resource, signal, sys; from pathlib import Path; from punchbridge.access.store import AccessFile;"
        "from punchbridge.access.lists import parse_who; from punchbridge.config.access import AccessLimits;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60));"
        "AccessFile(Path(sys.argv[1]), AccessLimits()).edit("
        "lambda records: (None, records.allowing(parse_who('10.0.0.1'), '', AccessLimits())))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file.path)], text=True, capture_output=True, check=False)
    assert "cannot write the access file" in done.stderr
    assert "File too large" in done.stderr
    assert file.read().allow.peers == {ALICE}
    assert [one.name for one in file.path.parent.iterdir()] == ["key.access"]


# --- the contact --------------------------------------------------------------------------------------------


def test_the_contact_of_a_server(tmp_path: Path) -> None:
    relay = parse(f"/dns4/relay.example/tcp/4001/p2p/{BOB}")
    contact = Contact(ALICE, (relay,), (parse("/ip4/203.0.113.5/tcp/5"),))
    path = contact_path(tmp_path / "state" / "key.access")
    assert read_contact(path) is None
    write_contact(path, contact)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_contact(path) == contact
    ticket = contact.ticket(SECRET)
    assert parse_ticket(ticket.encode()) == ticket
    assert (ticket.peer, ticket.relays, ticket.addrs) == (ALICE, (relay,), contact.addrs)


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{", b"[" * 50_000, b"\xff", b"x" * 70_000, b'{"format": "punchbridge contact", "version": 2}'],
)
def test_a_malformed_contact(text: bytes) -> None:
    with pytest.raises(AccessFileError, match=r"^name cannot be used: .*; start punchbridge expose again"):
        decode_contact(text, "name")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"peer": "', '"peer": "x'),
        ("/ip4", "/ip7"),
        ('"addrs": [', '"addrs": [7,'),
        ('"relays": [', '"relays": 7, "r": ['),
    ],
)
def test_a_malformed_field_of_a_contact(old: str, new: str) -> None:
    text = encode_contact(Contact(ALICE, (), (parse("/ip4/203.0.113.5/tcp/5"),))).decode()
    assert decode_contact(text.encode(), "name").peer == ALICE
    assert old in text
    with pytest.raises(AccessFileError, match="start punchbridge expose again"):
        decode_contact(text.replace(old, new).encode(), "name")
