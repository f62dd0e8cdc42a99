"""AutoNAT v2 without sockets (A1 to A11 of docs/wire-rules.md)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.addresses import Proto, parse, tcp_addr
from punchbridge.config import AutonatLimits
from punchbridge.errors import ProtocolViolation
from punchbridge.identity import Identity
from punchbridge.reach.autonat import Choice, DataMeter, Quota, Refused, Tally, choose
from punchbridge.reach.candidates import Scope
from punchbridge.wire import autonat
from punchbridge.wire.autonat import (
    DATA_CHUNK,
    MAX_ADDRS,
    MAX_DATA,
    MAX_MESSAGE,
    MIN_DATA,
    SILENCE,
    Answer,
    DataDue,
    Request,
)

LIMITS = AutonatLimits()
PEERS = [Identity.generate().peer_id for _ in range(6)]
PUBLIC = parse("/ip4/11.1.0.2/tcp/4001")


STRICT = Scope()


BOTH: tuple[tuple[int, Proto], ...] = ((4, "tcp"), (6, "tcp"))


def pick(
    *texts: str, scope: Scope = STRICT, sources: tuple[tuple[int, Proto], ...] = BOTH, own: tuple[str, ...] = ()
) -> Choice | Refused:
    request = Request(tuple(parse(text).to_bytes() for text in texts), 7)
    return choose(request, client_ip="11.1.0.2", own=own, scope=scope, sources=sources)


def test_request_and_answers_survive_the_wire() -> None:
    request = autonat.decode_for_server(autonat.encode_request([PUBLIC], 2**64 - 1))
    assert request == Request((PUBLIC.to_bytes(),), 2**64 - 1)
    for answer in (Answer("OK", 3, "E_DIAL_BACK_ERROR"), Answer("E_DIAL_REFUSED"), Answer("E_INTERNAL_ERROR")):
        assert autonat.decode_for_client(autonat.encode_answer(answer)) == answer
    assert autonat.decode_for_client(autonat.encode_data_due(DataDue(2, 30_000))) == DataDue(2, 30_000)
    assert autonat.decode_for_server(autonat.encode_data(10**6)) == DATA_CHUNK
    assert autonat.decode_dial_back(autonat.encode_dial_back(5)) == 5
    autonat.decode_dial_back_response(autonat.encode_dial_back_response())


def test_the_nonce_is_fixed64_on_the_wire() -> None:
    assert autonat.encode_dial_back(1) == bytes.fromhex("090100000000000000")


def test_the_first_address_that_may_be_dialled_is_chosen() -> None:
    choice = pick("/ip4/10.0.0.1/tcp/1", "/dns4/x.example/tcp/1", "/ip4/11.1.0.2/udp/1", "/ip4/11.1.0.2/tcp/4001")
    assert choice == Choice(3, PUBLIC, 7, "tcp", foreign=False)
    assert pick("/ip4/11.9.9.9/tcp/80", "/ip4/11.1.0.2/tcp/4001") == Choice(
        0, parse("/ip4/11.9.9.9/tcp/80"), 7, "tcp", True
    )


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/192.168.0.1/tcp/1",
        "/ip4/169.254.0.1/tcp/1",
        "/ip6/::1/tcp/1",
        "/ip6/::ffff:10.0.0.1/tcp/1",
        "/ip6/64:ff9b:1::7f00:1/tcp/1",
        "/ip6/fec0::2/tcp/1",
        "/ip6/4000::1/tcp/1",
        "/ip4/192.0.0.8/tcp/1",
        "/ip4/11.1.0.2/tcp/0",
        "/ip4/11.1.0.2/tcp/1/ws",
        f"/ip4/11.1.0.2/tcp/1/p2p/{PEERS[0]}/p2p-circuit",
    ],
)
def test_nothing_private_relayed_or_foreign_to_tcp_is_dialled(text: str) -> None:
    refused = pick(text)
    assert isinstance(refused, Refused)
    assert refused.answer == Answer("E_DIAL_REFUSED")


def test_a_missing_ip_version_own_addresses_and_bad_counts_are_refused() -> None:
    assert isinstance(pick("/ip6/2600::1/tcp/1", sources=((4, "tcp"),)), Refused)
    assert isinstance(pick("/ip4/11.1.0.2/tcp/4001", own=("11.1.0.2",)), Refused)
    for count in (0, MAX_ADDRS + 1):
        refused = pick(*["/ip4/11.1.0.2/tcp/4001"] * count)
        assert isinstance(refused, Refused)
        assert refused.answer.status == "E_REQUEST_REJECTED"
    assert isinstance(pick("/ip4/10.0.0.1/tcp/1", scope=Scope(private=True)), Choice)


def test_dial_data_counts_data_only_and_takes_an_oversized_last_message() -> None:
    meter = DataMeter(MIN_DATA)
    assert not meter.receive(MIN_DATA - 1)
    assert meter.receive(4096)
    with pytest.raises(ProtocolViolation):
        DataMeter(MIN_DATA).receive(0)
    for size in (0, MIN_DATA - 1, MAX_DATA + 1):
        with pytest.raises(ValueError, match="dial data"):
            DataMeter(size)


def test_a_client_does_not_pay_more_than_the_maximum() -> None:
    with pytest.raises(ProtocolViolation, match="100001"):
        autonat.decode_for_client(autonat.encode_data_due(DataDue(0, MAX_DATA + 1)))


def test_quota_per_peer_at_once_in_all_and_with_data() -> None:
    quota = Quota(LIMITS)
    assert quota.admit(PEERS[0], 0.0)
    assert not quota.admit(PEERS[0], 0.0), "one at a time"
    quota.release(PEERS[0])
    for _ in range(LIMITS.requests_per_peer - 1):
        assert quota.admit(PEERS[0], 1.0)
        quota.release(PEERS[0])
    assert not quota.admit(PEERS[0], 2.0)
    admitted = LIMITS.requests_per_peer
    for peer in PEERS[1:]:
        while quota.admit(peer, 2.0):
            quota.release(peer)
            admitted += 1
    assert admitted == LIMITS.requests_per_minute
    assert quota.admit(PEERS[0], 60.0), "the window moved on"
    assert [quota.admit_data(0.0) for _ in range(LIMITS.data_requests_per_minute + 1)].count(True) == (
        LIMITS.data_requests_per_minute
    )
    assert quota.admit_data(60.0)


def test_tally_trusts_the_nonce_and_the_majority() -> None:
    tally = Tally(LIMITS)
    good, bad = Answer("OK", 0, "OK"), Answer("OK", 0, "E_DIAL_ERROR")
    assert not tally.record(PUBLIC, PEERS[0], good, nonce_seen=False, now=0.0)
    assert tally.reachability(PUBLIC) == ("unknown", 0)
    assert tally.record(PUBLIC, PEERS[0], good, nonce_seen=True, now=0.0)
    assert tally.reachability(PUBLIC) == ("public", 1)
    assert tally.record(PUBLIC, PEERS[1], bad, nonce_seen=False, now=0.0)
    assert tally.reachability(PUBLIC) == ("unknown", 0)
    assert tally.record(PUBLIC, PEERS[2], bad, nonce_seen=False, now=0.0)
    assert tally.reachability(PUBLIC) == ("private", 2)
    assert tally.overall() == "private"
    assert tally.record(PUBLIC, PEERS[0], bad, nonce_seen=False, now=1.0)
    assert tally.reachability(PUBLIC) == ("private", 3)
    other = parse("/ip4/11.0.0.9/tcp/4001")
    assert tally.record(other, PEERS[0], good, nonce_seen=True, now=1.0)
    assert tally.overall() == "public"
    assert tally.keep([PUBLIC]) == (other,)
    assert tally.overall() == "private"
    assert tally.keep([]) == (PUBLIC,)
    assert tally.overall() == "unknown"


def test_the_word_of_a_server_that_has_gone_does_not_hold_for_ever() -> None:
    tally = Tally(LIMITS)
    good, bad = Answer("OK", 0, "OK"), Answer("OK", 0, "E_DIAL_ERROR")
    assert tally.record(PUBLIC, PEERS[0], good, nonce_seen=True, now=0.0)
    assert tally.record(PUBLIC, PEERS[1], bad, nonce_seen=False, now=LIMITS.stale)
    assert tally.reachability(PUBLIC) == ("unknown", 0)
    assert tally.record(PUBLIC, PEERS[1], bad, nonce_seen=False, now=LIMITS.stale + 1.0)
    assert tally.reachability(PUBLIC) == ("private", 1)


def test_silence_says_nothing_against_the_word_of_another_server() -> None:
    tally = Tally(LIMITS)
    assert tally.record(PUBLIC, PEERS[0], Answer("OK", 0, "OK"), nonce_seen=True, now=0.0)
    assert not tally.record(PUBLIC, PEERS[1], SILENCE, nonce_seen=False, now=1.0)
    assert tally.reachability(PUBLIC) == ("public", 1)
    assert tally.record(PUBLIC, PEERS[0], SILENCE, nonce_seen=False, now=2.0)
    assert tally.reachability(PUBLIC) == ("private", 1)


@pytest.mark.parametrize(
    "answer",
    [
        Answer("E_DIAL_REFUSED"),
        Answer("E_REQUEST_REJECTED"),
        Answer("E_INTERNAL_ERROR"),
        Answer("UNKNOWN"),
        Answer("OK", 0, "UNKNOWN"),
        Answer("OK", 0, "E_DIAL_BACK_ERROR"),
        Answer("OK", 0, "UNUSED"),
    ],
)
def test_an_answer_that_says_nothing_changes_nothing(answer: Answer) -> None:
    tally = Tally(LIMITS)
    assert not tally.record(PUBLIC, PEERS[0], answer, nonce_seen=True, now=0.0)
    assert tally.overall() == "unknown"


def test_silence_is_a_dial_in_vain_unless_the_nonce_came() -> None:
    tally = Tally(LIMITS)
    assert not tally.record(PUBLIC, PEERS[0], SILENCE, nonce_seen=True, now=0.0)
    assert tally.reachability(PUBLIC) == ("unknown", 0)
    assert tally.record(PUBLIC, PEERS[0], SILENCE, nonce_seen=False, now=0.0)
    assert tally.reachability(PUBLIC) == ("private", 1)
    assert tally.record(PUBLIC, PEERS[0], Answer("OK", 0, "OK"), nonce_seen=True, now=1.0)
    assert tally.reachability(PUBLIC) == ("public", 1)


def test_unknown_status_codes_are_named_so() -> None:
    assert autonat.decode_for_client(bytes.fromhex("120308ff01")) == Answer("UNKNOWN")


def test_messages_of_the_wrong_side_and_oversized_ones_are_refused() -> None:
    with pytest.raises(ProtocolViolation):
        autonat.decode_for_client(autonat.encode_request([PUBLIC], 1))
    with pytest.raises(ProtocolViolation):
        autonat.decode_for_server(autonat.encode_answer(Answer("OK")))
    for decode in (autonat.decode_for_server, autonat.decode_for_client, autonat.decode_dial_back):
        with pytest.raises(ProtocolViolation):
            decode(bytes(MAX_MESSAGE + 1))


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_a_violation(data: bytes) -> None:
    for decode in (
        autonat.decode_for_server,
        autonat.decode_for_client,
        autonat.decode_dial_back,
        autonat.decode_dial_back_response,
    ):
        try:
            decode(data)
        except ProtocolViolation:
            continue


@given(st.lists(st.binary(max_size=60), max_size=60), st.booleans())
def test_whatever_is_chosen_is_of_an_allowed_kind(raw: list[bytes], private: bool) -> None:
    raw += [tcp_addr("127.0.0.1", 1).to_bytes()]
    result = choose(Request(tuple(raw), 1), client_ip="1.1.1.1", own=(), scope=Scope(private), sources=BOTH)
    if isinstance(result, Choice):
        assert raw[result.index] == result.addr.to_bytes()
        assert result.addr != tcp_addr("127.0.0.1", 1)
