"""The two requests of a relay's client, each on a stream of its own: RESERVE, and CONNECT to a target.

Statuses other than OK become RelayRefused with a text that says what to do. It keeps nothing between two requests.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio

from punchbridge.addresses import Multiaddr, endpoint_of, is_public, is_relayed, is_spoken, peer_of, with_peer
from punchbridge.errors import DialTimeout, NegotiationFailed, ProtocolViolation, RelayRefused
from punchbridge.identity import PeerId, peer_text
from punchbridge.reach.candidates import Scope
from punchbridge.transport.base import Connection, Stream
from punchbridge.transport.delimited import read_message, write_message
from punchbridge.wire.circuit import (
    HOP,
    Answer,
    CircuitLimit,
    Grant,
    Status,
    decode_hop_answer,
    encode_hop_connect,
    encode_reserve,
    status_name,
)
from punchbridge.wire.voucher import open_voucher

T = TypeVar("T")

_RESERVE_HINTS = {
    Status.RESERVATION_REFUSED: "it is full, or was asked too often; wait, or use another relay",
    Status.RESOURCE_LIMIT_EXCEEDED: "it has no resources left; wait, or use another relay",
    Status.PERMISSION_DENIED: "its access rules exclude this peer; ask its operator, or use another relay",
    Status.CONNECTION_FAILED: "it failed inside; look at its log, or use another relay",
}
_CONNECT_HINTS = {
    Status.NO_RESERVATION: "the listener has no reservation at this relay; start it, or check the peer id",
    Status.RESOURCE_LIMIT_EXCEEDED: "the relay carries too many circuits or was asked too often; wait and try again",
    Status.PERMISSION_DENIED: "the relay's access rules exclude this peer; ask its operator, or use another relay",
    Status.CONNECTION_FAILED: "the relay could not reach the listener; check that it still runs, and try again",
}


@dataclass(frozen=True)
class Reservation:
    """A slot at a relay. `addrs`: our circuit addresses through it; `expires`: UTC seconds, any u64;
    `limit`: what each circuit may carry (None: unlimited)."""

    relay: PeerId
    addrs: tuple[Multiaddr, ...]
    expires: int
    limit: CircuitLimit | None = None


async def request_reservation(
    connection: Connection, me: PeerId, known: Sequence[Multiaddr], *, allow_private: bool, seconds: float
) -> Reservation:
    """RESERVE on a direct connection to a relay, which has `seconds` to answer. `known`: the relay's addresses that our
    user gave, announced first.

    Raises RelayRefused, NegotiationFailed (not a relay), ProtocolViolation (bad answer or voucher), DialTimeout, or
    what the stream raises. A cancelled call resets the stream; the relay may then hold a reservation unknown to us.
    """

    async def ask(stream: Stream) -> Answer:
        await write_message(stream, encode_reserve())
        answer = decode_hop_answer(await read_message(stream))
        await stream.aclose()
        return answer

    answer = await _exchange(connection, ask, seconds, "RESERVE")
    relay = connection.peer
    if answer.status != Status.OK:
        name = status_name(answer.status)
        hint = _RESERVE_HINTS.get(answer.status, "use another relay")  # type: ignore[call-overload]
        raise RelayRefused(f"relay {peer_text(relay)} refused the reservation ({name}): {hint}", name)
    if answer.grant is None:
        raise ProtocolViolation(f"relay {peer_text(relay)} answered OK without a reservation")
    grant = answer.grant
    if grant.voucher:  # rust-libp2p gives none
        open_voucher(grant.voucher, relay=relay, peer=me, now=time.time())
    here = endpoint_of(connection.remote)
    scope = Scope.chosen(allow_private, on_machine=here is not None and here.on_loopback)
    addrs = circuit_addrs(grant, relay, me, known, scope)
    return Reservation(relay, addrs, grant.expire, answer.limit)


async def request_circuit(connection: Connection, target: PeerId, *, seconds: float) -> tuple[Stream, Answer]:
    """CONNECT: the stream returned is the circuit; bytes that came behind the status are still in it (R11).

    Raises RelayRefused with the relay's status, and else as request_reservation does. Cancelled: the stream is reset.
    """

    async def ask(stream: Stream) -> tuple[Stream, Answer]:
        await write_message(stream, encode_hop_connect(target))
        answer = decode_hop_answer(await read_message(stream))
        if answer.status != Status.OK:
            name = status_name(answer.status)
            hint = _CONNECT_HINTS.get(answer.status, "use another relay")  # type: ignore[call-overload]
            raise RelayRefused(
                f"relay {peer_text(connection.peer)} opened no circuit to {peer_text(target)} ({name}): {hint}", name
            )
        return stream, answer

    return await _exchange(connection, ask, seconds, "CONNECT")


async def _exchange(connection: Connection, ask: Callable[[Stream], Awaitable[T]], seconds: float, what: str) -> T:
    stream: Stream | None = None
    relay = peer_text(connection.peer)
    try:
        with trio.move_on_after(seconds):
            stream = await connection.open_stream([HOP], lazy=True)
            return await ask(stream)
    except NegotiationFailed:
        _abort(stream)
        raise NegotiationFailed(
            f"{relay} is no circuit relay (v2): it does not accept {HOP}; give the address that a relay printed"
        ) from None
    except BaseException:  # cancelled, or a defect: nobody else knows the stream
        _abort(stream)
        raise
    _abort(stream)
    raise DialTimeout(f"relay {relay} did not answer {what} within {seconds:g} s; use another relay")


def _abort(stream: Stream | None) -> None:
    if stream is not None:
        stream.abort()


def circuit_addrs(
    grant: Grant, relay: PeerId, me: PeerId, known: Sequence[Multiaddr], scope: Scope
) -> tuple[Multiaddr, ...]:
    """Our circuit addresses: through the addresses that we know, then through those that the relay names (R2).

    A relay may name anything, so only direct addresses of its own id are kept that are public or in the scope.
    """
    bases: dict[Multiaddr, None] = {with_peer(addr, relay): None for addr in known}
    for addr in grant.addrs:
        if is_relayed(addr) or not is_spoken(addr) or peer_of(addr) not in (None, relay):
            continue
        if is_public(addr) or _allowed(addr, scope):
            bases[with_peer(addr, relay)] = None
    return tuple(base.encapsulate(f"/p2p-circuit/p2p/{peer_text(me)}") for base in bases)


def _allowed(addr: Multiaddr, scope: Scope) -> bool:
    endpoint = endpoint_of(addr)
    numeric = endpoint is not None and endpoint.kind in ("ip4", "ip6")
    return endpoint is not None and numeric and endpoint.port != 0 and scope.allows(endpoint.ip)
