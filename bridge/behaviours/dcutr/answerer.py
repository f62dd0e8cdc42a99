"""The side that dialled over the relay (A in the specs): answers CONNECT, dials on SYNC.

One call serves one exchange on its stream. Whether the stream is welcome at all is decided before.
"""

from __future__ import annotations

import trio

from punchbridge.behaviours.dcutr.attempts import Attempt, Won, failed, succeeded
from punchbridge.behaviours.dcutr.both import is_ours
from punchbridge.behaviours.dcutr.exchange import Failed, Parts, judge_candidates, prepare, sorted_errors
from punchbridge.behaviours.dcutr.explain import explain
from punchbridge.behaviours.dcutr.record import Active
from punchbridge.reach.punching import Exchange, PunchOutcome
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.tasks.nurseries import flat_nursery
from punchbridge.transport.base import Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.verdict import Code
from punchbridge.wire.dcutr import Answerer, Schedule
from punchbridge.wire.messages import MAX_MESSAGE

__all__ = ["answer"]


async def answer(parts: Parts, stream: Stream, exchange: Exchange, active: Active) -> PunchOutcome:
    """Serves one exchange; events tell both its ends. The attempt is noted in `active`.

    The stream is closed or reset at the end. Raises nothing but cancellation.
    """
    circuit = stream.connection
    began, run = trio.current_time(), exchange.run.id
    attempt = Attempt(circuit.peer, "responder", exchange.attempt, began, run=run, spent=active.spent)
    active.attempt = attempt
    try:
        with sorted_errors(circuit):
            won = await _exchange(parts, stream, attempt, exchange.number)
        return succeeded(parts.swarm, attempt, won)
    except Failed as failure:
        stream.reset()
        attempt.detail = failure.detail or attempt.detail
        # The opener goes on, also when we had nothing to offer: our address may be known by its next attempt.
        final = exchange.attempt >= parts.punch.attempts or failure.code is Code.RELAY_LOST
        # Ours begin another run by themselves; go-libp2p and rust-libp2p punch once on a circuit.
        follows = final and not circuit.closed.is_set() and is_ours(circuit)
        retry_in = exchange.pause if follows else None
        return failed(parts.swarm, attempt, failure.code, final=final, retry_in=retry_in)
    except BaseException:  # cancelled: the peer must not wait for the rest of the exchange
        stream.reset()
        raise


async def _exchange(parts: Parts, stream: Stream, attempt: Attempt, number: int) -> Won:
    circuit = stream.connection
    scope = parts.candidates.scope_for(circuit)
    machine = Answerer()
    with trio.fail_after(parts.limits.exchange_timeout):
        raw = machine.receive(await read_message(stream, MAX_MESSAGE), trio.current_time())
    attempt.began = trio.current_time()
    assert not isinstance(raw, Schedule)
    attempt.local = await parts.candidates.wait_own(scope)
    if not attempt.local:
        with trio.fail_after(parts.limits.exchange_timeout):  # an empty list tells the peer more than a reset
            await write_message(stream, machine.answer(()))
        await _close(stream)
        raise Failed(Code.NO_CANDIDATES)
    judge_candidates(parts, attempt, raw, circuit, scope)
    opening = prepare(parts, attempt, circuit, number)
    failures: list[Failed] = []
    won: Won | None = None
    async with flat_nursery() as nursery:
        reply = machine.answer(attempt.local)

        async def until_sync() -> None:
            try:
                with sorted_errors(circuit):
                    with trio.fail_after(parts.limits.exchange_timeout):
                        await _await_sync(stream, machine, reply)
            except Failed as failure:
                failures.append(failure)
                nursery.cancel_scope.cancel()
            else:
                opening.go()

        nursery.start_soon(until_sync)
        won = await opening.run()
        nursery.cancel_scope.cancel()
    if won is not None:
        stream.reset() if failures else await _close(stream)
        return won
    if failures:
        raise failures[0]
    raise Failed(await explain(attempt, parts.swarm.observed, parts.observer, parts.other))


async def _await_sync(stream: Stream, machine: Answerer, reply: bytes) -> None:
    await write_message(stream, reply)
    machine.receive(await read_message(stream, MAX_MESSAGE), trio.current_time())


async def _close(stream: Stream) -> None:
    try:
        await stream.aclose()
    except NETWORK_FAILURES:
        stream.reset()
