"""The private socket directory: who gets in and what is left behind."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import trio
import trio.testing

from punchbridge.errors import ConfigError
from punchbridge.local import sockets
from punchbridge.local.gateway import connect_unix
from punchbridge.local.sockets import ServerDoor, SocketDirectory, peer_process

ROGUE = """
import os, socket, sys
uid = int(sys.argv[2])
if uid >= 0:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(sys.argv[1])
except OSError as problem:
    print(problem.errno and os.strerror(problem.errno))
else:
    print("connected")
"""
NOBODY = 65534


def rogue(name: str, uid: int = -1) -> str:
    done = subprocess.run([sys.executable, "-c", ROGUE, name, str(uid)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def directory() -> object:
    made = SocketDirectory()
    yield made
    made.close()


def test_directory_is_private_and_goes_away() -> None:
    made = SocketDirectory()
    assert stat.S_IMODE(os.stat(made.path).st_mode) == 0o700
    listener, name = made.listen()
    assert os.path.exists(name)
    assert len(name) <= 107
    made.close()
    made.close()
    listener.close()
    assert not os.path.exists(made.path)


def test_bad_temporary_directory_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    odd = tmp_path / "a,b c"
    odd.mkdir()
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(odd))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(long))
    made = SocketDirectory()
    assert made.path.startswith("/tmp/")
    made.close()
    assert not list(odd.iterdir())
    assert not list(long.iterdir())


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_place_where_others_could_rename_the_directory_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int
) -> None:
    """Whoever may write in it without the sticky bit takes our directory away and puts a door of its own there."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(shared))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(shared))
    made = SocketDirectory()
    assert made.path.startswith("/tmp/")
    assert not list(shared.iterdir())
    made.close()
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **_: (_ for _ in ()).throw(PermissionError(13, "denied")))
    with pytest.raises(ConfigError, match=rf"can write in the folder .*shared \(mode {mode:04o}\).*set TMPDIR"):
        SocketDirectory()


def test_no_place_for_the_directory_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(ConfigError, match="set TMPDIR"):
        SocketDirectory()


def test_what_killed_processes_left_is_swept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(sockets, "_SUN_PATH", 1000)
    alive = SocketDirectory()
    left = tmp_path / "punchbridge-dead"
    fresh = tmp_path / "punchbridge-fresh"
    for folder in (left, fresh):
        folder.mkdir()
        server_socket(f"{folder}/s").close()
    for folder in (left, Path(alive.path)):
        os.utime(folder, (0, 0))
    other = SocketDirectory()
    assert {path.name for path in tmp_path.iterdir()} == {
        os.path.basename(alive.path),
        os.path.basename(other.path),
        fresh.name,
    }
    alive.close()
    other.close()
    assert list(tmp_path.iterdir()) == [fresh]


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_a_folder_of_somebody_else_with_such_a_name_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(sockets, "_SUN_PATH", 1000)
    foreign = tmp_path / "punchbridge-backup"
    foreign.mkdir()
    server_socket(f"{foreign}/s").close()
    match what:
        case "file":
            (foreign / "data").write_text("precious")
        case "folder":
            (foreign / "data").mkdir()
        case _:
            (foreign / "data").symlink_to("s")
    os.utime(foreign, (0, 0))
    SocketDirectory().close()
    assert {path.name for path in foreign.iterdir()} == {"s", "data"}


def test_an_empty_folder_with_such_a_name_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It may be somebody's who is about to use it."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(sockets, "_SUN_PATH", 1000)
    foreign = tmp_path / "punchbridge-backup"
    foreign.mkdir()
    os.utime(foreign, (0, 0))
    SocketDirectory().close()
    assert foreign.is_dir()


def test_peer_process_is_the_connecting_one(directory: SocketDirectory) -> None:
    listener, name = directory.listen()
    listener.setblocking(True)
    with listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(name)
        accepted, _ = listener.accept()
        with accepted:
            assert peer_process(accepted) == (os.getpid(), os.getuid())
        assert rogue(name) == "connected"
        accepted, _ = listener.accept()
        with accepted:
            pid, uid = peer_process(accepted)
            assert pid != os.getpid()
            assert uid == os.getuid()


def test_named_socket_tells_its_name_and_leaves_no_file(directory: SocketDirectory) -> None:
    listener, name = directory.listen()
    listener.setblocking(True)
    end, own = directory.named_socket()
    with listener, end:
        assert not os.path.exists(own)
        end.setblocking(True)
        end.connect(name)
        accepted, peer = listener.accept()
        accepted.close()
        assert peer == own


def server_socket(name: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(name)
    listener.listen(4)
    return listener


def test_door_takes_the_name_away_and_still_leads_in(directory: SocketDirectory) -> None:
    name = directory.name("s")
    with server_socket(name) as listener:
        door = ServerDoor(name)
        assert os.listdir(directory.path) == []
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(door.address)
            accepted, _ = listener.accept()
            accepted.close()
        door.close()
        door.close()
        assert rogue(name) == "No such file or directory"


async def test_a_door_that_closes_under_a_connect_leads_to_no_other_server(directory: SocketDirectory) -> None:
    """The number of its descriptor is the next door's at once; whoever waits for room must not come in there."""
    name, other_name = directory.name("s"), directory.name("s")
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as other:
        for listener, where in ((full, name), (other, other_name)):
            listener.bind(where)
            listener.listen(0)
        door = ServerDoor(name)
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                filler = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
                with contextlib.suppress(BlockingIOError):
                    filler.connect(door.address)
            late = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))

            async def connect_late() -> None:
                with pytest.raises(ConnectionRefusedError):
                    await connect_unix(late, lambda: door.address, 5.0)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect_late)
                await trio.testing.wait_all_tasks_blocked()
                through = door.address
                door.close()
                taken = ServerDoor(other_name)
                stack.callback(taken.close)
                assert taken.address == through


def test_another_process_of_the_same_user_finds_no_door(directory: SocketDirectory) -> None:
    name = directory.name("s")
    with server_socket(name):
        door = ServerDoor(name)
        assert rogue(name) == "No such file or directory"
        assert rogue(door.address) in ("No such file or directory", "Connection refused", "Permission denied")
        # The kernel still shows the old name to everybody; it leads nowhere.
        assert name in Path("/proc/net/unix").read_text()
        door.close()


def test_door_of_nothing_raises(directory: SocketDirectory) -> None:
    with pytest.raises(FileNotFoundError):
        ServerDoor(directory.name("s"))
    plain = Path(directory.path, "plain")
    plain.write_text("")
    with pytest.raises(ConfigError):
        ServerDoor(str(plain))
    assert plain.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user for the attempt")
def test_another_user_cannot_come_in(directory: SocketDirectory) -> None:
    listener, name = directory.listen()
    os.chmod(name, 0o777)
    with listener:
        assert rogue(name) == "connected"
        assert rogue(name, NOBODY) == "Permission denied"
    server = directory.name("s")
    with server_socket(server):
        door = ServerDoor(server)
        through = f"/proc/{os.getpid()}/fd/{door.address.rsplit('/', 1)[1]}"
        assert rogue(through, NOBODY) == "Permission denied"
        door.close()
