"""Who may call: closed by default, lists, tickets, and what a stranger gets of a bridge that serves."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import grpc
import pytest
import trio

import punchbridge
from punchbridge.access.policy import NOBODY
from punchbridge.access.secret import Secret
from punchbridge.access.store import AccessFile, access_path
from punchbridge.access.ticket import Ticket, parse_ticket
from punchbridge.addresses import parse, with_peer
from punchbridge.behaviours.admission import show_invitation
from punchbridge.config import AccessLimits
from punchbridge.events import AccessOpen, ErrorEvent, Event, Refused
from punchbridge.identity import parse_peer_id
from punchbridge.local import forward
from tests.support.rpc_lab import LOOPBACK, Service, method, serving, trailing

LIMITS = AccessLimits()
SOON = 15.0
"""Seconds. Files are looked at each second; a busy machine takes longer."""


def call(client: punchbridge.Bridge, target: str) -> bytes:
    with client.channel(target, fresh=True) as channel:
        answer: bytes = method(channel, "Echo")(b"hello", timeout=20)
        return answer


def refusal(client: punchbridge.Bridge, target: str) -> str:
    """The details of a call that must fail because the caller is not admitted."""
    with pytest.raises(grpc.RpcError) as caught:
        call(client, target)
    assert trailing(caught.value)["punchbridge-error"] == "NOT_ALLOWED"
    return str(caught.value.details())


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def admitted(client: punchbridge.Bridge, target: str) -> bool:
    try:
        return call(client, target) == b"hello"
    except grpc.RpcError as problem:
        assert trailing(problem)["punchbridge-error"] == "NOT_ALLOWED"  # noqa: PT017
        return False


def test_a_bridge_that_is_told_nothing_admits_nobody() -> None:
    told: list[Event] = []
    with (
        punchbridge.open(listen=LOOPBACK, allow_private=True, events=told.append) as server,
        punchbridge.open(listen=LOOPBACK, allow_private=True) as client,
        serving(server, service := Service()),
    ):
        details = refusal(client, server.addrs[0])
        assert client.peer_id in details  # what to tell the server's owner
        assert "/punchbridge/grpc" not in details
        until(lambda: any(isinstance(event, Refused) for event in told))
        (refused,) = (event for event in told if isinstance(event, Refused))
        assert set(refused.refused) == {"not_allowed"}  # gRPC may have tried again meanwhile
        assert [one["peer"] for one in refused.sources] == [client.peer_id]
        assert server.status().refused["not_allowed"] >= 1
    assert service.infos == []


@pytest.mark.parametrize("sessions", [True, False])
def test_a_listed_peer_calls_and_others_do_not(sessions: bool) -> None:
    friend, stranger = punchbridge.Identity.generate(), punchbridge.Identity.generate()
    with (
        punchbridge.open(listen=LOOPBACK, allow_private=True, allow=[str(friend)], sessions=sessions) as server,
        punchbridge.open(key=friend, listen=LOOPBACK, allow_private=True) as one,
        punchbridge.open(key=stranger, listen=LOOPBACK, allow_private=True) as other,
        serving(server, Service()),
    ):
        assert call(one, server.addrs[0]) == b"hello"
        with pytest.raises(grpc.RpcError) as caught:
            call(other, server.addrs[0])
        # Without sessions the protocol is one that the server does not speak, to this peer.
        code = trailing(caught.value)["punchbridge-error"]
        assert code == ("NOT_ALLOWED" if sessions else "UNSUPPORTED")


def test_a_service_may_admit_more_than_the_bridge() -> None:
    with (
        punchbridge.open(listen=LOOPBACK, allow_private=True) as server,
        punchbridge.open(listen=LOOPBACK, allow_private=True) as client,
        serving(server, Service(), allow=punchbridge.ANYONE),
    ):
        assert call(client, server.addrs[0]) == b"hello"


def test_that_anybody_may_call_is_told_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Event] = []
    with (
        punchbridge.open(listen=LOOPBACK, allow=punchbridge.ANYONE, events=told.append),
        punchbridge.open(listen=LOOPBACK, allow=punchbridge.ANYONE),
        punchbridge.open(listen=LOOPBACK, events=told.append) as closed,
        serving(closed, Service(), allow=punchbridge.ANYONE),
    ):
        opened = [one for one in told if isinstance(one, AccessOpen)]
        assert [one.protocol for one in opened] == ["", "/punchbridge/grpc/1.0.0"]
    assert caplog.text.count("open: anybody who knows an address may call all that is served") == 1


def test_who_is_denied_is_denied_whatever_else_is_said() -> None:
    foe = punchbridge.Identity.generate()
    with (
        punchbridge.open(listen=LOOPBACK, allow_private=True, allow=punchbridge.ANYONE, deny=[str(foe)]) as server,
        punchbridge.open(key=foe, listen=LOOPBACK, allow_private=True) as client,
        punchbridge.open(listen=LOOPBACK, allow_private=True) as other,
        serving(server, Service()),
    ):
        assert "does not let this peer in" in refusal(client, server.addrs[0])
        assert call(other, server.addrs[0]) == b"hello"
        assert server.status().refused["denied"] >= 1


def test_who_is_denied_while_it_calls_is_told_so(tmp_path: Path) -> None:
    key, client_key = tmp_path / "key", punchbridge.Identity.generate()
    file = AccessFile(access_path(key), LIMITS)
    peer = parse_peer_id(str(client_key))
    with (
        punchbridge.open(key=key, new_key=True, listen=LOOPBACK, allow_private=True, allow=[str(peer)]) as server,
        punchbridge.open(key=client_key, listen=LOOPBACK, allow_private=True) as client,
        serving(server, Service()),
        client.channel(server.addrs[0], fresh=True) as channel,
    ):
        waiting = method(channel, "Wait")(b"", timeout=60)
        assert next(waiting) == b"first"
        file.edit(lambda records: (None, records.denying(peer, "", LIMITS)))
        with pytest.raises(grpc.RpcError) as caught:
            next(waiting)
        assert trailing(caught.value)["punchbridge-error"] == "NOT_ALLOWED"
        assert "does not let this peer in" in refusal(client, server.addrs[0])


def test_a_change_of_the_file_is_followed(tmp_path: Path) -> None:
    key, client_key = tmp_path / "key", punchbridge.Identity.generate()
    file = AccessFile(access_path(key), LIMITS)
    peer = parse_peer_id(str(client_key))
    with (
        punchbridge.open(key=key, new_key=True, listen=LOOPBACK, allow_private=True) as server,
        punchbridge.open(key=client_key, listen=LOOPBACK, allow_private=True) as client,
        serving(server, Service()),
    ):
        assert not admitted(client, server.addrs[0])
        file.edit(lambda records: (None, records.allowing(peer, "friend", LIMITS)))
        until(lambda: admitted(client, server.addrs[0]))
        with client.channel(server.addrs[0], fresh=True) as channel:
            waiting = method(channel, "Wait")(b"", timeout=60)
            assert next(waiting) == b"first"
            file.edit(lambda records: (None, records.forgetting(peer)))
            with pytest.raises(grpc.RpcError) as caught:  # the session of one who was struck out ends
                next(waiting)
            assert caught.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
            assert trailing(caught.value)["punchbridge-error"] == "NOT_ALLOWED"
            assert "does not let this peer in any more" in (caught.value.details() or "")
        assert not admitted(client, server.addrs[0])


async def test_who_is_struck_out_loses_a_session_of_a_service_that_has_ended() -> None:
    friend = punchbridge.Identity.generate()
    async with (
        punchbridge.open_trio(listen=LOOPBACK, allow_private=True, allow=[str(friend)]) as server,
        punchbridge.open_trio(key=friend, listen=LOOPBACK, allow_private=True) as client,
        trio.open_nursery() as nursery,
    ):
        async with server.accept_stream("/test/echo/1") as incoming:
            far = await client.dial_stream(server.addrs[0], "/test/echo/1")
            await far.send_all(b"x")
            near = await anext(incoming)
            server.host.sessions.unserve("/test/echo/1")
            server.host.swarm.gater.access = NOBODY
            with trio.fail_after(SOON), pytest.raises(punchbridge.StreamReset) as caught:
                await far.receive_some()
            assert isinstance(caught.value, punchbridge.NotAllowed)
            near.reset()
        nursery.cancel_scope.cancel()


async def test_forward_tells_that_its_peer_was_struck_out(tmp_path: Path) -> None:
    friend, told, place = punchbridge.Identity.generate(), list[Event](), f"unix:{tmp_path}/sock"
    async with (
        punchbridge.open_trio(listen=LOOPBACK, allow_private=True, allow=[str(friend)]) as server,
        punchbridge.open_trio(key=friend, listen=LOOPBACK, allow_private=True, events=told.append) as client,
        trio.open_nursery() as nursery,
    ):
        async with server.accept_stream("/test/echo/1") as incoming:
            target = server.addrs[0]
            await nursery.start(partial(forward.run, client.host, target, place, protocol="/test/echo/1"))
            local = await trio.open_unix_socket(f"{tmp_path}/sock")
            await local.send_all(b"x")
            near = await anext(incoming)
            await near.send_all(b"y")
            assert await local.receive_some() == b"y"
            server.host.swarm.gater.access = NOBODY
            with trio.fail_after(SOON):
                await ends(local)
            await local.aclose()
            (error,) = (one for one in told if isinstance(one, ErrorEvent))
            assert error.code == "NOT_ALLOWED"
            assert "does not let this peer in any more" in error.message
        nursery.cancel_scope.cancel()


async def ends(local: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        while await local.receive_some():
            pass


def invite(file: AccessFile, server: punchbridge.Bridge, *, uses: int = 1, expires: float | None = None) -> str:
    secret = Secret(bytes(range(16)))
    file.edit(
        lambda records: (
            None,
            records.inviting(secret, now=time.time(), expires=expires, uses=uses, label="", limits=LIMITS),
        )
    )
    addrs = tuple(parse(addr) for addr in server.addrs)
    return Ticket(parse_peer_id(server.peer_id), secret, (), addrs).encode()


def test_a_ticket_lets_one_peer_in_for_good(tmp_path: Path) -> None:
    key, mine = tmp_path / "key", punchbridge.Identity.generate()
    file = AccessFile(access_path(key), LIMITS)
    with (
        punchbridge.open(key=key, new_key=True, listen=LOOPBACK, allow_private=True) as server,
        serving(server, Service()),
    ):
        ticket = invite(file, server)
        with punchbridge.open(key=mine, listen=LOOPBACK, allow_private=True) as client:
            assert call(client, ticket) == b"hello"
            assert call(client, server.addrs[0]) == b"hello"  # and from now on without it
        with punchbridge.open(key=mine, listen=LOOPBACK, allow_private=True) as again:
            assert call(again, ticket) == b"hello"
        with punchbridge.open(ephemeral=True, listen=LOOPBACK, allow_private=True) as other:
            assert "as many peers" in refusal(other, ticket)
            with pytest.raises(punchbridge.NotAllowed):
                other.connect(ticket)
    (invitation,) = file.read().invitations
    assert [str(peer) for peer in invitation.peers] == [str(mine)]


async def test_a_stranger_at_the_same_address_cannot_keep_the_admitted_out(tmp_path: Path) -> None:
    key = tmp_path / "key"
    async with (
        punchbridge.open_trio(key=key, new_key=True, listen=LOOPBACK, allow_private=True) as server,
        punchbridge.open_trio(ephemeral=True, listen=LOOPBACK, allow_private=True) as guest,
        punchbridge.open_trio(ephemeral=True, listen=LOOPBACK, allow_private=True) as stranger,
    ):
        ticket = parse_ticket(await server.invite())
        addr = with_peer(ticket.addrs[0], ticket.peer)
        assert ticket.secret is not None
        near = await guest.host.dial(addr)
        await show_invitation(near, ticket.secret, SOON)
        far = await stranger.host.dial(addr)
        for _ in range(LIMITS.invites):
            with pytest.raises(punchbridge.NotAllowed, match="as many peers as it is for"):
                await show_invitation(far, ticket.secret, SOON)
        with pytest.raises(punchbridge.LimitExceeded, match="try again in a minute"):
            await show_invitation(far, ticket.secret, SOON)
        assert server.status().refused["invitations"] == 1
        for _ in range(2 * LIMITS.invites):
            await show_invitation(near, ticket.secret, SOON)
        assert server.status().refused["invitations"] == 1


async def test_who_is_listed_is_let_in_whatever_became_of_its_ticket(tmp_path: Path) -> None:
    key, friend = tmp_path / "key", punchbridge.Identity.generate()
    file = AccessFile(access_path(key), LIMITS)
    file.edit(lambda records: (None, records.allowing(friend.peer_id, "friend", LIMITS)))
    async with (
        punchbridge.open_trio(key=key, new_key=True, listen=LOOPBACK, allow_private=True) as server,
        punchbridge.open_trio(key=friend, listen=LOOPBACK, allow_private=True) as client,
    ):
        ticket = parse_ticket(await server.invite(expires=0))
        assert ticket.secret is not None
        connection = await client.host.dial(with_peer(ticket.addrs[0], ticket.peer))
        await show_invitation(connection, ticket.secret, SOON)
        file.edit(lambda records: (None, records.forgetting(friend.peer_id)))
        await server.host.admission.look()
        with pytest.raises(punchbridge.NotAllowed, match="expired"):
            await show_invitation(connection, ticket.secret, SOON)


def test_an_expired_and_a_revoked_ticket_are_told_apart(tmp_path: Path) -> None:
    key = tmp_path / "key"
    file = AccessFile(access_path(key), LIMITS)
    with (
        punchbridge.open(key=key, new_key=True, listen=LOOPBACK, allow_private=True) as server,
        punchbridge.open(ephemeral=True, listen=LOOPBACK, allow_private=True) as client,
        serving(server, Service()),
    ):
        ticket = invite(file, server, expires=time.time() - 1)
        assert "expired" in refusal(client, ticket)
        (invitation,) = file.read().invitations
        file.edit(lambda records: (None, records.revoking(invitation.name, time.time(), LIMITS)))
        assert "revoked" in refusal(client, ticket)


def test_the_secret_is_in_no_text(tmp_path: Path) -> None:
    key = tmp_path / "key"
    told: list[Event] = []
    with (
        punchbridge.open(key=key, new_key=True, listen=LOOPBACK, allow_private=True, events=told.append) as server,
        punchbridge.open(ephemeral=True, listen=LOOPBACK, allow_private=True, events=told.append) as client,
        serving(server, Service()),
    ):
        ticket = invite(AccessFile(access_path(key), LIMITS), server)
        channel = client.channel(ticket)
        assert method(channel, "Echo")(b"hello", timeout=20) == b"hello"
        seen = "\n".join([repr(channel), repr(channel.info), *(str(event.as_dict()) for event in told)])
        channel.close()
    assert ticket not in seen
    assert bytes(range(16)).hex() not in seen


def test_who_comes_back_is_the_same_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with punchbridge.open(listen=()) as first, punchbridge.open(listen=()) as second:
        ids = first.peer_id, second.peer_id
        assert len(set(ids)) == 2
    with punchbridge.open(listen=()) as first, punchbridge.open(listen=()) as second:
        assert (first.peer_id, second.peer_id) == ids
    with punchbridge.open(listen=(), ephemeral=True) as other:
        assert other.peer_id not in ids


def test_without_a_place_for_keys_the_identity_is_for_this_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "punchbridge").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    told: list[Event] = []
    with punchbridge.open(listen=(), events=told.append) as one:
        assert one.peer_id
    assert any(event.as_dict().get("code") == "BAD_KEY" for event in told)
