"""Noise: N1 to N9 of docs/wire-rules.md, early muxers, tampering."""

from __future__ import annotations

import functools
from typing import cast

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.errors import AuthenticationFailed, NegotiationFailed, ProtocolViolation, WrongPeer
from punchbridge.identity import Identity, PeerId
from punchbridge.wire.identity_key import verify_identity
from punchbridge.wire.messages import KeyType, NoiseExtensions, NoiseHandshakePayload, PublicKeyMessage
from punchbridge.wire.noise import MAX_NOISE_PLAINTEXT, Handshake, Opener, Sealer, Secured
from punchbridge.yamux.frames import HEADER_SIZE, MAX_FRAME_PAYLOAD

YAMUX = ("/yamux/1.0.0",)
ALICE, BOB, EVE = Identity.generate(), Identity.generate(), Identity.generate()


def shake(first: Handshake, second: Handshake, step: int = 1 << 16) -> tuple[Secured, Secured]:
    """Runs a handshake, the bytes cut into pieces of `step`."""
    to_second, to_first = first.start(), b""
    while first.secured is None or second.secured is None:
        assert to_second or to_first
        for start in range(0, len(to_second), step):
            to_first += second.receive(to_second[start : start + step])
        to_second = b""
        for start in range(0, len(to_first), step):
            to_second += first.receive(to_first[start : start + step])
        to_first = b""
    return first.secured, second.secured


def pair(ours: tuple[str, ...] = YAMUX, theirs: tuple[str, ...] = YAMUX) -> tuple[Handshake, Handshake]:
    return Handshake(ALICE, "initiator", muxers=ours), Handshake(BOB, "responder", muxers=theirs)


@pytest.mark.parametrize("step", [1, 7, 1 << 16])
def test_both_sides_learn_the_peer_and_can_talk(step: int) -> None:
    first, second = shake(*pair(), step)
    assert (first.peer, second.peer) == (BOB.peer_id, ALICE.peer_id)
    for sender, receiver in ((first, second), (second, first)):
        assert receiver.opener.receive(sender.sealer.seal(b"one") + sender.sealer.seal(b"two")) == [b"one", b"two"]


def test_the_messages_on_the_wire() -> None:
    """N1, N2, N7: message 1 is a bare ephemeral key behind its length."""
    first = Handshake(ALICE, "initiator", muxers=YAMUX).start()
    assert len(first) == 34
    assert first[:2] == b"\x00\x20"


def test_ciphertext_behind_the_handshake_is_kept() -> None:
    first, second = pair()
    message_2 = second.receive(first.start())
    message_3 = first.receive(message_2)
    assert first.secured is not None
    second.receive(message_3 + first.secured.sealer.seal(b"early"))
    assert second.secured is not None
    assert second.secured.opener.receive(b"") == [b"early"]


# --- identity -----------------------------------------------------------------------------------------------


def test_the_initiator_checks_whom_it_reached() -> None:
    first = Handshake(ALICE, "initiator", expected=EVE.peer_id)
    with pytest.raises(WrongPeer, match="dialled"):
        shake(first, Handshake(BOB, "responder"))


def test_the_responder_checks_whom_it_expects() -> None:
    with pytest.raises(WrongPeer):
        shake(Handshake(ALICE, "initiator"), Handshake(BOB, "responder", expected=EVE.peer_id))
    assert shake(Handshake(ALICE, "initiator"), Handshake(BOB, "responder", expected=ALICE.peer_id))


class Liar(Handshake):
    """Sends the payload it was given."""

    forged: bytes = b""

    def _payload(self, muxers: tuple[str, ...]) -> bytes:
        return self.forged


def lied_to(payload: bytes) -> None:
    liar = Liar(EVE, "responder")
    liar.forged = payload
    shake(Handshake(ALICE, "initiator"), liar)


def test_a_stolen_public_key_is_refused() -> None:
    payload = NoiseHandshakePayload(
        identity_key=BOB.public_key.serialize(), identity_sig=EVE.sign(b"noise-libp2p-static-key:" + bytes(32))
    )
    with pytest.raises(AuthenticationFailed, match="signature is wrong"):
        lied_to(payload.SerializeToString())


def test_a_signature_over_another_static_key_is_refused() -> None:
    """A recorded payload of BOB does not fit the static key of this handshake."""
    recorded = Handshake(BOB, "responder")._payload(())
    with pytest.raises(AuthenticationFailed, match="signature is wrong"):
        lied_to(recorded)


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"", AuthenticationFailed),
        (b"\xff\xff", ProtocolViolation),
        (NoiseHandshakePayload(identity_key=b"\x08\x01").SerializeToString(), AuthenticationFailed),
        (NoiseHandshakePayload(identity_key=bytes(5000)).SerializeToString(), AuthenticationFailed),
    ],
)
def test_malformed_payloads_are_refused(payload: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        lied_to(payload)


@functools.cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def der(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def serialized(kind: int, key: bytes) -> bytes:
    return bytes(PublicKeyMessage(key_type=cast("KeyType", kind), data=key).SerializeToString())


def test_rsa_and_ecdsa_and_secp256k1_identities() -> None:
    private = rsa_key(2048)
    key = serialized(KeyType.RSA, der(private.public_key()))
    signature = private.sign(b"data", padding.PKCS1v15(), hashes.SHA256())
    assert verify_identity(key, signature, b"data") == PeerId.of_key(key)
    assert PeerId.of_key(key).to_bytes()[:2] == b"\x12\x20"
    for kind, curve in ((KeyType.ECDSA, ec.SECP256R1()), (KeyType.Secp256k1, ec.SECP256K1())):
        secret = ec.generate_private_key(curve)
        public = secret.public_key()
        compressed = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
        key = serialized(kind, der(public) if kind == KeyType.ECDSA else compressed)
        signature = secret.sign(b"data", ec.ECDSA(hashes.SHA256()))
        assert verify_identity(key, signature, b"data") == PeerId.of_key(key)
        with pytest.raises(AuthenticationFailed):
            verify_identity(key, signature, b"other data")


def test_an_ed25519_peer_id_is_the_one_of_the_identity_module() -> None:
    assert PeerId.of_key(ALICE.public_key.serialize()) == ALICE.peer_id


def test_rsa_keys_above_8192_bits_are_refused() -> None:
    """CVE-2023-39533; a public key needs no secret, any odd modulus of that size does."""
    numbers = rsa.RSAPublicNumbers(65537, (1 << 8200) + 1)
    key = serialized(KeyType.RSA, der(numbers.public_key()))
    with pytest.raises(AuthenticationFailed, match="8201 bits"):
        verify_identity(key, bytes(1025), b"data")


@pytest.mark.parametrize("exponent", [(1 << 31) + 1, (1 << 3070) + 1])
def test_rsa_keys_with_a_large_exponent_are_refused(exponent: int) -> None:
    """Whoever verifies with one works long; a stranger needs no secret to send it."""
    numbers = rsa.RSAPublicNumbers(exponent, (1 << 3071) + 1)
    key = serialized(KeyType.RSA, der(numbers.public_key()))
    with pytest.raises(AuthenticationFailed, match="exponent"):
        verify_identity(key, bytes(384), b"data")


def test_an_unknown_key_type_is_refused() -> None:
    with pytest.raises(AuthenticationFailed, match="key type"):
        verify_identity(serialized(4, bytes(32)), bytes(64), b"data")


@given(st.binary(max_size=100), st.binary(max_size=80))
def test_any_key_bytes_raise_only_the_remote_fault(key: bytes, signature: bytes) -> None:
    with pytest.raises(AuthenticationFailed):
        verify_identity(key, signature, b"data")


# --- early muxer negotiation --------------------------------------------------------------------------------


def test_the_first_of_the_initiators_list_wins() -> None:
    first, second = shake(*pair(("/x", "/b", "/a"), ("/a", "/b")))
    assert first.muxer == second.muxer == "/b"


@pytest.mark.parametrize(("ours", "theirs"), [((), YAMUX), (YAMUX, ()), ((), ())])
def test_without_a_list_of_either_side_the_muxer_is_negotiated_later(
    ours: tuple[str, ...], theirs: tuple[str, ...]
) -> None:
    first, second = shake(*pair(ours, theirs))
    assert first.muxer is None
    assert second.muxer is None


def test_no_muxer_in_common_fails() -> None:
    with pytest.raises(NegotiationFailed, match="/mplex"):
        shake(*pair(YAMUX, ("/mplex/6.7.0",)))


def test_a_list_of_more_than_100_entries_is_ignored() -> None:
    first, _ = shake(*pair(YAMUX, tuple(f"/m/{number}" for number in range(101))))
    assert first.muxer is None


def test_the_extensions_stand_in_field_4_and_2() -> None:
    extensions = NoiseExtensions(stream_muxers=YAMUX).SerializeToString()
    payload = Handshake(BOB, "responder", muxers=YAMUX)._payload(YAMUX)
    assert extensions == b"\x12\x0c/yamux/1.0.0"
    assert payload.endswith(b"\x22\x0e" + extensions)


# --- tampering ----------------------------------------------------------------------------------------------


@given(st.integers(0, 1), st.integers(2, 400), st.integers(1, 255))
def test_a_changed_handshake_message_fails(which: int, place: int, change: int) -> None:
    first, second = pair()
    message_2 = second.receive(first.start())
    if which == 0:
        changed = bytearray(message_2)
        changed[2 + place % (len(changed) - 2)] ^= change
        with pytest.raises(AuthenticationFailed):
            first.receive(bytes(changed))
        return
    changed = bytearray(first.receive(message_2))
    changed[2 + place % (len(changed) - 2)] ^= change
    with pytest.raises(AuthenticationFailed):
        second.receive(bytes(changed))


@given(st.binary(max_size=200))
def test_any_first_message_raises_only_the_remote_fault(raw: bytes) -> None:
    second = Handshake(BOB, "responder", muxers=YAMUX)
    try:
        second.receive(len(raw).to_bytes(2, "big") + raw)
    except (AuthenticationFailed, ProtocolViolation):
        pass
    assert second.secured is None


@given(st.binary(max_size=300))
def test_any_second_message_raises_only_the_remote_fault(raw: bytes) -> None:
    first = Handshake(ALICE, "initiator", muxers=YAMUX)
    first.start()
    with pytest.raises((AuthenticationFailed, ProtocolViolation)):
        first.receive(len(raw).to_bytes(2, "big") + raw)
    assert first.secured is None


@given(st.binary(max_size=300))
def test_any_payload_of_an_honest_key_raises_only_the_remote_fault(payload: bytes) -> None:
    """What is inside message 2 when everything around it is right."""
    first, second = pair()
    second._payload = lambda muxers: payload  # type: ignore[method-assign]
    with pytest.raises((AuthenticationFailed, ProtocolViolation)):
        first.receive(second.receive(first.start()))


KEY = bytes(range(32))


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_any_transport_bytes_raise_only_the_remote_fault(pieces: list[bytes]) -> None:
    opener = Opener(KEY)
    try:
        opened = [plain for piece in pieces for plain in opener.receive(piece)]
    except (AuthenticationFailed, ProtocolViolation):
        return
    assert opened == []


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 700))
def test_transport_messages_survive_any_split(messages: list[bytes], step: int) -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    raw = b"".join(map(sealer.seal, messages))
    out = []
    for start in range(0, len(raw), step):
        out += opener.receive(raw[start : start + step])
    assert out == messages


def test_a_transport_message_cannot_be_changed_replayed_or_left_out() -> None:
    sealer = Sealer(KEY)
    one, two = sealer.seal(b"one"), sealer.seal(b"two")
    for raw in (one[:-1] + bytes([one[-1] ^ 1]), one + one, two):
        with pytest.raises(AuthenticationFailed):
            Opener(KEY).receive(raw)


def test_a_message_shorter_than_its_tag_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation, match="shorter"):
        Opener(KEY).receive(b"\x00\x0f" + bytes(15))


def test_the_largest_message() -> None:
    raw = Sealer(KEY).seal(bytes(MAX_NOISE_PLAINTEXT))
    assert len(raw) == 2 + 65535
    assert Opener(KEY).receive(raw) == [bytes(MAX_NOISE_PLAINTEXT)]
    with pytest.raises(ValueError, match="do not fit"):
        Sealer(KEY).seal(bytes(MAX_NOISE_PLAINTEXT + 1))


def test_nonces_are_never_used_twice() -> None:
    """N9: 2^64 - 1 is reserved."""
    last = Sealer(KEY, sealed=2**64 - 2)
    raw = last.seal(b"last")
    with pytest.raises(ProtocolViolation, match="used up"):
        last.seal(b"too many")
    opener = Opener(KEY, opened=2**64 - 2)
    assert opener.receive(raw) == [b"last"]
    with pytest.raises(ProtocolViolation, match="used up"):
        opener.receive(raw)


def test_a_yamux_frame_of_the_largest_size_fills_one_message() -> None:
    assert HEADER_SIZE + MAX_FRAME_PAYLOAD == MAX_NOISE_PLAINTEXT
