"""Who can reach a served grpc server, and whom a channel's socket lets in."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import grpc.aio
import pytest

import punchbridge
from tests.support.rpc_lab import BIG, AioService, Service, details, method, open_pair, serving

ROGUE = """
import os, socket, sys
uid = int(sys.argv[2])
if uid >= 0:
    # Another user may not be able to read our Python packages: a plain connect says enough.
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
    try:
        socket.socket(socket.AF_UNIX).connect(sys.argv[1])
    except OSError as problem:
        sys.exit(print(os.strerror(problem.errno)))
    sys.exit(print("connected"))
import grpc
channel = grpc.insecure_channel("unix:" + sys.argv[1], options=[("grpc.default_authority", "x")])
try:
    print("answer", channel.unary_unary("/test.Service/Echo")(b"x", timeout=5).decode())
except grpc.RpcError as problem:
    print(problem.code().name, problem.details())
"""
NOBODY = 65534


def rogue(path: str, uid: int = -1) -> str:
    """Another process tries an RPC on a unix socket."""
    command = [sys.executable, "-c", ROGUE, path, str(uid)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def old_names(directory: str) -> list[str]:
    """What /proc/net/unix tells everybody."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sorted({line.split()[-1] for line in lines if directory in line})


@pytest.fixture
def pair() -> Iterator[tuple[punchbridge.Bridge, punchbridge.Bridge]]:
    with open_pair() as opened:
        yield opened


def test_another_process_finds_no_way_to_the_server(pair: tuple[punchbridge.Bridge, punchbridge.Bridge]) -> None:
    listener, dialer = pair
    with serving(listener, Service()), dialer.channel(listener.addrs[0]) as channel:
        assert method(channel, "Echo")(b"x", timeout=10) == b"x"
        directory = listener._control.gateway.directory.path
        assert os.listdir(directory) == []
        names = old_names(directory)
        assert names
        for name in names:
            assert rogue(name).startswith("UNAVAILABLE")


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_the_guard_refuses_even_those_who_hold_the_door(kind: str) -> None:
    """A process that may trace ours comes through /proc/PID/fd; the guard asks for the pump and finds none."""
    with open_pair() as (listener, dialer):
        if kind == "sync":
            for guards, expected in (((), "answer x"), ((punchbridge.guard(),), "UNAUTHENTICATED")):
                with serving(listener, Service(), interceptors=guards):
                    assert rogue(proc_path(listener)).startswith(expected)
                    with dialer.channel(listener.addrs[0]) as channel:
                        check_all_kinds(channel)
                listener.unserve()
        else:
            asyncio.run(guarded_aio(listener, dialer))


def proc_path(listener: punchbridge.Bridge) -> str:
    (door,) = listener._control.gateway._doors.values()
    return f"/proc/{os.getpid()}/fd/{door.address.rpartition('/')[2]}"


def check_all_kinds(channel: grpc.Channel) -> None:
    assert method(channel, "Echo")(b"x", timeout=10) == b"x"
    assert method(channel, "Up")(iter([b"xyz"]), timeout=10) == b"3"
    assert list(method(channel, "Down")(b"2", timeout=10)) == [b"0", b"1"]
    assert list(method(channel, "Chat")(iter([b"a"]), timeout=10)) == [b"a"]
    with pytest.raises(grpc.RpcError) as caught:
        method(channel, "Missing")(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def guarded_aio(listener: punchbridge.Bridge, dialer: punchbridge.Bridge) -> None:
    server = grpc.aio.server(handlers=(AioService(),), options=BIG, interceptors=[punchbridge.aio_guard()])
    listener.serve(server)
    await server.start()
    assert (await asyncio.to_thread(rogue, proc_path(listener))).startswith("UNAUTHENTICATED")
    with dialer.channel(listener.addrs[0]) as channel:
        await asyncio.to_thread(check_all_kinds, channel)
    await server.stop(None)


def test_the_guard_of_an_asyncio_server_refuses_calls_of_blocking_handlers() -> None:
    """grpc.aio calls a blocking handler that answers with a stream in its event loop, which must not stop."""

    async def main() -> None:
        guards = [punchbridge.aio_guard()]
        server = grpc.aio.server(ThreadPoolExecutor(2), handlers=[Service()], interceptors=guards)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for _ in range(2):
                for call in (
                    method(channel, "Down")(b"2", timeout=10),
                    method(channel, "Chat")(iter([b"a"]), timeout=10),
                ):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        [part async for part in call]
                    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
                with pytest.raises(grpc.aio.AioRpcError, match="reached through its bridge only"):
                    await method(channel, "Echo")(b"x", timeout=10)
        await server.stop(None)

    asyncio.run(main())


def test_the_guard_lets_named_others_in(pair: tuple[punchbridge.Bridge, punchbridge.Bridge]) -> None:
    listener, _ = pair
    guard = punchbridge.guard(allow=lambda peer: peer.startswith("ipv4:127.0.0.1"))
    with serving(listener, Service(), interceptors=[guard]) as server:
        assert rogue(proc_path(listener)).startswith("UNAUTHENTICATED")
    # A server with a TCP port of its own beside the bridge.
    server = grpc.server(ThreadPoolExecutor(2), handlers=[Service()], interceptors=[guard])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert method(channel, "Echo")(b"tcp", timeout=10) == b"tcp"
        with pytest.raises(grpc.RpcError) as caught:
            method(channel, "Who")(b"", timeout=10)
        assert "came another way" in details(caught.value)
    server.stop(None).wait()


def test_a_channels_socket_takes_this_process_only(pair: tuple[punchbridge.Bridge, punchbridge.Bridge]) -> None:
    listener, dialer = pair
    with serving(listener, Service()), dialer.channel(listener.addrs[0]) as channel:
        assert method(channel, "Echo")(b"x", timeout=10) == b"x"
        (endpoint,) = dialer._control.gateway._endpoints.values()
        assert rogue(endpoint.name).startswith("UNAVAILABLE")
        assert method(channel, "Echo")(b"y", timeout=10) == b"y"
        if os.getuid() == 0:
            assert rogue(endpoint.name, NOBODY) == "Permission denied"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user for the attempt")
def test_another_user_cannot_come_in(pair: tuple[punchbridge.Bridge, punchbridge.Bridge]) -> None:
    listener, _ = pair
    with serving(listener, Service()):
        assert rogue(proc_path(listener), NOBODY) == "Permission denied"
        for name in old_names(listener._control.gateway.directory.path):
            assert rogue(name, NOBODY) == "Permission denied"
