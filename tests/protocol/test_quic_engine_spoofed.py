"""The QUIC engine against datagrams that claim to come from elsewhere: copies of good ones, floods of ids, first ones.

Whoever sends them receives nothing, so that no address may get much more than came from it, and a connection goes on
with the peer that it has.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.built import NOT_BUILT

if TYPE_CHECKING:
    import punchbridge_quic as quic
else:
    quic = pytest.importorskip("punchbridge_quic", reason=NOT_BUILT)

from tests.support.quic_engines import ACCEPTER, DIALLER, PORT, SETTINGS, Fate, Pair, engine

MALLORY: Final = "203.0.113.9"
MOST_BACK: Final = 3
"""Bytes for each byte that an address which has proven nothing may get (RFC 9000 section 8.1)."""
LARGEST: Final = SETTINGS["first_mtu"]
"""quinn-proto lets the datagram that reaches that bound leave whole, so that it goes beyond by less than this."""


# --- copies of good datagrams -------------------------------------------------------------------------------


class Copied(Pair):
    """Of what the dialler sends, a share comes once more, from an address that is not its own. `copied`: bytes."""

    share = 0.0
    copied = 0

    def put(self, datagram: bytes, source: str, to: str) -> None:
        super().put(datagram, source, to)
        if to == ACCEPTER and self._coin.random() < self.share:
            self.copied += len(datagram)
            super().put(datagram, MALLORY, to)

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self._coin = Random(seed + 1)


@given(st.floats(0.05, 1), st.floats(0, 0.1), st.floats(0, 0.1), st.integers(0, 1 << 32), st.integers(1, 60_000))
@settings(max_examples=30)
def test_copies_from_elsewhere_lose_nothing_and_lead_nowhere(
    share: float, late: float, loss: float, seed: int, size: int
) -> None:
    """Whoever watches the path may send on what it sees, ahead of the peer, and write another address on it."""
    pair = Copied(seed)
    pair.connect()
    stream = pair.open(pair.dialler)
    assert stream is not None
    pair.write(pair.dialler, stream, b"x")
    pair.run(1)
    pair.fate, pair.share = Fate(loss=loss, late=late), share
    sent = dict.fromkeys((0, 1), b"")
    for index, side in enumerate(pair.sides):
        data = bytes(place % 251 for place in range(size))
        sent[index] = data[: pair.write(side, stream, data)]
    here, there = pair.dialler.got[stream], pair.accepter.got[stream]
    pair.run(120, until=lambda: len(there) > len(sent[0]) and len(here) >= len(sent[1]))
    assert (bytes(there), bytes(here)) == (b"x" + sent[0], sent[1])
    assert pair.bytes_to[MALLORY] < MOST_BACK * pair.copied + SETTINGS["largest_mtu"]
    pair.fate, pair.share = Fate(), 0.0
    pair.run(20)
    pair.still_works()
    assert pair.accepter.connection is not None
    assert pair.accepter.engine.info(pair.accepter.connection).host == DIALLER


# --- floods of connection ids -------------------------------------------------------------------------------


def test_ids_that_nobody_gave_are_not_answered_and_leave_nothing() -> None:
    """Ids have a mark that their engine alone can make, so that a flood of others gets no stateless reset."""
    pair = Pair().connect()
    door, flood, began = pair.accepter.engine, Random(7), pair.now
    for number in range(3000):
        pair.now = began + number / 3000
        data = bytes((0x40 | flood.randrange(0x40),)) + flood.randbytes(flood.randrange(30, 1300))
        assert door.receive(data, 0, MALLORY, PORT, None, 0, pair.now) == []
        assert door.replies() == []
    assert door.attempts() == []
    assert door.connections() == 1
    pair.still_works()


# --- the bound of what comes back ---------------------------------------------------------------------------


@cache
def firsts() -> tuple[bytes, ...]:
    """Whole first datagrams of dials, each with a connection id of its own."""
    dialler = engine(3)
    made = [dialler.transmit(dialler.connect(ACCEPTER, PORT, 1.0), 1, 1.0) for _ in range(8)]
    return tuple(packet[0] for packet in made if packet is not None)


class Door:
    """An accepter that decides on each newcomer as it is told, and never hears more of one than a test gives."""

    def __init__(self) -> None:
        self.engine, self.now = engine(2), 1.0
        self.heard: dict[str, int] = defaultdict(int)
        self.sent: dict[str, int] = defaultdict(int)
        self.accepted: dict[str, int] = defaultdict(int)
        self.connections: list[int] = []

    def give(self, data: bytes, host: str, decision: str) -> None:
        self.heard[host] += len(data)
        self.engine.receive(data, 0, host, PORT, None, 0, self.now)
        for number, *_ in self.engine.attempts():
            if decision == "accept":
                try:
                    self.connections.append(self.engine.accept(number, self.now))
                    self.accepted[host] += 1
                except quic.HandshakeFailed:
                    pass
            else:
                getattr(self.engine, decision)(number)
        self._send()

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = [at for one in self.connections if (at := self.engine.timer(one)) is not None and at <= end]
            if not due:
                break
            self.now = max(self.now, min(due))
            for one in self.connections:
                self.engine.on_timer(one, self.now)
            self._send()
        self.now = end

    def _send(self) -> None:
        packets = list(self.engine.replies())
        for one in tuple(self.connections):
            while (packet := self.engine.transmit(one, 64, self.now)) is not None:
                packets.append(packet)
            if any(event[0] == quic.GONE for event in self.engine.events(one)):
                self.connections.remove(one)
        for packet in packets:
            self.sent[packet[2]] += len(packet[0])


HOSTS = st.sampled_from([DIALLER, MALLORY, "203.0.113.10"])
VERSIONS = (b"\x1a\x2a\x3a\x4a", b"\0\0\0\0", b"\0\0\0\x01")
HEADS = st.sampled_from([b"\x40", *(bytes((first,)) + one for first in (0xC0, 0xD0, 0xE0) for one in VERSIONS)])
STEPS = st.one_of(
    st.tuples(st.just("first"), st.integers(0, 7), HOSTS, st.sampled_from(["accept", "retry", "refuse", "ignore"])),
    st.tuples(st.just("cut"), st.integers(0, 7), HOSTS, st.integers(1, 1199)),
    st.tuples(st.just("other"), HEADS, HOSTS, st.binary(max_size=60), st.integers(0, 1400)),
    st.tuples(st.just("wait"), st.floats(0, 3)),
)


def played(steps: list[Any], *, apart: bool) -> Door:
    """A door at which all that has come. `apart`: what has one connection id comes from one address alone."""
    door = Door()
    for step in steps:
        match step:
            case ("first", number, host, decision):
                door.give(firsts()[number], f"198.51.100.{number}" if apart else host, decision)
            case ("cut", number, host, size):
                door.give(firsts()[number][:size], f"198.51.100.{number}" if apart else host, "accept")
            case ("other", head, host, noise, size):
                door.give(head + noise + bytes(size), host, "accept")
            case ("wait", seconds):
                door.wait(seconds)
    door.wait(60)
    assert door.engine.connections() == 0
    return door


@given(st.lists(STEPS, min_size=1, max_size=30))
def test_no_address_gets_more_than_three_bytes_for_one_and_a_datagram(steps: list[Any]) -> None:
    """First datagrams, whole and cut, and headers with anything behind them."""
    door = played(steps, apart=True)
    for host, sent in door.sent.items():
        assert sent <= MOST_BACK * door.heard[host] + (LARGEST - 1) * door.accepted[host], (door.heard, door.sent)


@given(st.lists(STEPS, min_size=1, max_size=30))
def test_all_addresses_together_get_no_more_either(steps: list[Any]) -> None:
    """What several addresses send with one connection id counts for the one that the connection began with."""
    door = played(steps, apart=False)
    most = MOST_BACK * sum(door.heard.values()) + (LARGEST - 1) * sum(door.accepted.values())
    assert sum(door.sent.values()) <= most, (door.heard, door.sent)
