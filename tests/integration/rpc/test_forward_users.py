"""The port of `forward` and the users of this machine: real connections of other uids, which only root can make."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

import punchbridge
from punchbridge.config import Limits, LocalLimits
from punchbridge.events import Event, LocalRefused
from punchbridge.local import forward
from tests.support.rpc_lab import LOOPBACK

ECHO = "/test/echo/1"
OTHER = 1502
ROOT = Path(__file__).parents[3]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user: run as root, or with sudo")

CLIENT = """
import os, socket, sys
uid, place = int(sys.argv[1]), sys.argv[2]
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
try:
    if place.startswith("/"):
        client = socket.socket(socket.AF_UNIX); client.connect(place)
    else:
        host, _, port = place.rpartition(":")
        client = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET); client.connect((host, int(port)))
    client.sendall(b"hello")
    print(client.recv(100).decode())
except OSError as problem:
    print(type(problem).__name__)
"""


async def as_user(uid: int, place: str) -> str:
    """What a client of that user gets back for "hello": the echo, nothing, or the name of an error."""
    done = await trio.run_process([sys.executable, "-I", "-c", CLIENT, str(uid), place], capture_stdout=True)
    return done.stdout.decode().strip()


class Lab:
    """A listener of `forward` to an echo; `streams` counts what reached the other side."""

    def __init__(self) -> None:
        self.place = ""
        self.streams = 0
        self.events: list[Event] = []

    def refused(self) -> list[LocalRefused]:
        return [event for event in self.events if isinstance(event, LocalRefused)]


@asynccontextmanager
async def forwarded(bind: str, *, any_user: bool = False, tell_refused: float = 60.0) -> AsyncIterator[Lab]:
    lab = Lab()
    limits = Limits(local=LocalLimits(tell_refused=tell_refused))

    async def echo(server: punchbridge.TrioBridge, task_status: trio.TaskStatus[None]) -> None:
        async with server.accept_stream(ECHO) as streams:
            task_status.started()
            async for stream in streams:
                lab.streams += 1
                await stream.send_all(await stream.receive_some())
                await stream.aclose()

    async with (
        punchbridge.open_trio(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE) as server,
        punchbridge.open_trio(listen=LOOPBACK, allow_private=True, limits=limits, events=lab.events.append) as client,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(echo, server)
        run = partial(forward.run, protocol=ECHO, any_user=any_user)
        lab.place = str(await nursery.start(run, client.host, server.addrs[0], bind)).removeprefix("unix:")
        yield lab
        nursery.cancel_scope.cancel()


@needs_root
@pytest.mark.parametrize("bind", ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"])
async def test_another_user_is_turned_away(bind: str) -> None:
    async with forwarded(bind) as lab:
        place = lab.place.replace("0.0.0.0", "127.0.0.1").replace("[::1]", "::1")
        assert await as_user(0, place) == "hello"
        for _ in range(3):
            assert await as_user(OTHER, place) in ("ConnectionResetError", "BrokenPipeError")
        assert await as_user(0, place) == "hello"
        assert lab.streams == 2
        assert lab.refused() == [LocalRefused(bind=lab.place, uid=OTHER, refused=1)]


@needs_root
async def test_refusals_are_counted_and_told_again_after_a_while() -> None:
    async with forwarded("127.0.0.1:0", tell_refused=1e-9) as lab:
        for uid in (OTHER, OTHER + 1, OTHER):
            assert await as_user(uid, lab.place) in ("ConnectionResetError", "BrokenPipeError")
        assert [(one.uid, one.refused) for one in lab.refused()] == [(OTHER, 1), (OTHER + 1, 2), (OTHER, 3)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that every user may enter."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield Path(path)


@needs_root
async def test_any_user_lets_all_in_and_a_unix_socket_nobody_else(folder: Path) -> None:
    async with forwarded("127.0.0.1:0", any_user=True) as lab:
        assert await as_user(OTHER, lab.place) == "hello"
    async with forwarded(f"unix:{folder}/f.sock") as lab:
        assert await as_user(0, lab.place) == "hello"
        assert await as_user(OTHER, lab.place) == "PermissionError"
        assert lab.streams == 1


USERS = """
import os, socket, sys
from punchbridge.local.places import Place
from punchbridge.local.users import LocalUsers
os.setgroups([]); os.setresgid(1501, 1501, 1501); os.setresuid(1501, 1501, 1501)
listener = socket.create_server(("127.0.0.1", 0))
with LocalUsers(listener, Place("127.0.0.1", listener.getsockname()[1])) as users:
    print(listener.getsockname()[1], flush=True)
    for _ in range(3):
        accepted, _ = listener.accept()
        accepted.recv(100)
        print(users.stranger(accepted), flush=True)
"""


@needs_root
def test_root_may_come_to_another_user_and_a_third_one_may_not() -> None:
    def child(*arguments: str) -> subprocess.Popen[str]:
        source = {"PYTHONPATH": str(ROOT / "src")}
        return subprocess.Popen([sys.executable, "-c", *arguments], stdout=subprocess.PIPE, text=True, env=source)

    def line(program: subprocess.Popen[str]) -> str:
        assert program.stdout is not None
        return program.stdout.readline().strip()

    with child(USERS) as users:
        place = f"127.0.0.1:{line(users)}"
        for uid, told in ((1501, "None"), (0, "None"), (OTHER, str(OTHER))):
            with child(CLIENT, str(uid), place) as client:
                assert line(users) == told
                client.kill()
        assert users.wait(20) == 0


async def test_beyond_loopback_it_warns(caplog: pytest.LogCaptureFixture) -> None:
    for bind, loud in (("0.0.0.0:0", True), ("127.0.0.1:0", False), ("[::1]:0", False)):
        caplog.clear()
        async with forwarded(bind) as lab:
            doors = [one for one in caplog.records if one.name == "punchbridge.local.door"]
            warnings = [one.getMessage() for one in doors if one.levelname == "WARNING"]
            assert warnings == ([f"{lab.place} is no loopback address: " + WARNING] if loud else [])


WARNING = "whoever reaches it calls the exposed server as this peer"

WITHOUT_NETLINK = """
import ctypes, errno, json, socket, struct, sys
from punchbridge.errors import ConfigError
from punchbridge.local.places import Place
from punchbridge.local.users import LocalUsers

# A seccomp filter: socket(AF_NETLINK, ...) is EAFNOSUPPORT, all else is allowed.
number, netlink = int(sys.argv[1]), 16
rules = [(0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16), (0x15, 0, 1, netlink),
         (0x06, 0, 0, 0x00050000 | errno.EAFNOSUPPORT), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
program = struct.pack("HxxxxxxP", len(rules), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.create_string_buffer(program)) == 0, ctypes.get_errno()
with socket.create_server(("127.0.0.1", 0)) as listener:
    try:
        LocalUsers(listener, Place("127.0.0.1", 50051))
    except ConfigError as problem:
        print(problem)
"""


def test_without_netlink_it_does_not_start() -> None:
    """As under systemd's RestrictAddressFamilies, or a kernel without sock_diag."""
    numbers = {"x86_64": 41, "aarch64": 198}
    if platform.machine() not in numbers:
        pytest.skip(f"no system call number for {platform.machine()} here")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETLINK, str(numbers[platform.machine()])],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "src")},
    )
    assert done.stdout.startswith("cannot tell which users connect to 127.0.0.1:50051 (Address family not supported")
    assert "unix:PATH" in done.stdout
    assert "--any-user" in done.stdout
