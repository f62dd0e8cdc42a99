"""`authorize` in real servers, sync and asyncio: two peers with different rights, every kind of call and of handler."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

import punchbridge
from punchbridge.rpc.authorize import NO_RULE, RULE_KEY
from tests.support.rpc_lab import (
    LOOPBACK,
    AioService,
    Service,
    details,
    eventually,
    method,
    open_pair,
    serving,
    trailing,
)


def every_kind(channel: Any) -> None:
    assert method(channel, "Echo")(b"x", timeout=15) == b"x"
    assert method(channel, "Up")(iter([b"xyz"]), timeout=15) == b"3"
    assert list(method(channel, "Down")(b"2", timeout=15)) == [b"0", b"1"]
    assert list(method(channel, "Chat")(iter([b"a"]), timeout=15)) == [b"a"]


def every_kind_is_refused(channel: Any, rule: str) -> None:
    calls = (
        lambda: method(channel, "Echo")(b"x", timeout=15),
        lambda: method(channel, "Up")(iter([b"xyz"]), timeout=15),
        lambda: list(method(channel, "Down")(b"2", timeout=15)),
        lambda: list(method(channel, "Chat")(iter([b"a"]), timeout=15)),
        lambda: method(channel, "Missing")(b"", timeout=15),
    )
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert trailing(caught.value)[RULE_KEY] == rule


class Counting(Service):
    """Counts the handlers that run."""

    ran = 0

    def service(self, handler_call_details: Any) -> Any:
        found = super().service(handler_call_details)
        if found is None:
            return None

        def counted(behaviour: Any) -> Any:
            def run(request: Any, context: Any) -> Any:
                self.ran += 1
                return behaviour(request, context)

            return run

        kind = next(
            one for one in ("unary_unary", "unary_stream", "stream_unary", "stream_stream") if getattr(found, one)
        )
        return getattr(grpc, f"{kind}_rpc_method_handler")(counted(getattr(found, kind)))


@contextmanager
def three() -> Iterator[tuple[punchbridge.Bridge, punchbridge.Bridge, punchbridge.Bridge]]:
    """A server, and two peers that call it."""
    with open_pair() as (listener, friend), punchbridge.open(listen=LOOPBACK, allow_private=True) as stranger:
        yield listener, friend, stranger


def test_sync_server() -> None:
    with three() as (listener, friend, stranger):
        service = Counting()
        labels = {friend.peer_id: ["friends"]}
        authorizer = punchbridge.authorize({"test.Service/*": ["friends"]}, labels=labels)
        with (
            serving(listener, service, interceptors=(authorizer,)),
            friend.channel(listener.addrs[0]) as good,
            stranger.channel(listener.addrs[0]) as bad,
        ):
            every_kind(good)
            ran = service.ran
            every_kind_is_refused(bad, "test.Service/*")
            assert service.ran == ran == 4
            with pytest.raises(grpc.RpcError) as caught:
                good.unary_unary("/other.Service/Get")(b"", timeout=15)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "no rule" in details(caught.value)
            assert authorizer.refused() == {"test.Service/*": 5, NO_RULE: 1}
            # The rights follow the labels at once, on connections that stand.
            labels[stranger.peer_id] = labels.pop(friend.peer_id)
            every_kind(bad)
            every_kind_is_refused(good, "test.Service/*")


def test_labels_of_the_bridges_own_lists(tmp_path: Path) -> None:
    """From the file that says who may call at all; a change of it holds for sessions that stand."""
    with (
        punchbridge.open(listen=LOOPBACK, allow_private=True) as staff,
        punchbridge.open(listen=LOOPBACK, allow_private=True) as guest,
    ):
        listed = tmp_path / "peers"
        listed.write_text(f"{staff.peer_id} staff\n{guest.peer_id} the guest room\n")
        lists = punchbridge.config.AccessLists(allow_files=(str(listed),))
        with punchbridge.open(listen=LOOPBACK, allow_private=True, access=lists) as listener:
            assert listener.labels(staff.peer_id) == {"staff"}
            assert listener.labels(guest.peer_id) == {"the guest room"}
            assert listener.labels(listener.peer_id) == frozenset()
            authorizer = punchbridge.authorize({"test.*": ["staff"]}, labels=listener.labels)
            with (
                serving(listener, Service(), interceptors=(authorizer,)),
                staff.channel(listener.addrs[0]) as good,
                guest.channel(listener.addrs[0]) as bad,
            ):
                every_kind(good)
                every_kind_is_refused(bad, "test.*")
                listed.write_text(f"{staff.peer_id}\n{guest.peer_id} staff\n")
                listener.reread_lists()
                eventually(lambda: listener.labels(guest.peer_id) == {"staff"})
                every_kind(bad)
                every_kind_is_refused(good, "test.*")


@pytest.mark.parametrize("service", [AioService, Service], ids=["coroutines", "blocking handlers"])
def test_asyncio_server(service: type[Service]) -> None:
    async def main(listener: punchbridge.Bridge, friend: punchbridge.Bridge, stranger: punchbridge.Bridge) -> None:
        authorizer = punchbridge.authorize({"test.*": [friend.peer_id]})
        server = grpc.aio.server(ThreadPoolExecutor(4), handlers=(service(),), interceptors=(authorizer,))
        listener.serve(server)
        await server.start()
        with friend.channel(listener.addrs[0]) as good, stranger.channel(listener.addrs[0]) as bad:
            await asyncio.to_thread(every_kind, good)
            await asyncio.to_thread(every_kind_is_refused, bad, "test.*")
            await asyncio.to_thread(every_kind, good)
            with pytest.raises(grpc.RpcError) as caught:
                await asyncio.to_thread(method(good, "Missing"), b"", 15)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert authorizer.refused() == {"test.*": 5}
        await server.stop(None)

    with three() as bridges:
        asyncio.run(asyncio.wait_for(main(*bridges), 50))
