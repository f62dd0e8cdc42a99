"""expose and forward: an unmodified gRPC server and client in other processes' terms, over TCP and a unix socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

import punchbridge
from tests.cli.calls import shouted
from tests.cli.programs import LOCAL, LOOPBACK, PATIENCE, Program, Run, Start


def test_grpc_through_expose_and_forward(start: Start, relay: tuple[Program, str], server: str, tmp_path: Path) -> None:
    exposed = start("expose", server, "--relay", relay[1], *LOCAL, "--open")
    target = exposed.line()
    assert target.startswith("pbticket_")
    forwarded = start("forward", target, *LOCAL)
    place = forwarded.line()
    assert place.startswith("127.0.0.1:")
    assert shouted(place, b"over tcp") == b"OVER TCP"
    assert shouted(place, b"x" * 100_000) == b"X" * 100_000

    path = tmp_path / "here.sock"
    other = start("forward", target, *LOCAL, "--bind", f"unix:{path}")
    assert other.line() == f"unix:{path}"
    assert path.stat().st_mode & 0o777 == 0o600
    assert shouted(f"unix:{path}", b"over a unix socket") == b"OVER A UNIX SOCKET"
    assert other.stop()[0] == 0
    assert not path.exists()
    assert forwarded.stop()[0] == 0
    code, stdout, stderr = exposed.stop()
    assert code == 0, stderr
    assert stdout.splitlines()[0] == target
    assert "/p2p-circuit/p2p/" in stdout.splitlines()[1]


def test_call_credentials_reach_an_exposed_server(
    start: Start, relay: tuple[Program, str], server: str, tmp_path: Path
) -> None:
    """From a channel of the bridge, and from a client that counts its way to `forward` as private."""
    target = start("expose", server, "--relay", relay[1], *LOCAL, "--open").line()
    token = grpc.access_token_call_credentials("token")
    with punchbridge.open(listen=(LOOPBACK,), allow_private=True) as b, b.channel(target) as channel:
        assert (
            channel.unary_unary("/test.Echo/Token", None, None)(b"", timeout=15, credentials=token) == b"Bearer token"
        )
    path = tmp_path / "here.sock"
    start("forward", target, *LOCAL, "--bind", f"unix:{path}").line()
    port = start("forward", target, *LOCAL).line()
    for place, kind in ((f"unix:{path}", grpc.LocalConnectionType.UDS), (port, grpc.LocalConnectionType.LOCAL_TCP)):
        local = grpc.local_channel_credentials(kind)
        with grpc.secure_channel(place, local, options=[("grpc.enable_http_proxy", 0)]) as channel:
            assert (
                channel.unary_unary("/test.Echo/Token", None, None)(b"", timeout=15, credentials=token)
                == b"Bearer token"
            )


STRANGER = """
import os, socket, sys
host, _, port = sys.argv[1].rpartition(":")
os.setgroups([]); os.setresgid(1502, 1502, 1502); os.setresuid(1502, 1502, 1502)
client = socket.socket(); client.connect((host, int(port)))
try:
    client.sendall(b"hello"); print(client.recv(100))
except OSError as problem:
    print(type(problem).__name__)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user: run as root, or with sudo")
def test_another_user_of_the_machine_is_told_and_turned_away(start: Start, server: str) -> None:
    target = start("expose", server, *LOCAL, "--open").line()
    forwarded = start("forward", target, *LOCAL)
    for _ in range(2):
        command = [sys.executable, "-I", "-c", STRANGER, forwarded.line()]
        outcome = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout.strip()
        assert outcome in ("ConnectionResetError", "BrokenPipeError")
    words = f"refused user 1502 at {forwarded.line()}"
    forwarded.wait_for(lambda: [one for one in forwarded.stderr if one.startswith(words)], "line about it")
    assert shouted(forwarded.line(), b"mine") == b"MINE"
    assert sum(words in one for one in forwarded.stderr) == 1
    open_to_all = start("forward", target, *LOCAL, "--any-user")
    assert shouted(open_to_all.line(), b"mine") == b"MINE"


def test_server_that_is_down_is_an_error_of_the_call(start: Start, relay: tuple[Program, str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        exposed = start("expose", f"127.0.0.1:{free.getsockname()[1]}", "--relay", relay[1], *LOCAL)
        forwarded = start("forward", exposed.line(), *LOCAL)
        with pytest.raises(grpc.RpcError) as failure:
            shouted(forwarded.line(), b"anybody?")
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        exposed.wait_for(lambda: [one for one in exposed.stderr if "SERVER_DOWN" in one], "error of the exposing side")
        assert "Connection refused; does it run there?" in "".join(exposed.stderr)
        question = "does the server behind the other side run?"
        forwarded.wait_for(lambda: [one for one in forwarded.stderr if question in one], "error of the forwarding side")
        assert forwarded.process.poll() is None
        assert exposed.process.poll() is None


def test_places_are_checked_before_anything_starts(run: Run) -> None:
    nobody = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
    for command in (
        ("expose", "a..b:50051"),
        ("expose", "50051"),
        ("expose", "localhost:1", "--protocol", "x"),
        ("forward", nobody, "--bind", "a..b:1"),
        ("forward", nobody, "--bind", "127.0.0.1:70000"),
        ("forward", nobody, "--protocol", "x"),
    ):
        code, stdout, stderr = run(*command, *LOCAL)
        assert (code, stdout, stderr.count("\n")) == (2, "", 0), stderr
        assert stderr.startswith("error CONFIG: "), stderr


def test_forward_on_a_taken_port_ends_with_2(run: Run, start: Start, relay: tuple[Program, str], server: str) -> None:
    exposed = start("expose", server, "--relay", relay[1], *LOCAL)
    code, stdout, stderr = run("forward", exposed.line(), *LOCAL, "--bind", server)
    assert (code, stdout) == (2, "")
    assert "PORT_IN_USE" in stderr
