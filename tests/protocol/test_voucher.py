"""Signed envelopes and reservation vouchers: what is accepted, what is refused and why, and any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.errors import ProtocolViolation
from punchbridge.identity import Identity
from punchbridge.keys import MAX_IDENTITY_KEY, KeyKind
from punchbridge.wire import messages as pb
from punchbridge.wire.circuit import U64_MAX
from punchbridge.wire.envelope import seal, unseal
from punchbridge.wire.voucher import CLOCK_SKEW, DOMAIN, PAYLOAD_TYPE, open_voucher, seal_voucher
from tests.support.identities import KINDS, identity_of

RELAY = Identity.generate()
PEER = Identity.generate()
OTHER = Identity.generate()
NOW = 1_800_000_000
VALID = seal_voucher(RELAY, PEER.peer_id, NOW + 3600)


def _open(raw: bytes, relay: Identity = RELAY, peer: Identity = PEER, now: float = NOW) -> int:
    return open_voucher(raw, relay=relay.peer_id, peer=peer.peer_id, now=now).expiration


def _voucher(relay: Identity, peer: Identity) -> bytes:
    message = pb.Voucher(relay=relay.peer_id.to_bytes(), peer=peer.peer_id.to_bytes(), expiration=NOW + 1)
    return message.SerializeToString()


def test_a_voucher_opens_for_whom_it_was_made() -> None:
    assert _open(VALID) == NOW + 3600


@pytest.mark.parametrize("kind", KINDS)
def test_a_relay_of_any_kind_of_key_is_believed(kind: KeyKind) -> None:
    relay, other = identity_of(kind), identity_of(kind, 1)
    assert _open(seal_voucher(relay, PEER.peer_id, NOW + 1), relay) == NOW + 1
    with pytest.raises(ProtocolViolation, match="not of"):
        _open(seal_voucher(other, PEER.peer_id, NOW + 1), relay)


def test_the_payload_is_canonical() -> None:
    payload = unseal(VALID, DOMAIN, {PAYLOAD_TYPE}).payload
    relay, peer = RELAY.peer_id.to_bytes(), PEER.peer_id.to_bytes()
    assert payload.startswith(b"\x0a" + bytes([len(relay)]) + relay + b"\x12" + bytes([len(peer)]) + peer + b"\x18")


@pytest.mark.parametrize(
    ("raw", "phrase"),
    [
        (b"", "payload type none"),
        (seal_voucher(OTHER, PEER.peer_id, NOW + 9), "not of"),
        (seal_voucher(RELAY, OTHER.peer_id, NOW + 9), "not for"),
        (seal_voucher(RELAY, PEER.peer_id, NOW - CLOCK_SKEW - 1), "expired"),
        (seal(OTHER, DOMAIN, PAYLOAD_TYPE, _voucher(RELAY, PEER)), "another relay"),
        (seal(RELAY, "libp2p-peer-record", PAYLOAD_TYPE, _voucher(RELAY, PEER)), "signature is wrong"),
        (seal(RELAY, DOMAIN, b"\x03\x01", _voucher(RELAY, PEER)), "payload type 0301"),
        (seal(RELAY, DOMAIN, PAYLOAD_TYPE, b"\xff\xff"), "no voucher"),
        (seal(RELAY, DOMAIN, PAYLOAD_TYPE, b""), "peer id of 0 bytes"),
    ],
    ids=["empty", "relay", "peer", "expired", "signer", "domain", "type", "garbage", "no fields"],
)
def test_refused_with_the_reason(raw: bytes, phrase: str) -> None:
    with pytest.raises(ProtocolViolation, match=phrase):
        _open(raw)


def test_r14_the_far_end_of_time_is_accepted() -> None:
    assert _open(seal_voucher(RELAY, PEER.peer_id, U64_MAX)) == U64_MAX
    assert _open(seal_voucher(RELAY, PEER.peer_id, 2**80)) == U64_MAX


def test_a_small_clock_difference_is_tolerated() -> None:
    assert _open(seal_voucher(RELAY, PEER.peer_id, NOW - CLOCK_SKEW)) == NOW - CLOCK_SKEW


@given(st.integers(0, len(VALID) - 1), st.integers(1, 255))
def test_no_changed_byte_is_accepted_as_another_voucher(position: int, flip: int) -> None:
    damaged = bytearray(VALID)
    damaged[position] ^= flip
    try:
        assert _open(bytes(damaged)) == NOW + 3600
    except ProtocolViolation:
        pass


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_a_typed_error(raw: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        _open(raw)


@given(st.integers(0, 6), st.binary(min_size=1, max_size=120))
def test_any_public_key_is_refused_with_a_typed_error(kind: int, key: bytes) -> None:
    envelope = pb.Envelope(payload_type=PAYLOAD_TYPE, payload=_voucher(RELAY, PEER), signature=b"s" * 64)
    envelope.public_key.ParseFromString(bytes([0x08, kind, 0x12, len(key)]) + key)
    with pytest.raises(ProtocolViolation):
        _open(envelope.SerializeToString())


def test_an_oversized_key_is_refused_before_it_is_parsed() -> None:
    envelope = pb.Envelope(payload_type=PAYLOAD_TYPE, payload=b"", signature=b"s")
    envelope.public_key.data = b"\x30" * MAX_IDENTITY_KEY
    with pytest.raises(ProtocolViolation, match=f"{MAX_IDENTITY_KEY + 3} bytes, the limit"):
        _open(envelope.SerializeToString())
