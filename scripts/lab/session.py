"""A private corner of the kernel for the lab: own network, own mount namespace, rootless where needed.

`enter()` moves this process there once; every namespace made afterwards hangs on this process and its
children alone, so that even SIGKILL leaves nothing on the machine. Knows no topology and no NAT.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

EXIT_UNAVAILABLE: Final = 77
"""Exit status of the scripts where no namespaces can be made (the customary "skipped" of test harnesses)."""

NETNS_DIR: Final = "/run/netns"

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18
_PR_SET_PDEATHSIG: Final = 1
_SIGKILL: Final = 9

_libc = ctypes.CDLL(None, use_errno=True)
_entered: int | None = None


class LabUnavailable(RuntimeError):
    """No network namespaces can be made here; the text says why and what would help."""


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def entered() -> bool:
    """True when this very process (not a parent) has moved into its private namespaces."""
    return _entered == os.getpid()


def enter() -> None:
    """Move this process into private namespaces; a second call does nothing.

    As root without a user namespace, else (or where root may not) inside a user namespace of its own. From
    then on the process has a loopback interface and no other network. Raises LabUnavailable. Without root it
    must be called before any thread is started (the kernel refuses user namespaces to threaded processes).
    """
    global _entered
    if entered():
        return
    outcome = [] if os.geteuid() == 0 else ["not root"]
    if not outcome:
        try:
            _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET), "unshare")
        except OSError as error:
            outcome.append(f"as root: {error}")
    if outcome:
        try:
            _enter_user_namespace()
        except OSError as error:
            outcome.append(f"user namespace: {error}")
            raise LabUnavailable(_explain(outcome)) from error
    try:
        _private_run()
    except OSError as error:
        raise LabUnavailable(_explain([*outcome, f"tmpfs on /run: {error}"])) from error
    _entered = os.getpid()
    _loopback_up()


def _explain(outcome: list[str]) -> str:
    hint = "run it as root, or allow unprivileged user namespaces"
    restrict = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    with contextlib.suppress(OSError):
        if restrict.read_text().strip() == "1":
            hint = "AppArmor restricts user namespaces here: run it as root, or set " + restrict.name + "=0"
    if threading.active_count() > 1:
        hint += " (this process already has threads: start the lab first)"
    return f"cannot make network namespaces ({'; '.join(outcome)}); {hint}"


def _enter_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET), "unshare")
    # user_namespaces(7): setgroups must be denied before an unprivileged process may map its gid.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _private_run() -> None:
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount --make-rprivate /")
    target = NETNS_DIR if os.path.isdir(NETNS_DIR) else "/run"
    _check(_libc.mount(b"lab", target.encode(), b"tmpfs", 0, b"mode=0755,size=1m"), "mount")
    os.makedirs(NETNS_DIR, exist_ok=True)


def _loopback_up() -> None:
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: IFF_UP, RUNNING


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """The calling thread is in namespace `name` for the body. Nothing in the body may await or yield.

    A socket stays where it was created, so one process can hold sockets of all hosts, with one clock.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(f"{NETNS_DIR}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(there, _CLONE_NEWNET), f"setns {name}")
        finally:
            os.close(there)
        try:
            yield
        finally:
            if _libc.setns(home, _CLONE_NEWNET) != 0:
                os._exit(99)  # never run on in the wrong namespace
    finally:
        os.close(home)


def socket_in(name: str, make: Callable[[], T]) -> T:
    """What `make()` returns when called inside namespace `name`. Raises OSError."""
    with inside(name):
        return make()


def child_setup(name: str | None) -> Callable[[], None]:
    """A `preexec_fn`: dies with the thread that started it, and lives in namespace `name` (None: here)."""
    path = None if name is None else f"{NETNS_DIR}/{name}".encode()

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
        if path is not None:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if _libc.setns(fd, _CLONE_NEWNET) != 0:
                os._exit(98)

    return prepare
