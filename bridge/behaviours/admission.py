"""Who is let in, while the program runs: follows the lists, takes the invitations that peers show, and shows ours.

The lists and what an invitation means are decided in `punchbridge.access`; whom an answer concerns, in the swarm's
gater. This behaviour reads files in worker threads, so that a slow disk delays no connection.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from punchbridge.access.contact import Contact
from punchbridge.access.invitations import WORDS, Outcome
from punchbridge.access.secret import SECRET_SIZE, Secret
from punchbridge.access.sources import Sources
from punchbridge.access.store import AccessFile
from punchbridge.access.ticket import Ticket
from punchbridge.addresses import Multiaddr, is_public, is_relayed, peer_of, transport_of
from punchbridge.errors import (
    ConfigError,
    ConnectionLost,
    LimitExceeded,
    NegotiationFailed,
    NotAllowed,
    ProtocolViolation,
    StreamReset,
)
from punchbridge.events import AccessChanged, AccessOpen, AccessRead, ErrorEvent, InvitationShown
from punchbridge.identity import PeerId, peer_text
from punchbridge.swarm.gater import anyone
from punchbridge.swarm.swarm import Swarm
from punchbridge.tasks.prefixes import PrefixRates, Source
from punchbridge.tasks.rates import Buckets
from punchbridge.tasks.signal import Signal
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.transport.origin import source_of
from punchbridge.wire.invite import (
    INVITE,
    MAX_INVITE,
    decode_invite_answer,
    decode_invite_request,
    encode_invite_answer,
    encode_invite_request,
)

_TICKET_ADDRS: Final = 2
"""Direct addresses in a ticket, and further ones of a relay that take their place: IPv4 and IPv6, two uplinks, or TCP
and QUIC. More make a long line of little use: a peer that is connected tells the others."""

_WRITING: Final = 0.8
"""Seconds; a list that changes all the time is read then as it is, and so within the 2 s in which one is followed."""

_LOOKS: Final = 8
"""So often it is looked meanwhile whether it is still being written."""

__all__ = ["Admission", "Invitations", "show_invitation"]


class Admission:
    """The lists of one swarm, and the invite protocol on it.

    sources: where the lists come from. file: where invitations are kept; without one no invitation is known here.
    """

    def __init__(self, swarm: Swarm, sources: Sources, file: AccessFile | None = None) -> None:
        self._swarm = swarm
        self._limits = swarm.config.limits.access
        self._sources = sources
        self.file = file
        """Where invitations are kept, and the lists that commands edit."""
        self._looking = trio.Lock()
        self._asked = Signal()
        limits = self._limits
        self._of_peer = Buckets(limits.invites, limits.invite_every, limits.invite_keys)
        self._of_address = PrefixRates(limits.invites_per_address, limits.invite_per_address_every, limits.invite_keys)
        swarm.gater.access = sources.access

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follows the lists until cancelled. That everybody is admitted is told at the start."""
        if self._sources.open:
            self._swarm.events.emit(AccessOpen())
        if self.file is not None:
            await self._swarm.handle(
                INVITE,
                self._serve,
                max_streams=self._limits.invite_streams,
                max_per_peer=2,  # one that is ending may stand beside the next
                audience=anyone,
            )
        task_status.started()
        while True:
            seen = self._asked.number
            with trio.move_on_after(self._limits.follow):
                await self._asked.beyond(seen)
            if self._asked.number == seen:
                await self._let_finish()
            await self.look(again=self._asked.number != seen)

    async def _let_finish(self) -> None:
        """Waits for a moment while a list is written in place: half of one would strike out who stands in the other."""
        for _ in range(_LOOKS):
            if not await trio.to_thread.run_sync(self._sources.being_written):
                return
            await trio.sleep(_WRITING / _LOOKS)

    def reread(self) -> None:
        """Asks for everything to be read again, soon: what SIGHUP means."""
        self._asked.notify()

    def contact(self, relays: Sequence[Multiaddr]) -> Contact:
        """How this host is reached now, over TCP first. relays: those that it keeps a reservation with."""
        direct = [addr for addr in self._swarm.announced() if not is_relayed(addr)]
        if not direct and not relays:  # nothing else leads here
            direct = list(self._swarm.listen_addrs())
        direct.sort(key=is_public, reverse=True)
        known = sorted(relays, key=lambda addr: transport_of(addr) != "tcp")
        further = len(known) - len({peer_of(addr) for addr in known})
        return Contact(self._swarm.peer, tuple(known), tuple(direct[: max(1, _TICKET_ADDRS - further)]))

    async def invite(
        self,
        relays: Sequence[Multiaddr],
        *,
        uses: int = 1,
        expires: float | None = None,
        label: str = "",
        newest: int | None = None,
    ) -> Ticket:
        """A ticket that lets in `uses` peers, each for good; `expires`: seconds from now, None for never. newest: as
        `Records.inviting`. Raises ConfigError when this host has no file for invitations, and as the file does."""
        file = self.file
        if file is None:
            raise ConfigError("invitations are kept in a file beside the key; open with key=PATH, or with access.file")
        secret, now = Secret(os.urandom(SECRET_SIZE)), time.time()
        until = None if expires is None else now + expires
        keep = partial(file.invite, secret, now=now, expires=until, uses=uses, label=label, newest=newest)
        await trio.to_thread.run_sync(keep)
        return self.contact(relays).ticket(secret)

    async def look(self, *, again: bool = False) -> None:
        """Reads what has changed since it was last read, and puts it in force. again: reads everything, as SIGHUP asks.

        A list that cannot be read keeps what it said last, and an `error` event tells of it: once, and each time that
        everything is read. That everything was read is told too.
        """
        emit = self._swarm.events.emit
        async with self._looking:
            unreadable = self._sources.unreadable
            problems = await trio.to_thread.run_sync(lambda: self._sources.poll(again=again))
            before, after = self._swarm.gater.access, self._sources.access
            entries = {"allowed": len(after.allow.entries), "denied": len(after.deny.entries)}
            if again or self._sources.unreadable < unreadable:
                emit(AccessRead(**entries, problems=self._sources.unreadable))
            for problem in problems:
                emit(ErrorEvent(code=problem.code, message=str(problem)))
            if after != before:
                self._swarm.gater.access = after
                emit(AccessChanged(**entries))

    async def _serve(self, stream: Stream) -> None:
        """One invitation that a peer shows."""
        peer, listed = stream.connection.peer, self._swarm.gater.listed
        with trio.fail_after(self._limits.invite_timeout):
            secret = decode_invite_request(await read_message(stream, MAX_INVITE))
            admitted, where = listed(stream.connection), source_of(stream.connection)
            if self._may_show(peer, None if admitted else where, secret):
                outcome = await self._redeem(secret, peer)
                if outcome is Outcome.GRANTED and not listed(stream.connection):
                    await self.look()  # the peer is let in before it is told so
            else:
                outcome = None
                if not admitted:
                    self._swarm.refusals.add("invitations", where[0][1], peer_text(peer))
            if listed(stream.connection):
                outcome = Outcome.GRANTED  # it may call, whatever became of this invitation
            if outcome is None:
                stream.reset()
                return
            await write_message(stream, encode_invite_answer(outcome, WORDS[outcome]))
            await stream.aclose()

    def _may_show(self, peer: PeerId, where: Source | None, secret: Secret) -> bool:
        """Whether one more secret of the peer is looked at. where: of a stranger, whose address has a rate too. That of
        the peer is asked first: one that guesses without a pause takes little of what its neighbours share. A secret
        that lets in is looked at all the same: nobody guesses one, and a crowd of ids keeps no guest out."""
        now = trio.current_time()
        if not self._of_peer.take(peer, now):
            return False
        return where is None or self._of_address.take(where, now) or self._lets_in(secret, peer)

    def _lets_in(self, secret: Secret, peer: PeerId) -> bool:
        """By what was read last, without a look at the disk."""
        known = self._sources.records
        return known is not None and known.outcome(secret, peer, time.time()) is Outcome.GRANTED

    async def _redeem(self, secret: Secret, peer: PeerId) -> Outcome | None:
        """What the file says to a secret, told as an event; None when it cannot be used, which is told too.

        It is read for that only when it has changed, and for a secret that lets somebody in: reading thousands of
        entries takes a tenth of a second, and strangers that come over relays with ever new ids have no rate.
        """
        file = self.file
        assert file is not None
        outcome: Outcome | None = None
        if not await trio.to_thread.run_sync(self._sources.being_written):
            await self.look()
            known = self._sources.records
            if known is not None and not self._sources.unreadable:
                outcome = known.outcome(secret, peer, time.time())
        if outcome is None or outcome is Outcome.GRANTED:
            try:
                outcome = await trio.to_thread.run_sync(lambda: file.redeem(secret, peer, time.time()))
            except ConfigError as problem:
                self._swarm.events.emit(ErrorEvent(code=problem.code, message=str(problem)))
                return None
        self._swarm.events.emit(InvitationShown(peer=peer_text(peer), outcome=outcome.value))
        return outcome


class Invitations:
    """The invitations that this host has shown to others, so that each server is shown its own once."""

    _MOST = 1024
    """Servers that are remembered; the oldest is shown its invitation again."""

    def __init__(self, timeout: float) -> None:
        """timeout: seconds for a server's answer."""
        self._timeout = timeout
        self._shown: dict[PeerId, Secret] = {}
        self._showing: dict[PeerId, trio.Lock] = {}
        """Held while a server is shown its invitation: a slow one delays nobody but its own callers."""

    async def show(self, connection: Connection, secret: Secret) -> None:
        """Returns once the peer has let us in by this secret, now or before; or when it takes no invitations at all.
        Raises as `show_invitation`."""
        peer = connection.peer
        lock = self._showing.setdefault(peer, trio.Lock())
        try:
            async with lock:
                if self._shown.get(peer) == secret:
                    return
                try:
                    await show_invitation(connection, secret, self._timeout)
                except NegotiationFailed:
                    return  # open to anyone, or another program: what it serves is asked for itself
                self._shown[peer] = secret
                while len(self._shown) > self._MOST:
                    del self._shown[next(iter(self._shown))]
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._showing.pop(peer, None)

    def forget(self, peer: PeerId) -> None:
        """The peer is shown its invitation again the next time."""
        self._shown.pop(peer, None)


async def show_invitation(connection: Connection, secret: Secret, timeout: float) -> None:  # noqa: ASYNC109
    """Shows the peer the secret of its invitation; returns once it has let us in. timeout: seconds.

    The secret goes to the peer alone, which has proven its id, inside the encrypted connection. Raises NotAllowed when
    the invitation is not, or no longer, good; NegotiationFailed when the peer takes none; LimitExceeded when it did not
    look at this one; ConnectionLost. Cancelling leaves no stream; the peer may have let us in all the same.
    """
    stream = await connection.open_stream((INVITE,))
    peer = peer_text(connection.peer)
    try:
        with trio.move_on_after(timeout):
            await write_message(stream, encode_invite_request(secret))
            answer = decode_invite_answer(await read_message(stream, MAX_INVITE))
            await stream.aclose()
            if answer.outcome is Outcome.GRANTED:
                return
            words = WORDS[answer.outcome] if answer.outcome is not None else "the server did not take the invitation"
            raise NotAllowed(f"{peer}: {words}")
    except ConnectionLost:
        raise
    except StreamReset:
        raise LimitExceeded(
            f"{peer} did not look at the invitation: too many were shown to it from this address, or it cannot read "
            "its own; try again in a minute, or ask its owner"
        ) from None
    finally:
        stream.reset()
    raise ProtocolViolation(f"{peer} did not answer to the invitation within {timeout:g} s")
