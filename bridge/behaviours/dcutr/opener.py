"""The side that was dialled over the relay (B in the specs): tries a plain dial, then up to three exchanges.

One run over one circuit. When to begin another is decided elsewhere (`punchbridge.reach.punching`).
"""

from __future__ import annotations

from typing import Final

import trio

from punchbridge.behaviours.dcutr.attempts import Attempt, Won, failed, succeeded
from punchbridge.behaviours.dcutr.both import BothOpeners
from punchbridge.behaviours.dcutr.direct import Opening
from punchbridge.behaviours.dcutr.exchange import Failed, Parts, judge_candidates, prepare, sorted_errors
from punchbridge.behaviours.dcutr.explain import explain
from punchbridge.behaviours.dcutr.record import PeerPunch
from punchbridge.reach.punching import PunchOutcome
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.tasks.nurseries import flat_nursery
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.verdict import Code
from punchbridge.wire.dcutr import PROTOCOL, Opener, Schedule
from punchbridge.wire.messages import MAX_MESSAGE

__all__ = ["OpenerRun"]

_POINTLESS = frozenset({Code.NO_CANDIDATES, Code.PEER_UNSUPPORTED, Code.RELAY_LOST, Code.CANCELLED})
"""Another attempt right away would end the same."""
_DIAL_ROUND_TRIPS: Final = 4
"""TCP, multistream-select, Noise and the muxer: what a plain dial takes at most until the other side has it."""


class OpenerRun:
    """One run over one circuit, noted in the record's `active`. `retry_in` is told with the last failure."""

    def __init__(
        self, parts: Parts, plain: BothOpeners, record: PeerPunch, circuit: Connection, retry_in: float
    ) -> None:
        assert record.active is not None
        self._parts = parts
        self._plain = plain
        self._record = record
        self._active = record.active
        self._circuit = circuit
        self._retry_in = retry_in
        self._scope = parts.candidates.scope_for(circuit)

    async def run(self) -> PunchOutcome:
        """All attempts, each told by an event. Raises nothing but cancellation."""
        parts, circuit = self._parts, self._circuit
        with trio.move_on_after(parts.limits.identify_timeout):
            await circuit.identified.wait()
        if parts.punch.reversal:
            reversed_ = await self._reversal()
            if reversed_ is not None:
                return reversed_
        number = 1
        while True:
            attempt = self._begin(number)
            self._active.attempt = attempt
            try:
                return succeeded(parts.swarm, attempt, await self._attempt(attempt))
            except Failed as failure:
                attempt.detail = failure.detail or attempt.detail
                last = number >= parts.punch.attempts or failure.code in _POINTLESS or circuit.closed.is_set()
                retry_in = self._retry_in if last and not circuit.closed.is_set() else None
                outcome = failed(parts.swarm, attempt, failure.code, final=last, retry_in=retry_in)
                if last:
                    return outcome
            number += 1
            await trio.sleep(parts.rng.uniform(parts.punch.pause_least, parts.punch.pause_most))

    def _begin(self, number: int) -> Attempt:
        active, peer = self._active, self._circuit.peer
        return Attempt(peer, "initiator", number, trio.current_time(), run=active.run.id, spent=active.spent)

    async def _reversal(self) -> PunchOutcome | None:
        """The plain dial first (D2); None when an exchange has to follow."""
        addrs = self._parts.candidates.announced_by(self._circuit, self._scope)
        addrs = addrs[: self._parts.limits.reversal_addresses]
        if not addrs:
            return None
        attempt = self._begin(0)
        attempt.remote = addrs
        won = await self._plain.dial(attempt, self._circuit)
        return None if won is None else succeeded(self._parts.swarm, attempt, won)

    async def _attempt(self, attempt: Attempt) -> Won:
        """One exchange and one opening. Raises Failed."""
        parts = self._parts
        attempt.local = await parts.candidates.wait_own(self._scope)
        if not attempt.local:
            raise Failed(Code.NO_CANDIDATES)
        try:
            won = await self._arrange(attempt)
        except Failed as failure:
            if failure.code is Code.PEER_REFUSED:
                await self._give_way()  # noqa: ASYNC120
            raise
        if won is None:
            raise Failed(await explain(attempt, parts.swarm.observed, parts.observer, parts.other))
        return won

    async def _arrange(self, attempt: Attempt) -> Won | None:
        """The exchange with its opening; meanwhile it goes before an exchange of the peer's. Raises Failed."""
        run, circuit = self._active.run, self._circuit
        run.exchanging = True
        try:
            with sorted_errors(circuit):
                with trio.fail_after(self._parts.limits.exchange_timeout):
                    stream = await self._parts.swarm.open_stream(circuit, [PROTOCOL])
                try:
                    won = await self._exchange(attempt, stream)
                except BaseException:  # failed or cancelled: the peer must not wait for the rest of the exchange
                    stream.reset()
                    raise
        finally:
            run.exchanging = False
        if won is None:
            stream.reset()
        return won

    async def _give_way(self) -> None:
        """Waits for the exchange of a peer that refused ours for its own. That one cancels this run."""
        circuits = (one for one in self._parts.swarm.connections(self._circuit.peer) if one.path == "relay")
        if self._record.punching.yields(dialled=any(not one.inbound and not one.closing for one in circuits)):
            await trio.sleep(self._parts.limits.give_way)

    async def _exchange(self, attempt: Attempt, stream: Stream) -> Won | None:
        parts, circuit = self._parts, self._circuit
        machine = Opener()
        with trio.fail_after(parts.limits.exchange_timeout):
            attempt.local = parts.candidates.own(self._scope) or attempt.local
            attempt.began = trio.current_time()
            await write_message(stream, machine.connect(attempt.local, attempt.began))
            raw = machine.receive(await read_message(stream, MAX_MESSAGE), trio.current_time())
        attempt.relay_rtt = machine.rtt
        try:
            judge_candidates(parts, attempt, raw, circuit, self._scope)
        except Failed:
            if parts.candidates.reachable_at(attempt.local):
                await self._invite(stream, machine)  # noqa: ASYNC120
            raise
        opening = prepare(parts, attempt, circuit, attempt.number)
        won: Won | None = None
        async with flat_nursery() as nursery:
            sync, schedule = machine.sync(trio.current_time())
            nursery.start_soon(_sync, stream, sync, schedule, opening)
            won = await opening.run()
            nursery.cancel_scope.cancel()
        return won

    async def _invite(self, stream: Stream, machine: Opener) -> None:
        """SYNC all the same: a peer that offers nothing to dial (js-libp2p at home, which tells of no observed TCP
        address) reaches us by a plain dial. Its connection cancels this run; the end of its stream means it gave up,
        or that its dial has only begun."""
        sync, _ = machine.sync(trio.current_time())
        with trio.move_on_after(self._parts.punch.attempt_timeout):
            try:
                await write_message(stream, sync)
                await stream.send_eof()
                while await stream.receive_some():
                    pass
            except NETWORK_FAILURES:
                pass  # it left the exchange; whether it dials is seen below
            await trio.sleep(self._parts.limits.settle + _DIAL_ROUND_TRIPS * (machine.rtt or 0.0))


async def _sync(stream: Stream, sync: bytes, schedule: Schedule, opening: Opening) -> None:
    """Sends SYNC and dials half a round trip later, also when the relay fails meanwhile: it did its part."""
    try:
        await write_message(stream, sync)
        await stream.aclose()
    except NETWORK_FAILURES:
        stream.reset()
    await trio.sleep_until(schedule.at)
    opening.go()
