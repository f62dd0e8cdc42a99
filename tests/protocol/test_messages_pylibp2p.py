"""Our messages are those of the libp2p specifications: py-libp2p's generated classes write and read the same bytes."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from libp2p.crypto.pb import crypto_pb2
from libp2p.identity.identify.pb import identify_pb2
from libp2p.peer.envelope import unmarshal_envelope
from libp2p.peer.pb import envelope_pb2, peer_record_pb2
from libp2p.relay.circuit_v2.pb import circuit_pb2, dcutr_pb2
from libp2p.security.noise.pb import noise_pb2

from punchbridge.identity import Identity
from punchbridge.wire import messages as pb
from punchbridge.wire.voucher import DOMAIN, seal_voucher

PAIRS: list[tuple[type[Message], type[Message]]] = [
    (pb.PublicKeyMessage, crypto_pb2.PublicKey),
    (pb.Envelope, envelope_pb2.Envelope),
    (pb.PeerRecord, peer_record_pb2.PeerRecord),
    (pb.Identify, identify_pb2.Identify),
    (pb.NoiseHandshakePayload, noise_pb2.NoiseHandshakePayload),
    (pb.HopMessage, circuit_pb2.HopMessage),
    (pb.StopMessage, circuit_pb2.StopMessage),
    (pb.Voucher, circuit_pb2.Voucher),
    (pb.HolePunch, dcutr_pb2.HolePunch),
]
LEFT_OUT = {"NoiseExtensions.3", "HopMessage.6"}
"""Fields that only py-libp2p declares: early data and the sender's record."""


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=[ours.DESCRIPTOR.name for ours, _ in PAIRS])
def test_each_side_reads_what_the_other_wrote(ours: Any, theirs: Any) -> None:
    message = ours()
    _fill(message)
    raw = message.SerializeToString(deterministic=True)
    other = theirs.FromString(raw)
    assert not other.FindInitializationErrors()
    assert other.SerializeToString(deterministic=True) == raw
    assert ours.FromString(raw) == message


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=[ours.DESCRIPTOR.name for ours, _ in PAIRS])
def test_the_fields_have_the_numbers_and_types_of_the_specification(ours: Any, theirs: Any) -> None:
    found, expected = _shape(ours.DESCRIPTOR), _shape(theirs.DESCRIPTOR)
    assert found == {place: kind for place, kind in expected.items() if place not in LEFT_OUT}


def test_zero_is_written_where_its_presence_means_something() -> None:
    """RSA is key type 0, RESERVE and CONNECT are message type 0."""
    assert pb.PublicKeyMessage(key_type=pb.KeyType.RSA, data=b"").SerializeToString() == b"\x08\x00\x12\x00"
    assert pb.HopMessage(type=pb.HopMessage.RESERVE).SerializeToString() == b"\x08\x00"
    assert pb.StopMessage(type=pb.StopMessage.CONNECT).SerializeToString() == b"\x08\x00"
    assert pb.Limit(duration=0, data=0).SerializeToString() == b"\x08\x00\x10\x00"


def test_py_libp2p_verifies_our_envelope() -> None:
    relay, peer = Identity.generate(), Identity.generate()
    envelope = unmarshal_envelope(seal_voucher(relay, peer.peer_id, 1_800_000_000))
    envelope.validate(DOMAIN)
    assert envelope.payload_type == bytes([0x03, 0x02])
    voucher = pb.Voucher.FromString(envelope.raw_payload)
    assert (voucher.relay, voucher.peer) == (relay.peer_id.to_bytes(), peer.peer_id.to_bytes())


def test_our_names_do_not_collide_with_those_of_py_libp2p() -> None:
    """Both are in the one descriptor pool of this process."""
    assert {ours.DESCRIPTOR.file.package for ours, _ in PAIRS} == {"punchbridge.wire"}


def _fill(message: Any) -> None:
    """Gives every field a value, repeated ones two."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None:
            if field.is_repeated:
                _fill(getattr(message, field.name).add())
            else:
                _fill(getattr(message, field.name))
            continue
        value: Any = {
            FieldDescriptor.CPPTYPE_STRING: b"bytes" if field.type == FieldDescriptor.TYPE_BYTES else "text",
            FieldDescriptor.CPPTYPE_ENUM: field.enum_type.values[-1].number if field.enum_type else 0,
        }.get(field.cpp_type, 7)
        if field.is_repeated:
            getattr(message, field.name).extend([value, value])
        else:
            setattr(message, field.name, value)


def _shape(descriptor: Descriptor) -> dict[str, tuple[Any, ...]]:
    """Wire type, repetition and enum values of each field, by message name and number, submessages included."""
    out: dict[str, tuple[Any, ...]] = {}
    for field in descriptor.fields:
        enum = field.enum_type
        # py-libp2p's key enumeration has two values more than the specification.
        values = tuple(sorted(value.number for value in enum.values)) if enum and enum.name != "KeyType" else ()
        repeated = field.is_repeated
        out[f"{descriptor.name}.{field.number}"] = (field.type, repeated, values)
        if field.message_type is not None:
            out |= _shape(field.message_type)
    return out
