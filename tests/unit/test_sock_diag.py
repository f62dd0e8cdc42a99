"""The questions and answers of sock_diag: by hand, mutilated, and with the kernel for sockets of this process."""

from __future__ import annotations

import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.errors import ConfigError
from punchbridge.local.places import Place
from punchbridge.local.sock_diag import Found, SockDiag, State, decode_answer, encode_question
from punchbridge.local.users import Gone, LocalUsers, is_loopback

V4 = (("127.0.0.1", 0x1234), ("127.0.0.2", 0x0050))
V6 = (("::1", 0x1234, 0, 0), ("fe80::1%lo", 0x0050, 0, 7))


def answer(its: int, other: int, *, sequence: int = 5, state: int = 1, uid: int = 1000, inode: int = 77) -> bytes:
    body = struct.pack("=BBBB", socket.AF_INET, state, 0, 0) + struct.pack("!HH", its, other) + bytes(44)
    body += struct.pack("=IIIII", 0, 0, 0, uid, inode)
    return struct.pack("=IHHII", 16 + len(body), 20, 0, sequence, 0) + body


def test_the_question() -> None:
    asked = encode_question(5, *V4)
    assert asked == (
        struct.pack("=IHHII", 72, 20, 1, 5, 0)
        + struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
        + bytes.fromhex("1234 0050 7f000001000000000000000000000000 7f000002000000000000000000000000")
        + struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
    )
    asked = encode_question(5, *V6)
    assert asked[16] == socket.AF_INET6
    assert asked[28:44] == bytes(15) + b"\x01"
    mapped = encode_question(5, ("::ffff:127.0.0.1", 0x1234, 0, 0), ("::ffff:127.0.0.2", 0x0050, 0, 0))
    assert mapped == encode_question(5, *V4)


def test_the_answer() -> None:
    assert decode_answer(answer(0x1234, 0x50), 5, *V4) == Found(State.ESTABLISHED, 1000, 77)
    # A socket that listens where no connection is: its other end is nowhere.
    assert decode_answer(answer(0x1234, 0, state=State.LISTEN), 5, *V4) is None
    assert decode_answer(struct.pack("=IHHIIi", 36, 2, 0, 5, 0, -2) + bytes(16), 5, *V4) is None
    with pytest.raises(PermissionError):
        decode_answer(struct.pack("=IHHIIi", 36, 2, 0, 5, 0, -1) + bytes(16), 5, *V4)
    with pytest.raises(BlockingIOError):
        decode_answer(answer(0x1234, 0x50, sequence=4), 5, *V4)


@given(st.binary(max_size=120), st.booleans())
def test_nothing_else_than_an_error_of_the_system(data: bytes, ours: bool) -> None:
    data = struct.pack("=IHHII", 16 + len(data), 20, 0, 5, 0) + data if ours else data
    try:
        found = decode_answer(data, 5, *V4)
    except OSError:
        return
    assert found is None or isinstance(found, Found)


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> socket.socket:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        return socket.create_server((request.param, 0), family=family)
    except OSError as problem:
        pytest.skip(f"no {request.param} here: {problem}")


def test_the_kernel_tells_of_a_connection(listener: socket.socket) -> None:
    place = Place(*listener.getsockname()[:2])
    with listener, LocalUsers(listener, place) as users:
        client = socket.create_connection(listener.getsockname()[:2])
        accepted, _ = listener.accept()
        diag = SockDiag()
        found = diag.find(client.getsockname(), accepted.getsockname())
        assert found == Found(State.ESTABLISHED, os.geteuid(), os.fstat(client.fileno()).st_ino)
        assert diag.find(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
        diag.close()
        assert users.stranger(accepted) is None
        client.shutdown(socket.SHUT_WR)
        assert users.stranger(accepted) is None
        client.close()
        # The kernel may still know the socket then, and says that it is root's.
        with pytest.raises(Gone):
            users.stranger(accepted)
        accepted.close()


def test_a_connection_that_was_reset_is_nobodys(listener: socket.socket) -> None:
    with listener, LocalUsers(listener, Place(*listener.getsockname()[:2])) as users:
        client = socket.create_connection(listener.getsockname()[:2])
        accepted, _ = listener.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with pytest.raises(Gone):
            users.stranger(accepted)
        accepted.close()


def test_a_listener_that_the_kernel_does_not_know_is_refused(listener: socket.socket) -> None:
    with listener, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # It does not listen, so nobody can be asked about it.
        with pytest.raises(ConfigError, match=r"unix:PATH.*--any-user"):
            LocalUsers(bound, Place("127.0.0.1", 1))


def test_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "::1%lo")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.1", "fe80::1%eth0")))
