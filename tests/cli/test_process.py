"""What programs set of their own process: limits of files and cores, and what another process may see of it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import punchbridge
from tests.cli.programs import LOOPBACK, ROOT, Program
from tests.support.rpc_lab import LOOPBACK as LISTEN
from tests.support.session_lab import until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user: run as root, or with sudo")


def limits_of(pid: int) -> dict[str, tuple[str, str]]:
    """Soft and hard limits of a process."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): (line[26:].split()[0], line[26:].split()[1]) for line in lines}


@pytest.fixture
def few_files() -> tuple[str, ...]:
    """How a program is started whose soft limit is 80 files and whose hard limit is 192."""
    return ("prlimit", "--nofile=80:192", "--core=unlimited", sys.executable, "-m", "punchbridge")


@pytest.mark.parametrize("arguments", [("relay",), ("listen",)])
def test_the_soft_limit_of_files_is_the_hard_one_and_cores_are_off(
    arguments: tuple[str, ...], few_files: tuple[str, ...], environment: dict[str, str], tmp_path: Path
) -> None:
    program = Program((*arguments, "--listen", LOOPBACK, "--lan"), environment, tmp_path, few_files)
    try:
        program.line()
        found = limits_of(program.process.pid)
        assert found["Max open files"] == ("192", "192")
        assert found["Max core file size"] == ("0", "0")
    finally:
        program.kill()


def test_a_program_that_crashes_leaves_no_core(environment: dict[str, str], tmp_path: Path) -> None:
    """Beside a program of others, which does where this system keeps cores at all."""
    if Path("/proc/sys/kernel/core_pattern").read_text().startswith("|"):
        pytest.skip("cores of this system are piped to a program; whether one was cannot be seen here")

    def cores() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    for command, dumps in (
        ([sys.executable, "-c", "print('here', flush=True); import time; time.sleep(60)"], True),
        ([sys.executable, "-m", "punchbridge", "listen", "--listen", LOOPBACK, "--lan"], False),
    ):
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=tmp_path, preexec_fn=cores)
        except subprocess.SubprocessError:
            pytest.skip("the hard limit of cores is 0 here, and only root can raise it")
        with process:
            assert process.stdout is not None
            assert process.stdout.readline()
            process.send_signal(signal.SIGABRT)
            _, status = os.waitpid(process.pid, 0)
            process.returncode = -signal.SIGABRT
            assert os.WTERMSIG(status) == signal.SIGABRT
            assert os.WCOREDUMP(status) == dumps
    for core in tmp_path.glob("core*"):
        core.unlink()


UNDUMPABLE = """
import ctypes, os, socket
from punchbridge.cli.process import prepare
from punchbridge.local.sockets import ServerDoor, SocketDirectory
import tempfile
os.setgroups([]); os.setresgid(1501, 1501, 1501); os.setresuid(1501, 1501, 1501)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # Whoever changes its uid is shut already.

def seen_by_another_process(of):
    inside, outside = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.readlink(f"/proc/{of}/fd/0"); os.write(outside, b"seen")
        except PermissionError:
            os.write(outside, b"hidden")
        os._exit(0)
    os.waitpid(child, 0)
    return os.read(inside, 10).decode()

before = seen_by_another_process(os.getpid())
prepare()
after = seen_by_another_process(os.getpid())
with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
    directory = SocketDirectory()
    name = directory.name("s")
    listener.bind(name); listener.listen()
    door = ServerDoor(name)
    client.connect(door.address)
    door.close(); directory.close()
print(before, after, "through the door")
"""


@needs_root
def test_another_process_of_the_same_user_cannot_look_inside() -> None:
    """And our own way to a server, which leads through /proc, stays open. As an ordinary user: root may see all."""
    environment = {"PYTHONPATH": str(ROOT / "src"), "TMPDIR": "/tmp"}
    done = subprocess.run(
        [sys.executable, "-c", UNDUMPABLE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "seen hidden through the door", done.stderr


@pytest.mark.timeout(240)
async def test_a_relay_with_few_files_is_not_deaf_and_keeps_who_reserved(
    few_files: tuple[str, ...], environment: dict[str, str], tmp_path: Path
) -> None:
    """192 files: the relay's bound is met before they are all taken. Each newcomer is answered: it gets a place, which
    one gives up that has stood idle for 10 s, or it is refused. Whoever has a reservation stays."""
    arguments = ("relay", "--listen", LOOPBACK, "--lan", "--set", "limits.swarm.connections_per_address=1000")
    program = Program(arguments, environment, tmp_path, few_files)
    try:
        address = await trio.to_thread.run_sync(program.line)
        async with (
            punchbridge.open_trio(listen=LISTEN, relays=[address], allow_private=True) as member,
            trio.open_nursery() as nursery,
        ):
            await member.wait_reservation()
            stood: list[punchbridge.TrioBridge] = []
            refused = 0

            async def stand(task_status: trio.TaskStatus[None]) -> None:
                nonlocal refused
                async with punchbridge.open_trio(listen=LISTEN, allow_private=True) as b:
                    try:
                        with trio.fail_after(30):
                            await b.connect(address)
                            stood.append(b)
                    except punchbridge.BridgeError as problem:
                        if isinstance(problem, punchbridge.DialTimeout):
                            raise  # It heard nothing.
                        refused += 1
                    task_status.started()
                    await trio.sleep_forever()

            for _ in range(100):
                await nursery.start(stand)
            assert len(stood) + refused == 100
            # Who gave way notices a moment later.
            await until(lambda: sum(bool(one.connections()) for one in stood) < 96, 30)
            assert [one.path for one in member.connections()] == ["direct"]
            nursery.cancel_scope.cancel()
        code, _, stderr = await trio.to_thread.run_sync(program.stop)
        assert code == 0
        assert "192 open files are allowed, so 96 connections and not 2048" in stderr
        assert "ACCEPT" not in stderr
    finally:
        program.kill()
