"""The lists of a running program: together at the start, followed afterwards, and what a bad edit does."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from punchbridge.access.policy import NOBODY, Access, Decision
from punchbridge.access.records import Records
from punchbridge.access.sources import Sources, read_list
from punchbridge.access.store import AccessFile
from punchbridge.config.access import AccessLimits
from punchbridge.errors import AccessFileError, ConfigError
from punchbridge.identity import Identity, PeerId

LIMITS = AccessLimits()
PEERS = [Identity.generate().peer_id for _ in range(5)]
A, B, C, D, E = PEERS


def allowed(sources: Sources) -> set[PeerId]:
    return {peer for peer in PEERS if sources.access.decide(peer, None) is Decision.ALLOWED}


def write(path: Path, *peers: PeerId, old: bool = False) -> None:
    """Puts a list there. old: as if it had been written an hour ago, so that only its status tells of changes."""
    path.write_text("".join(f"{peer}\n" for peer in peers))
    path.chmod(0o644)
    if old:
        os.utime(path, (time.time() - 3600,) * 2)


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path, AccessFile]:
    write(tmp_path / "allow", A)
    write(tmp_path / "deny", B)
    file = AccessFile(tmp_path / "private" / "key.access", LIMITS)
    return tmp_path / "allow", tmp_path / "deny", file


def test_all_of_them_are_followed(paths: tuple[Path, Path, AccessFile]) -> None:
    allow, deny, file = paths
    given = Access.of([B, E])
    sources = Sources(LIMITS, given=given, allow_files=[allow], deny_files=[deny], file=file)
    assert allowed(sources) == {A, E}
    first = sources.access
    assert sources.poll() == ()
    assert sources.access is first
    file.edit(lambda records: (None, records.allowing(C, "c", LIMITS)))
    write(allow, D)
    write(deny)
    assert sources.poll() == ()
    assert allowed(sources) == {B, C, D, E}
    file.edit(lambda records: (None, records.denying(C, "", LIMITS)))
    assert sources.poll() == ()
    assert sources.access.decide(C, None) is Decision.DENIED
    again = sources.access
    assert sources.poll(again=True) == ()
    assert sources.access is again


def test_edits_in_quick_succession_are_all_seen(paths: tuple[Path, Path, AccessFile]) -> None:
    """Time stamps are coarse and inodes come back: each state is seen all the same."""
    path, _, file = paths
    sources = Sources(LIMITS, allow_files=[path], file=file)
    for number in range(200):  # several within one tick of the kernel's clock, each of the same size in the same inode
        write(path, PEERS[number % 2])
        sources.poll()
        assert allowed(sources) == {PEERS[number % 2]}
    for number in range(20):
        peer = PEERS[2 + number % 2]
        file.edit(lambda records, peer=peer: (None, Records().allowing(peer, "", LIMITS)))  # type: ignore[misc]
        sources.poll()
        assert allowed(sources) == {PEERS[1], peer}


@pytest.mark.parametrize("ago", [3600, -3600], ids=["an hour ago", "before the clock was set back by an hour"])
def test_what_has_not_changed_for_long_is_not_read_again(
    paths: tuple[Path, Path, AccessFile], monkeypatch: pytest.MonkeyPatch, ago: int
) -> None:
    path = paths[0]
    write(path, A)
    os.utime(path, (time.time() - ago,) * 2)
    sources = Sources(LIMITS, allow_files=[path])
    os.chmod(path, 0o000)
    status = path.stat()
    os.chmod(path, 0o644)
    opened: list[object] = []
    real = os.open

    def count(name: object, *rest: int) -> int:
        opened.append(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", count)
    sources.poll()  # chmod has changed the status
    assert opened == [path]
    sources.poll()
    assert opened == [path]
    write(path, A)  # just now: within the same tick it may change again
    for _ in range(3):
        sources.poll()
    assert opened == [path] * 4
    monkeypatch.undo()
    os.rename(path, path.with_suffix(".old"))
    write(path, B, old=True)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    sources.poll()
    assert allowed(sources) == {B}


def test_a_mistyped_line_changes_nothing_and_is_told_once(paths: tuple[Path, Path, AccessFile]) -> None:
    allow, deny, file = paths
    file.edit(lambda records: (None, records.allowing(C, "", LIMITS)))
    sources = Sources(LIMITS, allow_files=[allow], deny_files=[deny], file=file)
    before = sources.access
    allow.write_text(f"{D}\nnobody\n")
    (problem,) = sources.poll()
    assert (
        str(problem)
        == f"{allow}, line 2: 'nobody' is neither a peer id nor an IP network; write 12D3KooW… or 203.0.113.0/24"
    )
    assert sources.access is before
    assert sources.poll() == ()
    assert [str(one) for one in sources.poll(again=True)] == [str(problem)]
    allow.unlink()
    (problem,) = sources.poll()
    assert "cannot read the list" in str(problem)
    assert sources.access is before
    # What can be read is followed all the same.
    file.edit(lambda records: (None, records.allowing(E, "", LIMITS)))
    assert sources.poll() == ()
    assert allowed(sources) == {A, C, E}
    write(allow, D)
    assert sources.poll() == ()
    assert allowed(sources) == {C, D, E}
    allow.write_text("nobody")
    assert len(sources.poll()) == 1


def test_an_access_file_that_is_gone_or_open_to_others_stays_in_force(paths: tuple[Path, Path, AccessFile]) -> None:
    file = paths[2]
    sources = Sources(LIMITS, file=file)
    assert sources.access == NOBODY
    file.edit(lambda records: (None, records.allowing(A, "", LIMITS).denying(B, "", LIMITS)))
    sources.poll()
    before = sources.access
    file.path.chmod(0o604)
    (problem,) = sources.poll()
    assert "chmod 600" in str(problem)
    assert isinstance(problem, AccessFileError)
    file.path.unlink()
    (problem,) = sources.poll()
    assert "cannot read the access file" in str(problem)
    assert sources.access is before
    assert sources.access.decide(B, None) is Decision.DENIED
    file.edit(lambda records: (None, records.allowing(C, "", LIMITS)))
    assert sources.poll() == ()
    assert allowed(sources) == {C}


def test_at_the_start_everything_must_be_right(paths: tuple[Path, Path, AccessFile]) -> None:
    allow, deny, file = paths
    with pytest.raises(ConfigError, match=r"cannot read the list .*missing: No such file or directory; name a file"):
        Sources(LIMITS, allow_files=[allow.with_name("missing")])
    deny.write_text("nobody")
    with pytest.raises(ConfigError, match="deny, line 1"):
        Sources(LIMITS, deny_files=[deny])
    file.edit(lambda records: (None, records.allowing(A, "", LIMITS)))
    file.path.write_text("{")
    with pytest.raises(AccessFileError, match="not JSON"):
        Sources(LIMITS, file=file)


def test_a_list_may_be_read_and_not_be_written_by_others(tmp_path: Path) -> None:
    path = tmp_path / "list"
    write(path, A)
    assert read_list(path, LIMITS).peers == {A}
    path.chmod(0o664)
    with pytest.raises(ConfigError, match=r"the list .* open to other users \(mode 0664\); run: chmod go-w"):
        read_list(path, LIMITS)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a regular file"):
        read_list(tmp_path / "pipe", LIMITS)
    (tmp_path / "large").write_bytes(b"#" * 101)
    with pytest.raises(ConfigError, match="more than 100 bytes"):
        read_list(tmp_path / "large", AccessLimits(file=100))
