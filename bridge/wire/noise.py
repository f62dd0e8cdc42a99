"""Noise XX as libp2p uses it: the handshake with its signed payload, and the transport messages after it.

Bytes in, bytes out. The XX pattern itself is noiseprotocol's; the transport cipher works on its finished keys
directly, one AEAD call for each message. Opens no socket and knows no deadline. Spec: libp2p/specs noise,
noiseprotocol.org sections 3 and 5.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from noise.connection import Keypair, NoiseConnection
from noise.exceptions import NoiseHandshakeError, NoiseInvalidMessage, NoiseValueError

from punchbridge.errors import AuthenticationFailed, NegotiationFailed, ProtocolViolation, WrongPeer
from punchbridge.identity import Identity, PeerId, peer_text
from punchbridge.wire.identity_key import verify_identity
from punchbridge.wire.messages import DecodeError, NoiseExtensions, NoiseHandshakePayload

NOISE = "/noise"
_NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"
_SIGNED = b"noise-libp2p-static-key:"
_TAG = 16
_MAX_NONCE = 2**64 - 1

MAX_NOISE_MESSAGE: Final = 65535
"""Noise spec, section 3; on the wire behind a length of two bytes."""

MAX_NOISE_PLAINTEXT: Final = MAX_NOISE_MESSAGE - _TAG
"""The authentication tag of ChaCha20-Poly1305 takes 16 bytes."""

MAX_EARLY_MUXERS: Final = 100
"""Longer lists in the Noise extensions are ignored, as go does."""

_nonce = struct.Struct("<4xQ").pack
_length = struct.Struct(">H").pack

_HANDSHAKE_FAULTS = (InvalidTag, ValueError, NoiseValueError, NoiseInvalidMessage, NoiseHandshakeError, IndexError)


class Sealer:
    """Encrypts one direction. `sealed` counts messages; the nonce never repeats (N9)."""

    def __init__(self, key: bytes, sealed: int = 0) -> None:
        self._encrypt = ChaCha20Poly1305(key).encrypt
        self.sealed = sealed

    def seal(self, plaintext: bytes) -> bytes:
        """One transport message with its length in front. At most 65519 bytes of plaintext (ValueError beyond).

        Raises ProtocolViolation when the nonces are used up; the connection has to end then.
        """
        number = self.sealed
        if number >= _MAX_NONCE:
            raise ProtocolViolation("the Noise nonces of this connection are used up")
        if len(plaintext) > MAX_NOISE_PLAINTEXT:
            raise ValueError(f"{len(plaintext)} bytes do not fit a Noise message")
        self.sealed = number + 1
        return _length(len(plaintext) + _TAG) + self._encrypt(_nonce(number), plaintext, None)


class Opener:
    """Decrypts the other direction: takes any pieces of the byte stream, yields whole plaintexts."""

    def __init__(self, key: bytes, pending: bytes = b"", opened: int = 0) -> None:
        self._decrypt = ChaCha20Poly1305(key).decrypt
        self._pending = pending
        self.opened = opened

    def receive(self, data: bytes) -> list[bytes]:
        """The plaintexts of all messages that are whole now. At most 65537 bytes stay behind.

        Raises AuthenticationFailed when a message was tampered with, ProtocolViolation when it is too short.
        """
        if self._pending:
            data = self._pending + data
        view, position, end, out = memoryview(data), 0, len(data), []
        number = self.opened
        while end - position >= 2:
            stop = position + 2 + (data[position] << 8 | data[position + 1])
            if stop > end:
                break
            if stop - position < 2 + _TAG:
                raise ProtocolViolation("a Noise message is shorter than its tag")
            if number >= _MAX_NONCE:
                raise ProtocolViolation("the Noise nonces of this connection are used up")
            try:
                out.append(self._decrypt(_nonce(number), view[position + 2 : stop], None))
            except InvalidTag:
                raise AuthenticationFailed("a Noise message failed its authentication") from None
            number += 1
            position = stop
        self.opened = number
        self._pending = data[position:] if position < end else b""
        return out


@dataclass(frozen=True)
class Secured:
    """A finished handshake: who the peer is, the two ciphers, and the muxer agreed early, if any.

    Ciphertext that arrived behind the handshake waits in `opener`.
    """

    peer: PeerId
    sealer: Sealer
    opener: Opener
    muxer: str | None


class Handshake:
    """One side of the XX handshake. Feed `receive` until `secured` is set; send what it returns.

    `muxers` are offered in the payload (early muxer negotiation): by the responder in message 2, by the initiator in
    message 3, and only when the responder offered some.
    """

    def __init__(
        self,
        identity: Identity,
        role: Literal["initiator", "responder"],
        *,
        expected: PeerId | None = None,
        muxers: tuple[str, ...] = (),
    ) -> None:
        self.secured: Secured | None = None
        self._identity, self._initiator, self._expected, self._muxers = identity, role == "initiator", expected, muxers
        self._buffer = bytearray()
        self._messages = 0
        static = X25519PrivateKey.generate()  # N10: never stored, fresh for each connection
        self._static_public = static.public_key().public_bytes_raw()
        self._noise = NoiseConnection.from_name(_NAME)
        self._noise.set_keypair_from_private_bytes(Keypair.STATIC, static.private_bytes_raw())
        if self._initiator:
            self._noise.set_as_initiator()
        else:
            self._noise.set_as_responder()
        self._noise.start_handshake()
        self._state = self._noise.noise_protocol.handshake_state  # noiseprotocol drops it after the last message

    def start(self) -> bytes:
        """Message 1 of the initiator, without payload (N7); nothing for the responder."""
        return self._write(b"") if self._initiator else b""

    def receive(self, data: bytes) -> bytes:
        """Takes what arrived, returns what to send.

        Raises AuthenticationFailed (bad signature, key or tag), WrongPeer (another identity than expected),
        NegotiationFailed (both sides offer muxers, none in common) and ProtocolViolation.
        """
        self._buffer += data
        out = b""
        while self.secured is None and len(self._buffer) >= 2:
            stop = 2 + (self._buffer[0] << 8 | self._buffer[1])
            if len(self._buffer) < stop:
                break
            message = bytes(self._buffer[2:stop])
            del self._buffer[:stop]
            out += self._message(message)
        return out

    def _message(self, message: bytes) -> bytes:
        try:
            payload = bytes(self._noise.read_message(message))
        except _HANDSHAKE_FAULTS as problem:
            name = type(problem).__name__
            raise AuthenticationFailed(f"the Noise handshake failed at message {self._messages + 1} ({name})") from None
        self._messages += 1
        if self._messages == 1 and not self._initiator:
            # What an initiator puts into message 1 is unauthenticated: dropped unread (N7).
            return self._write(self._payload(self._muxers))
        peer, offered = self._verify(payload)
        muxer = self._choose(offered)
        out = b""
        if self._initiator:
            out = self._write(self._payload((muxer,) if muxer else ()))
        protocol = self._noise.noise_protocol
        self.secured = Secured(
            peer,
            Sealer(bytes(protocol.cipher_state_encrypt.k)),
            Opener(bytes(protocol.cipher_state_decrypt.k), bytes(self._buffer)),
            muxer,
        )
        self._buffer.clear()
        return out

    def _write(self, payload: bytes) -> bytes:
        try:
            message = bytes(self._noise.write_message(payload))
        except _HANDSHAKE_FAULTS as problem:
            name = type(problem).__name__
            raise AuthenticationFailed(f"the peer sent a bad Noise key ({name})") from None
        if len(message) > MAX_NOISE_MESSAGE:
            raise ValueError(f"a Noise handshake message of {len(message)} bytes")
        self._messages += 1
        return _length(len(message)) + message

    def _payload(self, muxers: tuple[str, ...]) -> bytes:
        return bytes(
            NoiseHandshakePayload(
                identity_key=self._identity.public_key.serialize(),
                identity_sig=self._identity.sign(_SIGNED + self._static_public),
                extensions=NoiseExtensions(stream_muxers=muxers) if muxers else None,
            ).SerializeToString()
        )

    def _verify(self, raw: bytes) -> tuple[PeerId, tuple[str, ...]]:
        """N6: the signature over the static key seen in this handshake first, then the peer id."""
        try:
            payload = NoiseHandshakePayload.FromString(raw)
        except DecodeError:
            raise ProtocolViolation("the Noise handshake payload is malformed") from None
        remote = self._state.rs.public_bytes
        peer = verify_identity(payload.identity_key, payload.identity_sig, _SIGNED + remote)
        if self._expected is not None and peer != self._expected:
            raise WrongPeer(
                f"dialled {peer_text(self._expected)}, but the peer proved to be {peer_text(peer)}; check the /p2p/ID"
            )
        offered = tuple(payload.extensions.stream_muxers)
        return peer, offered if len(offered) <= MAX_EARLY_MUXERS else ()

    def _choose(self, offered: tuple[str, ...]) -> str | None:
        """The first of the initiator's list that both have; None when one side sent no list."""
        if not offered or not self._muxers:
            return None
        ours, theirs = (self._muxers, offered) if self._initiator else (offered, self._muxers)
        chosen = next((muxer for muxer in ours if muxer in theirs), None)
        if chosen is None:
            raise NegotiationFailed(f"no muxer in common: the peer offers {', '.join(offered)[:200]}")
        return chosen
