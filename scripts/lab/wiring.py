"""Frame sockets and the child processes that own them: the wire and captures. Knows no addresses."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab import commands, session
from lab.limits import SOCKET_BUFFER_BYTES, WIRE_READY_SECONDS

_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_PACKET_IGNORE_OUTGOING = 23
_ETH_P_ALL = 3
_SO_RCVBUFFORCE = 33


def frame_socket(namespace: str, device: str, *, offload: bool) -> socket.socket:
    """A raw socket bound to one device. With `offload` it carries whole GSO frames, incoming ones only."""

    def make() -> socket.socket:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))

    sock = session.socket_in(namespace, make)
    try:
        if offload:
            sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, SOCKET_BUFFER_BYTES)
        except PermissionError:  # not in a user namespace
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        sock.bind((device, _ETH_P_ALL))
    except BaseException:
        sock.close()
        raise
    return sock


def start_child(script: str, arguments: Sequence[str], sockets: Sequence[socket.socket]) -> subprocess.Popen[str]:
    """Run a script of this folder with sockets handed over; returns once it said it is ready."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name(script)), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[sock.fileno() for sock in sockets],
        preexec_fn=session.child_setup(None),
    )
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], WIRE_READY_SECONDS)
    if not ready or child.stdout.readline() != "ready\n":
        end_child(child)
        raise commands.CommandFailed(f"{script} did not start")
    return child


def end_child(child: subprocess.Popen[str]) -> None:
    """Kill and reap a child of `start_child`, and close its pipes."""
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            stream.close()


def change_link(child: subprocess.Popen[str], link: str, **values: float | None) -> None:
    """Tell a running wire a new `delay` (seconds), `loss` or `detour` (seconds) for one link."""
    order: dict[str, object] = {"link": link}
    order |= {name: value for name, value in values.items() if value is not None}
    assert child.stdin is not None
    child.stdin.write(json.dumps(order) + "\n")
    child.stdin.flush()
