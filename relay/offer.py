"""The stop exchange with the target of a circuit (R10), on the connection to it that is likeliest to be alive.

Knows nothing of slots, limits and reservations: what it is asked to offer has been admitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from punchbridge.addresses import Multiaddr
from punchbridge.identity import PeerId
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.tasks.signal import Signal
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.wire.circuit import STOP, CircuitLimit, Status, decode_stop_answer, encode_stop_connect
from punchbridge_relay.circuits import Circuit
from punchbridge_relay.limits import HopLimits
from punchbridge_relay.refusal import HopRefusal

__all__ = ["Offers"]


class Offers:
    """`direct`: the live direct connections of a peer, newest first. `limit`: what every offer tells. `hop`:
    how long targets are waited for."""

    def __init__(
        self, direct: Callable[[PeerId], Sequence[Connection]], limit: CircuitLimit | None, hop: HopLimits
    ) -> None:
        self._direct = direct
        self._open, self._answer = hop.stop_open_timeout, hop.stop_answer_timeout
        self._limit = limit
        self._waiting: dict[PeerId, set[Signal]] = {}

    def arrived(self, peer: PeerId) -> None:
        """A direct connection of this peer was opened."""
        for signal in self._waiting.get(peer, ()):
            signal.notify()

    async def make(self, circuit: Circuit, seen: Multiaddr) -> Stream:
        """The stream on which the target accepted. It is told where its source was `seen`.

        The newest connection is asked. When another one comes while it is silent, that one is: a NAT that lost its
        state leaves the old ones dead, and the peer notices long before our keepalive does. Raises HopRefusal
        CONNECTION_FAILED. Cancelled, the stream is reset.
        """
        came = Signal()
        waiting = self._waiting.setdefault(circuit.target, set())
        waiting.add(came)
        try:
            with trio.move_on_after(self._open + self._answer):
                while True:
                    number = came.number
                    connections = self._direct(circuit.target)
                    if not connections:
                        raise HopRefusal(Status.CONNECTION_FAILED, "connect_target_gone")
                    stream = await self._until(came, number, connections[0], circuit, seen)
                    if stream is not None:
                        return stream
        finally:
            waiting.discard(came)
            if not waiting:
                self._waiting.pop(circuit.target, None)
        raise HopRefusal(Status.CONNECTION_FAILED, "connect_target_failed")

    async def _until(
        self, came: Signal, number: int, connection: Connection, circuit: Circuit, seen: Multiaddr
    ) -> Stream | None:
        """The accepted stream, or None as soon as a later connection is there to ask."""
        found: list[Stream] = []
        refusal: list[HopRefusal] = []

        async def ask() -> None:
            try:
                found.append(await self._ask(connection, circuit, seen))
            except HopRefusal as problem:
                refusal.append(problem)
            nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await came.beyond(number)
                nursery.cancel_scope.cancel()
        except BaseException:
            for stream in found:
                stream.abort()
            raise
        if refusal and came.number == number:
            raise refusal[0]
        return found[0] if found else None

    async def _ask(self, connection: Connection, circuit: Circuit, seen: Multiaddr) -> Stream:
        stream: Stream | None = None
        try:
            with trio.fail_after(self._open):
                stream = await connection.open_stream([STOP], lazy=True)
            with trio.fail_after(self._answer):
                await write_message(stream, encode_stop_connect(circuit.source, self._limit, seen=seen))
                answer = decode_stop_answer(await read_message(stream))
        except NETWORK_FAILURES:
            _abort(stream)
            raise HopRefusal(Status.CONNECTION_FAILED, "connect_target_failed") from None
        except BaseException:
            _abort(stream)
            raise
        if answer.status != Status.OK:
            stream.abort()
            raise HopRefusal(Status.CONNECTION_FAILED, "connect_target_refused")
        return stream


def _abort(stream: Stream | None) -> None:
    if stream is not None:
        stream.abort()
