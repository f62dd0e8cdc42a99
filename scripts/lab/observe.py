"""What the kernel says about a lab: sockets, conntrack entries, nft counters. Reads, never changes."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from lab import commands, session
from lab.limits import COMMAND_SECONDS
from lab.rules import HEARD

ESTABLISHED = 1
LISTEN = 10


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address and port. Printed as `1.2.3.4:5` or `[::1]:5`."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """One TCP socket of a host; `state` is the kernel's number (1 established, 10 listening).

    `received` counts the payload bytes that have arrived in order.
    """

    local: Endpoint
    remote: Endpoint
    state: int
    inode: int
    received: int


@dataclass(frozen=True, slots=True)
class Flow:
    """One conntrack entry: the tuple as first seen, and the tuple of the replies."""

    protocol: str
    state: str
    source: Endpoint
    target: Endpoint
    reply_source: Endpoint
    reply_target: Endpoint
    bytes_out: int
    bytes_back: int


@dataclass(frozen=True, slots=True)
class Count:
    """An nft counter."""

    packets: int
    bytes: int


# linux/inet_diag.h and linux/sock_diag.h: one request asks for all TCP sockets of a family, with their tcp_info.
_SOCK_DIAG, _BY_FAMILY, _ROOT_AND_MATCH, _REQUEST = 4, 20, 0x300, 0x1
_DONE, _ERROR, _INFO = 3, 2, 2
_ASK = struct.Struct("=IHHII BBBBI 48x")
_TOLD = struct.Struct("=BBBB HH 16s 16s I8s IIIII")
_PORTS = struct.Struct(">HH")
_ATTRIBUTE = struct.Struct("=HH")
_COUNT = struct.Struct("=Q")
_RECEIVED_AT = 128
"""Where struct tcp_info has tcpi_bytes_received (linux/tcp.h)."""
_DUMP_BYTES = 64 * 1024
"""One read of a dump; the kernel fills at most 32 KiB."""


def _host(family: int, packed: bytes) -> str:
    if family == socket.AF_INET:
        return str(ipaddress.IPv4Address(packed[:4]))
    host = ipaddress.IPv6Address(packed)
    return str(host.ipv4_mapped or host)


def _received(attributes: bytes) -> int:
    """The bytes received that the tcp_info among a message's attributes names; 0 without a tcp_info."""
    while len(attributes) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        if kind == _INFO and length >= _ATTRIBUTE.size + _RECEIVED_AT + _COUNT.size:
            return int(_COUNT.unpack_from(attributes, _ATTRIBUTE.size + _RECEIVED_AT)[0])
        attributes = attributes[max(_ATTRIBUTE.size, (length + 3) & ~3) :]
    return 0


def _socket(message: bytes) -> TcpSocket:
    family, state, _, _, _, _, local, remote, _, _, _, _, _, _, inode = _TOLD.unpack_from(message)
    local_port, remote_port = _PORTS.unpack_from(message, 4)
    ends = Endpoint(_host(family, local), local_port), Endpoint(_host(family, remote), remote_port)
    return TcpSocket(*ends, state, inode, _received(message[_TOLD.size :]))


def _dump(asked: socket.socket, family: int, states: int) -> list[TcpSocket]:
    asked.send(
        _ASK.pack(
            _ASK.size, _BY_FAMILY, _REQUEST | _ROOT_AND_MATCH, 0, 0,
            family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0, states,
        )
    )  # fmt: skip
    found: list[TcpSocket] = []
    while True:
        answer = asked.recv(_DUMP_BYTES)
        while answer:
            length, kind = struct.unpack_from("=IH", answer)
            if kind == _DONE:
                return found
            if kind == _ERROR:
                number = -struct.unpack_from("=i", answer, 16)[0]
                raise OSError(number, f"sock_diag: {os.strerror(number)} (the kernel needs its module tcp_diag)")
            found.append(_socket(answer[16:length]))
            answer = answer[(length + 3) & ~3 :]


def tcp_sockets(namespace: str, states: tuple[int, ...] = (ESTABLISHED,)) -> list[TcpSocket]:
    """TCP sockets of a namespace in the given states, as the kernel's sock_diag tells them. Raises OSError."""
    wanted = sum(1 << state for state in states)
    family, kind = socket.AF_NETLINK, socket.SOCK_DGRAM
    with session.socket_in(namespace, lambda: socket.socket(family, kind, _SOCK_DIAG)) as asked:
        asked.settimeout(COMMAND_SECONDS)
        return [one for family in (socket.AF_INET, socket.AF_INET6) for one in _dump(asked, family, wanted)]


def udp_bound(namespace: str) -> list[str]:
    """Local IPv4 addresses of the UDP sockets of a namespace that are connected with nobody, sorted. Raises OSError."""
    with session.inside(namespace):
        lines = Path("/proc/thread-self/net/udp").read_text().splitlines()[1:]
    ends = [line.split()[1:3] for line in lines]
    found = {local.partition(":")[0] for local, remote in ends if remote.endswith(":0000")}
    return sorted(_host(socket.AF_INET, bytes.fromhex(one)[::-1]) for one in found)


_TUPLE = re.compile(r"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)(?: packets=(\d+) bytes=(\d+))?(?: \[UNREPLIED\])?")


def conntrack(namespace: str) -> list[Flow]:
    """TCP and UDP entries of a box's connection table, from /proc/net/nf_conntrack. Raises OSError."""
    with session.inside(namespace), open("/proc/thread-self/net/nf_conntrack") as file:
        lines = file.read().splitlines()
    flows = []
    for line in lines:
        fields = line.split()
        tuples = _TUPLE.findall(line)
        if len(tuples) != 2:
            continue
        first, back = tuples
        state = fields[5] if fields[2] == "tcp" else ""
        flows.append(
            Flow(
                fields[2],
                state,
                Endpoint(first[0], int(first[2])),
                Endpoint(first[1], int(first[3])),
                Endpoint(back[0], int(back[2])),
                Endpoint(back[1], int(back[3])),
                int(first[5] or 0),
                int(back[5] or 0),
            )
        )
    return flows


def udp_heard(namespace: str) -> dict[tuple[Endpoint, Endpoint], int]:
    """Bytes of established QUIC, headers included, that have arrived at a host: by (its sender, where it arrived).

    What has to do with the relay is not counted. Raises CommandFailed.
    """
    found = {}
    for name in HEARD:
        for entry in commands.nft_json(namespace, "set", "inet", "lab", name):
            for one in entry.get("set", {}).get("elem", ()):
                source, sport, target, dport = one["elem"]["val"]["concat"]
                flow = Endpoint(source, sport), Endpoint(target, dport)
                found[flow] = int(one["elem"]["counter"]["bytes"])
    return found


def counters(namespace: str) -> dict[str, Count]:
    """All named nft counters of a namespace. Raises CommandFailed."""
    found = {}
    for entry in commands.nft_json(namespace, "counters"):
        counter = entry.get("counter")
        if counter is not None:
            found[counter["name"]] = Count(counter["packets"], counter["bytes"])
    return found
