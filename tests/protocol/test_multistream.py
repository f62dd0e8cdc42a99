"""multistream-select: MS1 to MS7 of docs/wire-rules.md."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.errors import NegotiationFailed, ProtocolViolation
from punchbridge.wire import varint
from punchbridge.wire.multistream import HEADER, MAX_MULTISTREAM_LINE, MAX_PROPOSALS, Initiator, Responder, line


def test_the_bytes_on_the_wire() -> None:
    assert HEADER == b"\x13/multistream/1.0.0\n"
    assert line("na") == bytes.fromhex("036e610a")
    assert Initiator(["/noise"]).start() == b"\x13/multistream/1.0.0\n\x07/noise\n"


def test_one_flight_each_way_and_the_payload_behind_the_proposal_is_kept() -> None:
    initiator, responder = Initiator(["/a"]), Responder(lambda: ("/a", "/b"))
    reply = responder.receive(initiator.start() + b"first bytes")
    assert reply == HEADER + line("/a")
    assert (responder.protocol, responder.leftover) == ("/a", b"first bytes")
    assert initiator.receive(reply + b"answer") == b""
    assert (initiator.protocol, initiator.leftover) == ("/a", b"answer")


def test_a_peer_that_waits_for_each_answer() -> None:
    responder = Responder(lambda: ("/b",))
    assert responder.receive(HEADER) == HEADER
    assert responder.receive(line("/a")) == line("na")
    assert responder.receive(line("/b")) == line("/b")
    assert responder.done


def test_proposals_are_tried_in_order() -> None:
    initiator = Initiator(["/a", "/b", "/c"])
    initiator.start()
    assert initiator.receive(HEADER + line("na")) == line("/b")
    assert initiator.receive(line("na")) == line("/c")
    assert initiator.receive(line("/c")) == b""
    assert initiator.protocol == "/c"


def test_all_refused() -> None:
    initiator = Initiator(["/a"])
    initiator.start()
    with pytest.raises(NegotiationFailed, match="none of /a"):
        initiator.receive(HEADER + line("na"))


@pytest.mark.parametrize("asked", ["ls", "/libp2p/simultaneous-connect", ""])
def test_legacy_requests_are_answered_na(asked: str) -> None:
    assert Responder(lambda: ("/a",)).receive(HEADER + line(asked)) == HEADER + line("na")


@pytest.mark.parametrize("first", [b"/multistream/2.0.0\n", b"/noise\n", b"na\n"])
def test_another_first_message_aborts(first: bytes) -> None:
    for side in (Initiator(["/a"]), Responder(lambda: ("/a",))):
        with pytest.raises(ProtocolViolation, match="first multistream message"):
            side.receive(varint.prefixed(first))


def test_an_answer_to_something_else_aborts() -> None:
    initiator = Initiator(["/a"])
    with pytest.raises(ProtocolViolation, match="'/z'"):
        initiator.receive(HEADER + line("/z"))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (varint.prefixed(b"/a"), "newline"),
        (varint.prefixed(b""), "newline"),
        (varint.prefixed(b"\xff\xfe\n"), "UTF-8"),
        (varint.encode(MAX_MULTISTREAM_LINE + 1), "the limit"),
        (b"\xff" * 9, "varint"),
    ],
)
def test_malformed_messages_abort(raw: bytes, text: str) -> None:
    with pytest.raises(ProtocolViolation, match=text):
        Responder(lambda: ("/a",)).receive(HEADER + raw)


def test_proposals_are_bounded() -> None:
    responder = Responder(tuple)
    responder.receive(HEADER + line("/x") * MAX_PROPOSALS)
    with pytest.raises(ProtocolViolation, match="more than"):
        responder.receive(line("/x"))


def test_nothing_to_propose_is_the_callers_fault() -> None:
    with pytest.raises(ValueError, match="nothing"):
        Initiator([])


protocols = st.lists(st.sampled_from(["/a/1", "/b/1", "/c/1", "/d/1"]), min_size=1, max_size=4, unique=True)


@given(protocols, st.sets(st.sampled_from(["/a/1", "/b/1", "/c/1", "/d/1"])), st.integers(1, 30), st.binary(max_size=9))
def test_both_sides_agree_however_the_bytes_are_split(
    proposed: list[str], supported: set[str], step: int, payload: bytes
) -> None:
    initiator, responder = Initiator(proposed), Responder(lambda: supported)
    to_responder, to_initiator = initiator.start(), b""
    expected = next((one for one in proposed if one in supported), None)
    try:
        while not initiator.done:
            for start in range(0, len(to_responder), step):
                to_initiator += responder.receive(to_responder[start : start + step])
            to_responder = b""
            if responder.done:
                to_initiator += payload
            for start in range(0, len(to_initiator), step):
                to_responder += initiator.receive(to_initiator[start : start + step])
            to_initiator = b""
    except NegotiationFailed:
        assert expected is None
    else:
        assert initiator.protocol == responder.protocol == expected
        assert initiator.leftover == payload


@given(st.binary(max_size=200))
def test_any_bytes_raise_only_the_remote_fault(raw: bytes) -> None:
    for side in (Initiator(["/a"]), Responder(lambda: ("/a",))):
        try:
            side.receive(HEADER + raw)
        except (ProtocolViolation, NegotiationFailed):
            pass
