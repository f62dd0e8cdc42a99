"""What the kernel says about a lab: sockets, conntrack entries, nft counters. Reads, never changes."""

from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass

from lab import commands, session

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
    """One TCP socket of a host; `state` is the kernel's number (1 established, 10 listening)."""

    local: Endpoint
    remote: Endpoint
    state: int
    inode: int


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


def _endpoint(text: str) -> Endpoint:
    address, port = text.split(":")
    words = struct.unpack(f">{len(address) // 8}I", bytes.fromhex(address))
    packed = struct.pack(f"={len(words)}I", *words)  # the kernel prints host-order words
    host = ipaddress.ip_address(packed)
    if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
        return Endpoint(str(host.ipv4_mapped), int(port, 16))
    return Endpoint(str(host), int(port, 16))


def tcp_sockets(namespace: str, states: tuple[int, ...] = (ESTABLISHED,)) -> list[TcpSocket]:
    """TCP sockets of a namespace in the given states, from /proc. Raises OSError."""
    text = ""
    with session.inside(namespace):
        for name in ("tcp", "tcp6"):
            with open(f"/proc/thread-self/net/{name}") as file:
                text += "".join(file.readlines()[1:])
    found = []
    for line in text.splitlines():
        fields = line.split()
        if int(fields[3], 16) in states:
            found.append(TcpSocket(_endpoint(fields[1]), _endpoint(fields[2]), int(fields[3], 16), int(fields[9])))
    return found


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


def counters(namespace: str) -> dict[str, Count]:
    """All named nft counters of a namespace. Raises CommandFailed."""
    found = {}
    for entry in commands.nft_json(namespace, "counters"):
        counter = entry.get("counter")
        if counter is not None:
            found[counter["name"]] = Count(counter["packets"], counter["bytes"])
    return found
