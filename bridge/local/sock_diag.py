"""Asks the kernel whose a TCP socket of this machine is: one question and one answer of sock_diag(7).

Needs no rights: every user may ask. It knows the messages, and nothing of who may come.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from punchbridge.iana import unmapped

__all__ = ["Found", "SockDiag", "State", "decode_answer", "encode_question"]

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_NLMSG_ERROR: Final = 2
_NO_COOKIE: Final = 0xFFFFFFFF

_HEADER: Final = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""

_QUESTION: Final = struct.Struct("=BBBxI")
"""The head of struct inet_diag_req_v2: family, protocol, extensions, states. An id follows."""

_ID: Final = struct.Struct("!HH16s16s")
"""The head of struct inet_diag_sockid: ports and addresses, of the socket asked for first. Then the interface and the
cookie, in the byte order of the machine."""

_ANSWER: Final = struct.Struct("=BBBB48xIIIII")
"""struct inet_diag_msg: family, state, timer, retransmissions, the id, expiry, both queues, uid, inode."""


class State(IntEnum):
    """States of a TCP socket, as the kernel numbers them (net/tcp_states.h)."""

    ESTABLISHED = 1
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE_WAIT = 8
    LISTEN = 10


@dataclass(frozen=True)
class Found:
    """A socket of this machine. `inode`: 0 once no process holds it, and then `uid` means nothing."""

    state: int
    uid: int
    inode: int


def _plain(address: Any) -> tuple[IPv4Address | IPv6Address, int, int]:
    """(IP address, port, interface) of what getsockname and getpeername return; mapped IPv4 addresses as IPv4."""
    ip = unmapped(ip_address(address[0].partition("%")[0]))
    return ip, address[1], address[3] if len(address) > 3 and ip.version == 6 else 0


def encode_question(sequence: int, its: Any, other: Any) -> bytes:
    """The message that asks for the TCP socket at `its` whose other end is at `other`."""
    (ip, port, interface), (other_ip, other_port, _) = _plain(its), _plain(other)
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    body = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF)
    body += _ID.pack(port, other_port, ip.packed, other_ip.packed)
    body += struct.pack("=III", interface, _NO_COOKIE, _NO_COOKIE)
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, sequence, 0) + body


def decode_answer(data: bytes, sequence: int, its: Any, other: Any) -> Found | None:
    """The socket that an answer tells; None when there is none. Raises OSError: EAGAIN for the answer to another
    question, what the kernel refused with, and EBADMSG for what is no answer."""
    if len(data) < _HEADER.size:
        raise OSError(errno.EBADMSG, "sock_diag: a short answer")
    _, kind, _, answered, _ = _HEADER.unpack_from(data)
    if answered != sequence:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    body = data[_HEADER.size :]
    if kind == _NLMSG_ERROR and len(body) >= 4:
        number = -struct.unpack_from("=i", body)[0]
        if number == errno.ENOENT:
            return None
        raise OSError(number, f"sock_diag: {os.strerror(number)}")
    if kind != _SOCK_DIAG_BY_FAMILY or len(body) < _ANSWER.size:
        raise OSError(errno.EBADMSG, "sock_diag: an answer of another kind")
    _, state, _, _, _, _, _, uid, inode = _ANSWER.unpack_from(body)
    ports = struct.unpack_from("!HH", body, 4)
    # Where no connection has these ends the kernel may answer with one that listens at the first.
    same = ports == (_plain(its)[1], _plain(other)[1])
    return Found(state, uid, inode) if same else None


class SockDiag:
    """A netlink socket to the kernel. Answers come at once; nothing here waits."""

    def __init__(self) -> None:
        """Raises OSError where the kernel offers none, or a sandbox forbids it."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _NETLINK_SOCK_DIAG)
        self._sequence = 0

    def find(self, its: Any, other: Any) -> Found | None:
        """The TCP socket of this network namespace at `its` whose other end is at `other` (as getsockname gives them).

        None: no socket here has these ends. Raises OSError when the kernel does not tell.
        """
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        self._socket.send(encode_question(self._sequence, its, other))
        while True:
            data = self._socket.recv(65536)
            try:
                return decode_answer(data, self._sequence, its, other)
            except BlockingIOError:
                continue  # The answer to a question that failed before.

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()
