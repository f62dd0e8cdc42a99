"""What an attacker asks of a relay, and what it answers as the target of a circuit."""

from __future__ import annotations

import os

from punchbridge.identity import parse_peer_id
from punchbridge.wire import varint
from punchbridge.wire.circuit import (
    HOP,
    Answer,
    Connect,
    decode_hop_answer,
    decode_stop_request,
    encode_hop_connect,
    encode_reserve,
    encode_stop_answer,
)
from punchbridge.yamux.frames import DATA
from tests.attacks.attacker import Attacker
from tests.attacks.wire import Ended, Stream

__all__ = ["accept_circuit", "circuit", "reserve", "session_id", "through"]


async def reserve(connection: Attacker) -> Answer:
    """Asks a relay for a reservation. Raises Ended."""
    stream = await connection.open(HOP, varint.prefixed(encode_reserve()))
    return decode_hop_answer(await stream.message())


async def circuit(connection: Attacker, target: str) -> tuple[Stream, int]:
    """Asks a relay for a circuit to a peer id: the stream and the status. Raises Ended."""
    stream = await connection.open(HOP, varint.prefixed(encode_hop_connect(parse_peer_id(target))))
    return stream, decode_hop_answer(await stream.message()).status


async def through(connection: Attacker, target: str) -> Attacker:
    """A connection to the target over a circuit of `connection`, which has to run. Raises Ended when it is refused."""
    stream, status = await circuit(connection, target)
    if status != 100:
        raise Ended(f"the circuit was refused with {status}")
    return await Attacker.over(stream, connection.identity)


async def accept_circuit(stream: Stream) -> Connect:
    """As the target: takes a circuit that the relay offers on a stop stream; the circuit's bytes come next."""
    offered = decode_stop_request(await stream.message())
    answer = varint.prefixed(encode_stop_answer(100))
    await stream.frame(DATA, 0, len(answer), answer)
    return offered


def session_id() -> bytes:
    return os.urandom(16)
