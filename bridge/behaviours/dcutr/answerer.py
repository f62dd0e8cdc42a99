"""The side that dialled over the relay (A in the specs): answers CONNECT, dials on SYNC.

One call serves one exchange on its stream. Whether the stream is welcome at all is the service's decision.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from punchbridge.behaviours.dcutr.attempt import Attempt
from punchbridge.behaviours.dcutr.books import Exchanges
from punchbridge.behaviours.dcutr.context import Facts, PunchContext, Won
from punchbridge.behaviours.dcutr.exchange import Failed, sorted_errors
from punchbridge.behaviours.dcutr.explain import evidence_for, explain
from punchbridge.behaviours.dcutr.policy import PunchOutcome
from punchbridge.errors import BridgeError
from punchbridge.limits.punch import DCUTR_EXCHANGE_TIMEOUT
from punchbridge.limits.wire import MAX_MESSAGE
from punchbridge.tasks.nurseries import flat_nursery
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.verdict import Code
from punchbridge.wire.dcutr import Answerer, Schedule, role_of

__all__ = ["answer"]


async def answer(
    context: PunchContext, stream: Stream, exchanges: Exchanges, note: Callable[[Facts], None]
) -> PunchOutcome:
    """Serves one exchange, the last that `exchanges` has counted on this relayed connection; events tell both ends.

    The stream is closed or reset at the end. Raises nothing but cancellation.
    """
    relayed = stream.connection
    policy = context.policy
    attempt = exchanges.attempt(policy)
    facts = Facts(relayed.peer, "responder", attempt, trio.current_time(), run=exchanges.run)
    note(facts)
    try:
        with sorted_errors(relayed):
            won = await _exchange(context, stream, facts, exchanges.count)
        return context.succeeded(facts, won)
    except Failed as failed:
        stream.reset()
        facts.detail = failed.detail
        final = attempt >= policy.attempts or failed.code in (Code.NO_CANDIDATES, Code.RELAY_LOST)
        follows = final and not relayed.closed.is_set() and _opens_again(relayed)
        retry_in = exchanges.pause(policy) if follows else None
        return context.failure(facts, failed.code, final=final, retry_in=retry_in)
    except BaseException:  # cancelled: the peer must not wait for the rest of the exchange
        stream.reset()
        raise


def _opens_again(relayed: Connection) -> bool:
    """True when the peer begins another run by itself. Ours do; go-libp2p and rust-libp2p punch once on a circuit."""
    told = relayed.identify
    if told is None:
        return False
    # An application may give another agent; a node of ours without sessions has no protocol of ours.
    return told.agent.startswith("punchbridge/") or any(one.startswith("/punchbridge/") for one in told.protocols)


async def _exchange(context: PunchContext, stream: Stream, facts: Facts, exchange: int) -> Won:
    relayed = stream.connection
    scope = context.scope_for(relayed)
    machine = Answerer()
    with trio.fail_after(DCUTR_EXCHANGE_TIMEOUT):
        raw = machine.receive(await read_message(stream, MAX_MESSAGE), trio.current_time())
    facts.began = trio.current_time()
    assert not isinstance(raw, Schedule)
    facts.local = await context.await_candidates(scope)
    if not facts.local:
        with trio.fail_after(DCUTR_EXCHANGE_TIMEOUT):  # an empty list tells the peer more than a reset
            await write_message(stream, machine.answer(()))
        await _close(stream)
        raise Failed(Code.NO_CANDIDATES)
    remote = context.filter(raw, relayed, scope)
    facts.remote = remote.accepted
    if not remote.accepted:
        refused = ", ".join(f"{addr} ({why.value})" for addr, why in remote.refused[:4])
        raise Failed(Code.NO_REMOTE_CANDIDATES, f"refused {refused}" if refused else "the list is empty")
    facts.evidence = evidence_for(facts.remote, context.swarm.observed)
    agent = relayed.identify.agent if relayed.identify is not None else None
    attempt = Attempt(context, relayed, role_of("responder", exchange, agent), facts)
    context.started(facts)
    failures: list[Failed] = []
    won: Won | None = None
    async with flat_nursery() as nursery:
        reply = machine.answer(facts.local)

        async def until_sync() -> None:
            try:
                with sorted_errors(relayed):
                    await _await_sync(stream, machine, reply)
            except Failed as failed:
                failures.append(failed)
                nursery.cancel_scope.cancel()
            else:
                attempt.go()

        nursery.start_soon(until_sync)
        won = await attempt.run()
        nursery.cancel_scope.cancel()
    if won is not None:
        stream.reset() if failures else await _close(stream)
        return won
    raise (
        failures[0]
        if failures
        else Failed(await explain(facts.evidence, facts.remote, context.swarm.observed, context.observer))
    )


async def _await_sync(stream: Stream, machine: Answerer, reply: bytes) -> None:
    with trio.fail_after(DCUTR_EXCHANGE_TIMEOUT):
        await write_message(stream, reply)
        machine.receive(await read_message(stream, MAX_MESSAGE), trio.current_time())


async def _close(stream: Stream) -> None:
    try:
        await stream.aclose()
    except (BridgeError, OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        stream.reset()
