"""Identify: the message that two peers tell each other about themselves, and merging what arrives.

specs/identify; rules I1 to I6 of docs/wire-rules.md. Pure: bytes in, values out. What arrives is a stranger's text, so
it is bounded and stripped of control characters here, and no address in it is trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from punchbridge.addresses import Multiaddr, decode
from punchbridge.errors import ProtocolViolation
from punchbridge.identity import Identity, PeerId
from punchbridge.wire.messages import MAX_MESSAGE, DecodeError, Identify
from punchbridge.wire.multistream import MAX_MULTISTREAM_LINE

__all__ = [
    "IDENTIFY",
    "MAX_IDENTIFY_ADDRS",
    "MAX_IDENTIFY_PROTOCOLS",
    "PROTOCOL_VERSION",
    "PUSH",
    "IdentifyInfo",
    "IdentifyUpdate",
    "decode_update",
    "encode_info",
]

IDENTIFY: Final = "/ipfs/id/1.0.0"
PUSH: Final = "/ipfs/id/push/1.0.0"
PROTOCOL_VERSION: Final = "ipfs/0.1.0"
_MAX_AGENT: Final = 256

MAX_IDENTIFY_ADDRS: Final = 64
"""Addresses that are told, and taken from one message; reading so many takes 4 ms."""

MAX_IDENTIFY_PROTOCOLS: Final = 256
"""Protocol ids that are taken from one message."""


@dataclass(frozen=True)
class IdentifyInfo:
    """What is known of a peer. `observed`: our address as the peer sees it."""

    agent: str = ""
    protocols: tuple[str, ...] = ()
    listen: tuple[Multiaddr, ...] = ()
    observed: Multiaddr | None = None
    protocol_version: str = ""


@dataclass(frozen=True)
class IdentifyUpdate:
    """One message; None stands for a field that was not sent."""

    agent: str | None = None
    protocols: tuple[str, ...] | None = None
    listen: tuple[Multiaddr, ...] | None = None
    observed: Multiaddr | None = None
    protocol_version: str | None = None

    def merged_into(self, old: IdentifyInfo | None) -> IdentifyInfo:
        """The old knowledge with what this message says; what it leaves out keeps its old value (I1)."""
        old = old or IdentifyInfo()
        return IdentifyInfo(
            agent=old.agent if self.agent is None else self.agent,
            protocols=old.protocols if self.protocols is None else self.protocols,
            listen=old.listen if self.listen is None else self.listen,
            observed=old.observed if self.observed is None else self.observed,
            protocol_version=old.protocol_version if self.protocol_version is None else self.protocol_version,
        )


def encode_info(
    identity: Identity,
    *,
    agent: str,
    protocols: Sequence[str],
    listen: Iterable[Multiaddr],
    observed: Multiaddr | None,
) -> bytes:
    """Our message, below MAX_MESSAGE bytes (I4: rust reads no more): what does not fit is left out, last first.

    `observed` is the asking peer's address as we see it; None on a circuit (I2).
    """
    message = Identify(
        public_key=identity.public_key.serialize(), agent_version=agent[:_MAX_AGENT], protocol_version=PROTOCOL_VERSION
    )
    if observed is not None:
        message.observed_addr = observed.to_bytes()
    room = MAX_MESSAGE - 1 - message.ByteSize()
    for protocol in protocols:
        room -= _field_size(len(protocol.encode()))
        if room < 0:
            break
        message.protocols.append(protocol)
    for addr in listen:
        raw = addr.to_bytes()
        room -= _field_size(len(raw))
        if room < 0:
            break
        message.listen_addrs.append(raw)
    return bytes(message.SerializeToString())


def _field_size(content: int) -> int:
    """Tag, length and content of a repeated field with a number below 16."""
    return 1 + (1 if content < 0x80 else 2) + content


def decode_update(raw: bytes, peer: PeerId) -> IdentifyUpdate:
    """Reads a message from `peer`. Malformed addresses and unprintable ids are skipped.

    Raises ProtocolViolation when it is no Identify message, or carries the key of somebody else (I6).
    """
    try:
        message = Identify.FromString(raw)
        if message.public_key and PeerId.of_key(message.public_key) != peer:
            raise ProtocolViolation("the identify message carries another peer's key")
        protocols = tuple(_printable(message.protocols, MAX_IDENTIFY_PROTOCOLS))
        agent = _clean(message.agent_version) if message.HasField("agent_version") else None
        version = _clean(message.protocol_version) if message.HasField("protocol_version") else None
    except (DecodeError, UnicodeDecodeError, ValueError) as problem:
        raise ProtocolViolation(f"not an identify message ({problem})") from None
    addrs = [decode(item) for item in message.listen_addrs[:MAX_IDENTIFY_ADDRS]]
    listen = tuple(dict.fromkeys(addr for addr in addrs if addr is not None))
    return IdentifyUpdate(
        agent=agent,
        protocols=protocols or None,
        listen=listen if message.listen_addrs else None,
        observed=decode(message.observed_addr) if message.observed_addr else None,
        protocol_version=version,
    )


def _printable(texts: Iterable[str], limit: int) -> Iterable[str]:
    good = (text for text in map(_text, texts) if text and len(text) <= MAX_MULTISTREAM_LINE and text.isprintable())
    return list(dict.fromkeys(good))[:limit]


def _clean(text: str) -> str:
    """Without what could move a terminal's cursor or fill a log line."""
    return "".join(char for char in _text(text)[:_MAX_AGENT] if char.isprintable())


def _text(value: str | bytes) -> str:
    """The proto2 runtime hands over a string field that is not UTF-8 as bytes."""
    if isinstance(value, bytes):
        raise ValueError("a text field is not UTF-8")
    return value
