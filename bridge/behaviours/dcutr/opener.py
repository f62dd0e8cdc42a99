"""The side that was dialled over the relay (B in the specs): tries a plain dial, then up to three exchanges.

It runs once for each relayed connection and back-off; when to run again is the service's decision.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from punchbridge.addresses import Multiaddr, endpoint_of
from punchbridge.behaviours.dcutr.attempt import Attempt
from punchbridge.behaviours.dcutr.context import Facts, PunchContext, Won
from punchbridge.behaviours.dcutr.exchange import Failed, sorted_errors
from punchbridge.behaviours.dcutr.explain import evidence_for, explain
from punchbridge.behaviours.dcutr.ground import Ground
from punchbridge.behaviours.dcutr.policy import PunchOutcome
from punchbridge.errors import BridgeError, LimitExceeded
from punchbridge.limits.punch import (
    DCUTR_EXCHANGE_TIMEOUT,
    DCUTR_IDENTIFY_TIMEOUT,
    DCUTR_REVERSAL_ADDRS,
    DCUTR_REVERSAL_HEAD_START,
    DCUTR_REVERSAL_TIMEOUT,
    DCUTR_SETTLE,
    DIAL_ROUND_TRIPS,
)
from punchbridge.limits.wire import MAX_MESSAGE
from punchbridge.tasks.nurseries import flat_nursery
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.transport.link import Link
from punchbridge.transport.tcp.dial import Dial
from punchbridge.verdict import Code, new_run
from punchbridge.wire.dcutr import PROTOCOL, Opener, Schedule, role_of

__all__ = ["OpenerRun"]

_POINTLESS = frozenset({Code.NO_CANDIDATES, Code.PEER_UNSUPPORTED, Code.RELAY_LOST, Code.CANCELLED})
"""Another attempt right away would end the same."""


class OpenerRun:
    """One run over one relayed connection. `retry_in` is told with the last failure, each attempt to `note`."""

    def __init__(
        self, context: PunchContext, relayed: Connection, retry_in: float, note: Callable[[Facts], None]
    ) -> None:
        self._context = context
        self._relayed = relayed
        self._retry_in = retry_in
        self._run = new_run()
        self._note = note
        self._scope = context.scope_for(relayed)

    async def run(self) -> PunchOutcome:
        """All attempts, each told by an event. Raises nothing but cancellation."""
        with trio.move_on_after(DCUTR_IDENTIFY_TIMEOUT):
            await self._relayed.identified.wait()
        if self._context.policy.reversal:
            reversed_ = await self._reversal()
            if reversed_ is not None:
                return reversed_
        attempts = self._context.policy.attempts
        attempt = 1
        while True:
            facts = Facts(self._relayed.peer, "initiator", attempt, trio.current_time(), run=self._run)
            self._note(facts)
            try:
                return self._context.succeeded(facts, await self._attempt(facts))
            except Failed as failed:
                facts.detail = failed.detail
                last = attempt >= attempts or failed.code in _POINTLESS or self._relayed.closed.is_set()
                retry_in = self._retry_in if last and not self._relayed.closed.is_set() else None
                outcome = self._context.failure(facts, failed.code, final=last, retry_in=retry_in)
                if last:
                    return outcome
            attempt += 1
            await trio.sleep(self._context.rng.uniform(*self._context.policy.backoff))

    async def _attempt(self, facts: Facts) -> Won:
        """One exchange and one simultaneous open. Raises Failed."""
        context, relayed = self._context, self._relayed
        facts.local = await context.await_candidates(self._scope)
        if not facts.local:
            raise Failed(Code.NO_CANDIDATES)
        with sorted_errors(relayed):
            with trio.fail_after(DCUTR_EXCHANGE_TIMEOUT):
                stream = await context.swarm.open_stream(relayed, [PROTOCOL])
            try:
                return await self._exchange(facts, stream)
            except BaseException:  # failed or cancelled: the peer must not wait for the rest of the exchange
                stream.reset()
                raise

    async def _exchange(self, facts: Facts, stream: Stream) -> Won:
        context, relayed = self._context, self._relayed
        machine = Opener()
        with trio.fail_after(DCUTR_EXCHANGE_TIMEOUT):
            facts.local = context.own_candidates(self._scope) or facts.local
            facts.began = trio.current_time()
            await write_message(stream, machine.connect(facts.local, facts.began))
            raw = machine.receive(await read_message(stream, MAX_MESSAGE), trio.current_time())
        facts.relay_rtt = machine.rtt
        remote = context.filter(raw, relayed, self._scope)
        facts.remote = remote.accepted
        if not remote.accepted:
            refused = ", ".join(f"{addr} ({why.value})" for addr, why in remote.refused[:4])
            if context.reachable_at(facts.local):
                await self._invite(stream, machine)
            raise Failed(Code.NO_REMOTE_CANDIDATES, f"refused {refused}" if refused else "the list is empty")
        facts.evidence = evidence_for(facts.remote, context.swarm.observed)
        agent = relayed.identify.agent if relayed.identify is not None else None
        role = role_of("initiator", facts.attempt, agent)
        attempt = Attempt(context, relayed, role, facts)
        context.started(facts)
        won: Won | None = None
        async with flat_nursery() as nursery:
            sync, schedule = machine.sync(trio.current_time())
            nursery.start_soon(self._sync, stream, sync, schedule, attempt)
            won = await attempt.run()
            nursery.cancel_scope.cancel()
        if won is None:
            raise Failed(await explain(facts.evidence, facts.remote, context.swarm.observed, context.observer))
        return won

    async def _invite(self, stream: Stream, machine: Opener) -> None:
        """SYNC all the same: a peer that offers nothing to dial (js-libp2p at home, which tells of no observed TCP
        address) reaches us by a plain dial. Its connection cancels this run; the end of its stream means it gave up,
        or that its dial has only begun."""
        sync, _ = machine.sync(trio.current_time())
        with trio.move_on_after(self._context.policy.attempt_timeout):
            try:
                await write_message(stream, sync)
                await stream.send_eof()
                while await stream.receive_some():
                    pass
            except (BridgeError, OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # it left the exchange; whether it dials is seen below
            await trio.sleep(DCUTR_SETTLE + DIAL_ROUND_TRIPS * (machine.rtt or 0.0))

    async def _sync(self, stream: Stream, sync: bytes, schedule: Schedule, attempt: Attempt) -> None:
        """Sends SYNC and dials half a round trip later, also when the relay fails meanwhile: it did its part."""
        try:
            await write_message(stream, sync)
            await stream.aclose()
        except (BridgeError, OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            stream.reset()
        await trio.sleep_until(schedule.at)
        attempt.go()

    # --- the plain dial first (D2) -----------------------------------------------------------------------

    async def _reversal(self) -> PunchOutcome | None:
        """Dials the public addresses that the peer announces; None when the exchange has to follow.

        After the head start only a connected one may finish its upgrade. Those still in the air go on as dials of
        the punch (`punchbridge.transport.tcp.dial`), whose role is another one.
        """
        context = self._context
        addrs = context.announced_by(self._relayed, self._scope)[:DCUTR_REVERSAL_ADDRS]
        if not addrs:
            return None
        facts = Facts(self._relayed.peer, "initiator", 0, trio.current_time(), remote=addrs)
        wins: list[Won] = []
        connected = trio.Event()
        ended = trio.Event()
        try:
            ground = context.grounds.enter(self._relayed.peer)
        except LimitExceeded:
            return None  # the exchange meets the same limit and tells of it
        try:
            async with trio.open_nursery() as nursery:

                async def all_dials() -> None:
                    async with trio.open_nursery() as dials:
                        for addr in addrs:
                            dials.start_soon(self._dial, addr, connected, wins, dials.cancel_scope, ground)
                    ended.set()

                nursery.start_soon(all_dials)
                with trio.move_on_after(DCUTR_REVERSAL_HEAD_START):
                    await ended.wait()
                if connected.is_set() and not ended.is_set():
                    with trio.move_on_after(DCUTR_REVERSAL_TIMEOUT):
                        await ended.wait()
                nursery.cancel_scope.cancel()
        finally:
            context.grounds.leave(ground)
        return context.succeeded(facts, wins[0]) if wins else None

    async def _dial(
        self, addr: Multiaddr, connected: trio.Event, wins: list[Won], scope: trio.CancelScope, ground: Ground
    ) -> None:
        endpoint = endpoint_of(addr)
        if endpoint is None:
            return
        context = self._context
        try:
            ground.dials.drop(endpoint)
            dial = Dial(endpoint, context.source(endpoint))
            try:
                stream = await dial.wait()
            except trio.Cancelled:
                ground.dials.keep(dial, plain=True)
                raise
            connected.set()
            link = Link(raw=stream, local=stream.local, remote=stream.remote, path="direct", inbound=False)
            connection = await context.adopt(link, "initiator", self._relayed.peer)
            try:
                wins.append(Won(connection, "dial", await connection.ping()))
            except BaseException:  # nobody will tell of a connection that did not win
                connection.abort("NO_ROUND_TRIP")
                raise
            scope.cancel()
        except (BridgeError, OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the exchange follows; its verdict counts
