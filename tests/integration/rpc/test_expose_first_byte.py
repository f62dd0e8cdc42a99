"""`expose` connects to its server when the caller has something to say, or after a moment for those that listen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import trio

import punchbridge
from punchbridge.config import Limits, LocalLimits
from punchbridge.local import expose
from punchbridge.local.target import GRPC_PROTOCOL
from punchbridge.session import SessionStream
from tests.support.rpc_lab import LOOPBACK
from tests.support.session_lab import until

BANNER = b"220 speaks first\n"


@dataclass
class Exposed:
    """A server that greets, then echoes. `taken`: when each of its connections came."""

    server: punchbridge.TrioBridge
    client: punchbridge.TrioBridge
    taken: list[float] = field(default_factory=list)

    async def greet(self, stream: trio.SocketStream) -> None:
        self.taken.append(trio.current_time())
        await stream.send_all(BANNER)
        with suppress(trio.BrokenResourceError):  # a caller who has to go is cut
            async for data in stream:
                await stream.send_all(data)

    async def call(self) -> punchbridge.TrioStream:
        return await self.client.dial_stream(self.server.addrs[0], GRPC_PROTOCOL)


@asynccontextmanager
async def exposed(first_byte: float, *, sessions: bool = True, silent: int = 64) -> AsyncIterator[Exposed]:
    limits = Limits(local=LocalLimits(first_byte=first_byte, silent=silent))
    async with (
        punchbridge.open_trio(
            listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE, limits=limits, sessions=sessions
        ) as server,
        punchbridge.open_trio(listen=LOOPBACK, allow_private=True, sessions=sessions) as client,
        trio.open_nursery() as nursery,
    ):
        made = Exposed(server, client)
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, made.greet, [listener])
        await nursery.start(expose.run, server.host, f"127.0.0.1:{listener.socket.getsockname()[1]}")
        yield made
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("sessions", [True, False], ids=["session", "plain stream"])
async def test_a_server_that_speaks_first_is_heard_by_a_caller_that_waits(sessions: bool) -> None:
    async with exposed(0.2, sessions=sessions) as made:
        began = trio.current_time()
        stream = await made.call()
        with trio.fail_after(30):
            assert await stream.receive_some() == BANNER
        assert made.taken[0] - began >= 0.2
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        await stream.aclose()


@pytest.mark.parametrize("sessions", [True, False], ids=["session", "plain stream"])
async def test_the_first_byte_is_not_waited_for_any_longer_than_it_takes(sessions: bool) -> None:
    async with exposed(600.0, sessions=sessions) as made:
        stream = await made.call()
        await stream.send_all(b"hello")
        got = b""
        with trio.fail_after(60):
            while len(got) < len(BANNER) + 5:
                got += await stream.receive_some()
        assert got == BANNER + b"hello"
        await stream.aclose()


async def test_a_caller_that_only_ends_its_half_is_heard() -> None:
    async with exposed(600.0) as made:
        stream = await made.call()
        await stream.send_eof()
        with trio.fail_after(60):
            assert await stream.receive_some() == BANNER
        await stream.aclose()


async def test_a_caller_that_goes_without_a_word_costs_the_server_no_connection() -> None:
    async with exposed(600.0) as made:
        await made.call()
        await until(lambda: made.server.host.sessions.count == 1, 30.0)
        (session,) = made.client.host.sessions.opened
        SessionStream(session).abort()
        await until(lambda: made.server.host.sessions.count == 0, 30.0)
        assert made.taken == []


async def test_a_mute_caller_who_has_to_go_is_counted() -> None:
    async with exposed(0.05, silent=1) as made:
        first = await made.call()
        with trio.fail_after(30):
            assert await first.receive_some() == BANNER
        second = await made.call()
        with trio.fail_after(30):
            assert await second.receive_some() == BANNER
            with pytest.raises(punchbridge.StreamReset):
                await first.receive_some()
        assert made.server.host.swarm.refusals.counts == {"silent": 1}
