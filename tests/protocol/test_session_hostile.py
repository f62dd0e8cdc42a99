"""The session machine against a peer, or a user, that would make it keep, forget or change what it must not."""

from __future__ import annotations

import pytest

from bridge.limits.session import SESSION_CARRIERS, SESSION_PIECES, SESSION_REPLAY_MIN
from bridge.protocol.session import Attach, Outgoing, Refusal, Released

from .test_session import ID, joined, write_all


def test_a_peer_that_ends_no_carrier_gets_no_more_of_them() -> None:
    wires = joined()
    write_all(wires, "acceptor", b"x" * 40)
    for generation in range(2, 40):
        alive = generation - 1
        refusal, events = wires.acceptor.attached_by(Attach(ID, generation, 40, 1 << 20, False, alive), wires.now)
        assert refusal is None
        assert len(wires.acceptor.carriers) <= SESSION_CARRIERS
        if generation > SESSION_CARRIERS:
            assert Released(generation - SESSION_CARRIERS, "CROWDED_OUT") in events
        assert wires.acceptor.active == generation


def test_a_refused_attach_leaves_the_window_as_it_was() -> None:
    wires = joined()
    before = wires.acceptor.outgoing.edge
    assert wires.acceptor.attached_by(Attach(ID, 2, 99, 1 << 40, False, 1), wires.now) == (Refusal.BAD_OFFSET, [])
    assert wires.acceptor.outgoing.edge == before


@pytest.mark.parametrize("sent", [False, True], ids=["waiting", "sent"])
def test_tiny_writes_are_not_kept_one_by_one(sent: bool) -> None:
    outgoing = Outgoing()
    outgoing.edge = 1 << 30
    while outgoing.write(b"tiny text"):
        if sent:
            outgoing.next_frame()
    assert outgoing.written == SESSION_REPLAY_MIN
    assert len(outgoing._sent) + len(outgoing._unsent) <= SESSION_PIECES + 1
    outgoing.rewind(0)
    again = b"".join(b"".join(frame[1:]) for frame in iter(outgoing.next_frame, None))
    assert again == (b"tiny text" * (len(again) // 9 + 1))[:SESSION_REPLAY_MIN]
