"""multistream-select 1.0.0 in one flight: the proposing and the answering side of one negotiation.

Bytes in, bytes out; what follows the agreed protocol in the same flight is kept in `leftover`. Knows neither the
stream it runs on nor what the protocols mean. Spec: libp2p/specs connections, and multiformats/multistream-select.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from punchbridge.errors import NegotiationFailed, ProtocolViolation
from punchbridge.wire import varint

MULTISTREAM = "/multistream/1.0.0"
NOT_AVAILABLE = "na"

MAX_MULTISTREAM_LINE: Final = 1024
"""A protocol id. rust reads at most 16383."""

MAX_PROPOSALS: Final = 64
"""Protocols refused on one stream before the proposer is cut off."""


def line(text: str) -> bytes:
    """One message: length (the newline included), text, newline."""
    return varint.prefixed(text.encode() + b"\n")


HEADER = line(MULTISTREAM)


class _Negotiation:
    """What both sides share: the buffer, and the header that must come first (MS1)."""

    def __init__(self) -> None:
        self.protocol: str | None = None
        self._buffer = bytearray()
        self._greeted = False

    @property
    def done(self) -> bool:
        return self.protocol is not None

    @property
    def leftover(self) -> bytes:
        """Bytes behind the negotiation; they belong to the protocol agreed on (MS3)."""
        return bytes(self._buffer)

    def _next_line(self) -> str | None:
        if not self._greeted:
            start = bytes(self._buffer[: len(HEADER)])
            if not HEADER.startswith(start):  # told at the first wrong byte: a stranger may never complete a line
                raise ProtocolViolation(f"the first multistream message begins with {start!r}, not {MULTISTREAM}")
            if len(start) < len(HEADER):
                return None
            del self._buffer[: len(HEADER)]
            self._greeted = True
        taken = varint.split(self._buffer, MAX_MULTISTREAM_LINE)
        if taken is None:
            return None
        raw, end = taken
        del self._buffer[:end]
        if not raw.endswith(b"\n"):
            raise ProtocolViolation("a multistream message does not end in a newline")
        try:
            text = raw[:-1].decode()
        except UnicodeDecodeError:
            raise ProtocolViolation("a multistream message is not UTF-8") from None
        return text


class Initiator(_Negotiation):
    """Proposes protocols in order. `start()` is sent first; the payload may follow it at once."""

    def __init__(self, proposals: Sequence[str]) -> None:
        super().__init__()
        if not proposals:
            raise ValueError("nothing to propose")
        self._proposals = tuple(proposals)
        self._index = 0

    def start(self) -> bytes:
        """Header and first proposal in one flight (MS3)."""
        return HEADER + line(self._proposals[0])

    def receive(self, data: bytes) -> bytes:
        """Takes what arrived, returns what to send: the next proposal, or nothing.

        Raises NegotiationFailed when every proposal was refused, ProtocolViolation on anything else than an answer.
        """
        self._buffer += data
        out = b""
        while not self.done:
            answer = self._next_line()
            if answer is None:
                break
            if answer == self._proposals[self._index]:
                self.protocol = answer
            elif answer == NOT_AVAILABLE:
                self._index += 1
                if self._index == len(self._proposals):
                    raise NegotiationFailed(f"the peer supports none of {', '.join(self._proposals)}")
                out += line(self._proposals[self._index])
            else:
                raise ProtocolViolation(f"the peer answered {answer[:64]!r} to a proposal")
        return out


class Responder(_Negotiation):
    """Answers proposals: echoes the first that `supported()` holds, `na` to all others (MS2, MS6, MS7).

    `on_refused` is called with each of those others.
    """

    def __init__(
        self, supported: Callable[[], Collection[str]], on_refused: Callable[[str], None] | None = None
    ) -> None:
        super().__init__()
        self._supported = supported
        self._on_refused = on_refused
        self._refused = 0

    def receive(self, data: bytes) -> bytes:
        """Takes what arrived, returns the answers to send. Raises ProtocolViolation, also after too many refusals."""
        self._buffer += data
        greeted, out = self._greeted, b""
        while not self.done:
            proposal = self._next_line()
            if proposal is None:
                break
            if proposal in self._supported():
                self.protocol = proposal
                out += line(proposal)
                break
            self._refused += 1
            if self._on_refused is not None:
                self._on_refused(proposal)
            if self._refused > MAX_PROPOSALS:
                raise ProtocolViolation(f"more than {MAX_PROPOSALS} protocols were proposed on one stream")
            out += line(NOT_AVAILABLE)
        return out if greeted or not self._greeted else HEADER + out
