"""Circuit v2 messages: the rules of docs/wire-rules.md that the codec decides, and any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.addresses import parse
from punchbridge.errors import ProtocolViolation
from punchbridge.identity import Identity
from punchbridge.wire import messages as pb
from punchbridge.wire.circuit import (
    MAX_RELAY_ADDRS,
    U32_MAX,
    U64_MAX,
    CircuitLimit,
    Connect,
    Grant,
    MalformedMessage,
    Reserve,
    Status,
    UnexpectedMessage,
    decode_hop_answer,
    decode_hop_request,
    decode_stop_answer,
    decode_stop_request,
    encode_hop_answer,
    encode_hop_connect,
    encode_reserve,
    encode_stop_answer,
    encode_stop_connect,
    status_name,
)

PEER = Identity.generate().peer_id
RELAY = parse("/ip4/11.0.0.1/tcp/4001")
DECODERS = [decode_hop_request, decode_hop_answer, decode_stop_request, decode_stop_answer]


def test_reserve_writes_type_zero_explicitly() -> None:
    assert encode_reserve() == bytes.fromhex("0800")
    assert encode_stop_connect(PEER).startswith(bytes.fromhex("0800"))
    assert decode_hop_request(encode_reserve()) == Reserve()


def test_connect_names_the_target() -> None:
    assert decode_hop_request(encode_hop_connect(PEER)) == Connect(PEER)


def test_r9_addresses_in_connect_are_ignored() -> None:
    raw = pb.HopMessage(
        type=pb.HopMessage.CONNECT, peer=pb.PeerId(id=PEER.to_bytes(), addrs=[b"\xff\xff", b"junk"])
    ).SerializeToString()
    assert decode_hop_request(raw) == Connect(PEER)


def test_r1_grant_and_limit_survive_the_wire() -> None:
    grant = Grant(U64_MAX, (RELAY,), b"voucher")
    answer = decode_hop_answer(encode_hop_answer(Status.OK, grant, CircuitLimit(120, 131072)))
    assert (answer.status, answer.grant, answer.limit) == (100, grant, CircuitLimit(120, 131072))


def test_f5_malformed_addresses_of_a_grant_are_skipped() -> None:
    message = pb.HopMessage(type=pb.HopMessage.STATUS, status=pb.Status.OK)
    message.reservation.expire = 5
    message.reservation.addrs.extend([b"\xff", RELAY.to_bytes(), b""])
    answer = decode_hop_answer(message.SerializeToString())
    assert answer.grant is not None
    assert answer.grant.addrs == (RELAY,)


def test_f6_the_count_of_relay_addresses_is_bounded() -> None:
    message = pb.HopMessage(type=pb.HopMessage.STATUS, status=pb.Status.OK)
    message.reservation.expire = 5
    message.reservation.addrs.extend([RELAY.to_bytes()] * 300)
    grant = decode_hop_answer(message.SerializeToString()).grant
    assert grant is not None
    assert len(grant.addrs) == MAX_RELAY_ADDRS


@pytest.mark.parametrize("text", ["/ip4/11.0.0.7/tcp/50001", "/ip4/11.0.0.7/udp/50001/quic-v1"])
def test_r16_where_the_other_end_was_seen_survives_the_wire(text: str) -> None:
    seen = parse(text)
    offer = decode_stop_request(encode_stop_connect(PEER, CircuitLimit(1, 2), seen=seen))
    assert offer == Connect(PEER, CircuitLimit(1, 2), seen)
    raw = encode_hop_answer(Status.OK, None, CircuitLimit(1, 2), target=PEER, seen=seen)
    assert decode_hop_answer(raw).seen == seen
    assert pb.HopMessage.FromString(raw).peer.id == PEER.to_bytes()  # the field is required where it is proto2


@pytest.mark.parametrize(
    "addr",
    [b"", b"junk", *(parse(text).to_bytes() for text in ("/dns4/a.example/tcp/1", "/ip4/11.0.0.7/udp/1"))],
)
def test_r16_what_is_no_ip_and_port_says_nothing(addr: bytes) -> None:
    peer = pb.PeerId(id=PEER.to_bytes(), addrs=[addr])
    request = pb.StopMessage(type=pb.StopMessage.CONNECT, peer=peer)
    assert decode_stop_request(request.SerializeToString()) == Connect(PEER)
    answer = pb.HopMessage(type=pb.HopMessage.STATUS, status=pb.Status.OK, peer=peer)
    assert decode_hop_answer(answer.SerializeToString()).seen is None


@pytest.mark.parametrize(
    ("limit", "read"),
    [
        (None, None),
        (CircuitLimit(None, None), None),
        (CircuitLimit(120, None), CircuitLimit(120, None)),
        (CircuitLimit(None, 7), CircuitLimit(None, 7)),
        (CircuitLimit(2**40, 2**70), CircuitLimit(U32_MAX, U64_MAX)),
    ],
)
def test_r3_zero_or_absent_is_unlimited(limit: CircuitLimit | None, read: CircuitLimit | None) -> None:
    assert decode_hop_answer(encode_hop_answer(Status.OK, None, limit)).limit == read
    assert decode_stop_request(encode_stop_connect(PEER, limit)) == Connect(PEER, read)


def test_r3_a_limit_of_two_zeros_is_unlimited() -> None:
    message = pb.HopMessage(type=pb.HopMessage.STATUS, status=pb.Status.OK)
    message.limit.duration = 0
    message.limit.data = 0
    assert decode_hop_answer(message.SerializeToString()).limit is None


@pytest.mark.parametrize("status", list(Status))
def test_every_status_survives_the_wire(status: Status) -> None:
    assert decode_hop_answer(encode_hop_answer(status)).status == status
    assert decode_stop_answer(encode_stop_answer(status)).status == status
    assert status_name(status) == status.name


def test_a_status_outside_the_table_keeps_its_number() -> None:
    answer = decode_hop_answer(pb.HopMessage(type=pb.HopMessage.STATUS, status=777).SerializeToString())  # type: ignore[arg-type]
    assert status_name(answer.status) == "STATUS_777"


@pytest.mark.parametrize(
    "message",
    [
        pb.HopMessage(),
        pb.HopMessage(type=pb.HopMessage.CONNECT),
        pb.HopMessage(type=pb.HopMessage.CONNECT, peer=pb.PeerId()),
        pb.HopMessage(type=pb.HopMessage.CONNECT, peer=pb.PeerId(id=b"\x00" * 200)),
        pb.HopMessage(type=pb.HopMessage.CONNECT, peer=pb.PeerId(id=b"\x11\x14" + b"\x00" * 20)),
        pb.HopMessage(type=pb.HopMessage.CONNECT, peer=pb.PeerId(id=b"\x12\x21" + b"\x00" * 32)),
    ],
)
def test_r8_requests_that_lack_something_are_malformed(message: pb.HopMessage) -> None:
    with pytest.raises(MalformedMessage):
        decode_hop_request(message.SerializeToString())


def test_r8_a_wrong_type_is_unexpected_not_malformed() -> None:
    with pytest.raises(UnexpectedMessage):
        decode_hop_request(encode_hop_answer(Status.OK))
    with pytest.raises(UnexpectedMessage):
        decode_hop_request(pb.HopMessage(type=9).SerializeToString())  # type: ignore[arg-type]
    with pytest.raises(UnexpectedMessage):
        decode_stop_request(encode_stop_answer(Status.OK))
    with pytest.raises(UnexpectedMessage):
        decode_hop_answer(encode_reserve())
    with pytest.raises(UnexpectedMessage):
        decode_stop_answer(encode_stop_connect(PEER))


def test_a_status_message_needs_a_status() -> None:
    for message in (
        pb.HopMessage(type=pb.HopMessage.STATUS),
        pb.HopMessage(type=pb.HopMessage.STATUS, status=pb.Status.UNUSED),
    ):
        with pytest.raises(MalformedMessage):
            decode_hop_answer(message.SerializeToString())


def test_r14_a_grant_needs_an_expiry_and_clamps_what_does_not_fit() -> None:
    message = pb.HopMessage(type=pb.HopMessage.STATUS, status=pb.Status.OK)
    message.reservation.addrs.append(RELAY.to_bytes())
    with pytest.raises(MalformedMessage):
        decode_hop_answer(message.SerializeToString())
    for expire, read in ((2**80, U64_MAX), (-1, 0)):
        grant = decode_hop_answer(encode_hop_answer(Status.OK, Grant(expire))).grant
        assert grant is not None
        assert grant.expire == read


@given(st.binary(max_size=300), st.sampled_from(DECODERS))
def test_any_bytes_end_in_a_value_or_a_typed_error(raw: bytes, decoder) -> None:  # type: ignore[no-untyped-def]
    try:
        decoder(raw)
    except ProtocolViolation:
        pass


VALID = [
    encode_reserve(),
    encode_hop_connect(PEER),
    encode_hop_answer(Status.OK, Grant(1, (RELAY,), b"v" * 40), CircuitLimit(1, 2)),
    encode_stop_connect(PEER, CircuitLimit(1, 2)),
    encode_stop_answer(Status.CONNECTION_FAILED),
]


@given(st.sampled_from(VALID), st.sampled_from(DECODERS), st.data())
def test_corrupted_messages_end_in_a_value_or_a_typed_error(raw: bytes, decoder, data) -> None:  # type: ignore[no-untyped-def]
    damaged = bytearray(raw[: data.draw(st.integers(0, len(raw)))] + data.draw(st.binary(max_size=20)))
    if damaged:
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(0, 255))
    try:
        decoder(bytes(damaged))
    except ProtocolViolation:
        pass
