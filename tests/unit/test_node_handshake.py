"""The handshake machine: two of them joined, any order and cut, every check, every deadline. No socket, no loop."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge_node import wire
from punchbridge_node._pb.protowire import p2p_pb2 as pb
from punchbridge_node.config import HandshakeTimes, NodeConfig
from punchbridge_node.errors import HandshakeFailure
from punchbridge_node.handshake import (
    Completed,
    Failed,
    Handshake,
    HandshakeRefusal,
    Negotiated,
    Send,
    State,
    check_version,
    own_version,
)

TIMES = HandshakeTimes(4, 4, 8)
VERSION = wire.message(wire.VERSION, own_version(NodeConfig(), 1))
VERACK = wire.message(wire.VERACK, pb.VerackMessage())
READY = wire.message(wire.READY, pb.ReadyMessage())


def machine(refusal: HandshakeRefusal | None = None) -> Handshake:
    return Handshake(own_version(NodeConfig(), 1), TIMES, lambda _: refusal)


def kinds(actions: Sequence[object]) -> list[object]:
    return [wire.payload_type(a.message) if isinstance(a, Send) else type(a) for a in actions]


def test_the_expected_course() -> None:
    it = machine()
    assert kinds(it.start(0)) == [wire.VERSION]
    assert kinds(it.receive(VERSION, 1)) == [wire.VERACK]
    assert kinds(it.receive(VERACK, 1)) == [Negotiated]
    assert it.next_timer() is None
    assert kinds(it.flows_subscribed(2)) == [wire.READY]
    assert it.next_timer() == 10
    assert kinds(it.receive(READY, 3)) == [Completed]
    assert it.state is State.DONE
    assert it.next_timer() is None


@given(st.data())
def test_two_machines_complete_for_any_interleaving(data: st.DataObject) -> None:
    sides = [machine(), machine()]
    # Each direction is a FIFO: the stream keeps order, the two directions do not wait for each other.
    queues: list[list[pb.KaspadMessage]] = [[], []]
    done = [False, False]

    def act(side: int, actions: Sequence[object]) -> None:
        for action in actions:
            assert not isinstance(action, Failed)
            if isinstance(action, Send):
                queues[1 - side].append(action.message)
            elif isinstance(action, Negotiated):
                act(side, sides[side].flows_subscribed(0))
            else:
                done[side] = True

    for side in data.draw(st.permutations([0, 1])):
        act(side, sides[side].start(0))
    while any(queues):
        side = data.draw(st.sampled_from([index for index in (0, 1) if queues[index]]))
        act(side, sides[side].receive(queues[side].pop(0), 0))
    assert done == [True, True]


@pytest.mark.parametrize("order", list(itertools.permutations([VERSION, VERACK, READY])))
def test_the_peers_messages_in_any_order_complete_once(order: tuple[pb.KaspadMessage, ...]) -> None:
    it = machine()
    it.start(0)
    seen: list[object] = []
    for msg in order:
        actions = it.receive(msg, 0)
        seen += kinds(actions)
        if Negotiated in kinds(actions):
            seen += kinds(it.flows_subscribed(0))
    assert seen.count(Completed) == 1
    assert seen.count(Negotiated) == 1
    assert seen.index(wire.READY) < seen.index(Completed)


@given(st.lists(st.sampled_from([VERSION, VERACK, READY]), max_size=8))
def test_any_sequence_ends_in_a_known_state_and_a_repeat_always_fails(messages: list[pb.KaspadMessage]) -> None:
    it = machine()
    it.start(0)
    said: set[str] = set()
    for msg in messages:
        kind = msg.WhichOneof("payload")
        assert kind is not None
        failed = it.state is State.FAILED
        actions = it.receive(msg, 0)
        if failed:
            assert actions == []
        elif kind in said:
            assert kinds(actions) == [Failed]
        if it.state is State.NEGOTIATED:
            it.flows_subscribed(0)
        said.add(kind)
    repeated = len(messages) != len({id(msg) for msg in messages})
    assert (it.state is State.FAILED) == repeated


def test_a_message_of_another_type_fails() -> None:
    it = machine()
    it.start(0)
    (failed,) = it.receive(wire.message(wire.PING, pb.PingMessage(nonce=1)), 0)
    assert isinstance(failed, Failed)
    assert failed.failure is HandshakeFailure.OUT_OF_ORDER


def test_after_done_everything_is_out_of_order() -> None:
    it = machine()
    it.start(0)
    for msg in (VERSION, VERACK):
        it.receive(msg, 0)
    it.flows_subscribed(0)
    it.receive(READY, 0)
    assert kinds(it.receive(READY, 0)) == [Failed]


def test_the_check_is_made_after_verack_so_that_the_peer_has_ours_first() -> None:
    it = machine(HandshakeRefusal(HandshakeFailure.WRONG_NETWORK, "no"))
    it.start(0)
    assert kinds(it.receive(VERSION, 0)) == [wire.VERACK]
    assert it.receive(VERACK, 0) == [Failed(HandshakeFailure.WRONG_NETWORK, "no")]
    assert it.next_timer() is None


@pytest.mark.parametrize(
    ("said", "at", "failure"),
    [
        ([], 4, HandshakeFailure.VERSION_TIMEOUT),
        ([VERSION], 4, HandshakeFailure.VERACK_TIMEOUT),
        ([VERACK], 4, HandshakeFailure.VERSION_TIMEOUT),
        ([VERSION, VERACK], 1 + 8, HandshakeFailure.READY_TIMEOUT),
    ],
)
def test_deadlines(said: list[pb.KaspadMessage], at: float, failure: HandshakeFailure) -> None:
    it = machine()
    it.start(0)
    for msg in said:
        it.receive(msg, 1)
    if it.state is State.NEGOTIATED:
        it.flows_subscribed(1)
    assert it.next_timer() == at
    assert it.handle_timer(at - 0.001) == []
    (failed,) = it.handle_timer(at)
    assert isinstance(failed, Failed)
    assert failed.failure is failure
    assert it.next_timer() is None


def test_flows_subscribed_out_of_turn_is_our_mistake() -> None:
    with pytest.raises(RuntimeError):
        machine().flows_subscribed(0)


# --- the checks ---

CONFIG = NodeConfig(user_agent_allow=("kaspad", "punch"), user_agent_deny=("evil",), min_protocol_version=7)


def offer(**changes: object) -> pb.VersionMessage:
    base: dict[str, object] = {
        "id": bytes(16),
        "network": CONFIG.network,
        "userAgent": "/kaspad:1/",
        "protocolVersion": 7,
    }
    return pb.VersionMessage(**{**base, **changes})  # type: ignore[arg-type]


# In the order of the wire: with several faults, the first one is named.
FAULTS: list[tuple[dict[str, object], HandshakeFailure]] = [
    ({"id": b"x" * 15}, HandshakeFailure.BAD_NODE_ID),
    ({}, HandshakeFailure.DUPLICATE),
    ({"id": CONFIG.node_id}, HandshakeFailure.LOOPBACK),
    ({"network": "kaspa-mainnet"}, HandshakeFailure.WRONG_NETWORK),
    ({"userAgent": "/kaspad:evil/"}, HandshakeFailure.USER_AGENT),
    ({"protocolVersion": 6}, HandshakeFailure.PROTOCOL_VERSION),
    ({}, HandshakeFailure.POLICY),
]


@given(st.lists(st.sampled_from(range(len(FAULTS))), unique=True).map(sorted))
def test_the_first_fault_in_the_order_of_the_wire_is_named(faults: list[int]) -> None:
    changes: dict[str, object] = {}
    for index in reversed(faults):
        changes.update(FAULTS[index][0])
    names = [FAULTS[index][1] for index in faults]
    refusal = check_version(
        offer(**changes),
        CONFIG,
        duplicate=lambda _: HandshakeFailure.DUPLICATE in names,
        policy=lambda _: "no" if HandshakeFailure.POLICY in names else None,
    )
    assert (refusal.failure if refusal else None) == (names[0] if names else None)


def test_the_two_harmless_reasons_are_spelt_as_on_the_wire() -> None:
    duplicate = check_version(offer(), CONFIG, duplicate=lambda _: True)
    loopback = check_version(offer(id=CONFIG.node_id), CONFIG, duplicate=lambda _: False)
    assert duplicate == HandshakeRefusal(HandshakeFailure.DUPLICATE, "DUPLICATE_CONNECTION")
    assert loopback == HandshakeRefusal(HandshakeFailure.LOOPBACK, "LOOPBACK_CONNECTION")


def test_a_user_agent_outside_the_allow_list_is_refused() -> None:
    refusal = check_version(offer(userAgent="/other/"), CONFIG, duplicate=lambda _: False)
    assert refusal is not None
    assert refusal.failure is HandshakeFailure.USER_AGENT


def test_there_is_no_upper_bound_on_the_version() -> None:
    assert check_version(offer(protocolVersion=2**32 - 1), CONFIG, duplicate=lambda _: False) is None


@given(st.text(max_size=300), st.integers(0, 256))
def test_a_cut_user_agent_is_a_prefix_within_its_bound(text: str, size: int) -> None:
    text = text.encode("utf-8", "replace").decode()
    cut = wire.cut_utf8(text, size)
    assert text.startswith(cut)
    assert len(cut.encode()) <= size
    assert len(cut) == len(text) or len(text[: len(cut) + 1].encode()) > size


def test_our_version_carries_what_is_configured() -> None:
    config = NodeConfig(user_agent="ü" * 200, advertise=("11.0.0.1", 16611), disable_relay_tx=True)
    version = own_version(config, 1_700_000_000_000)
    assert version.protocolVersion == 10
    assert version.userAgent == "ü" * 128
    assert (version.address.ip, version.address.port) == (b"\x0b\0\0\1", 16611)
    assert version.network == "kaspa-devnet"
    assert version.id == config.node_id
    assert version.timestamp == 1_700_000_000_000
    assert version.disableRelayTx
    assert not version.HasField("subnetworkId")
