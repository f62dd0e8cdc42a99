"""What was read from a UDP socket: the sources in turn, and no more of each than its part of the room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from punchbridge.transport.quic.arrivals import Arrivals, cost
from punchbridge.transport.quic.sockets import Datagrams

ROOM = 64 * 1024


def read(source: int, data: bytes = b"x", segment: int = 0) -> Datagrams:
    return Datagrams(data, segment, "192.0.2.1", source, None, 0)


def all_of(arrivals: Arrivals) -> list[Datagrams]:
    return list(iter(arrivals.take, None))


def test_small_datagrams_count_for_more_than_their_bytes() -> None:
    assert cost(read(1)) == 1024
    assert cost(read(1, bytes(64 * 40), 40)) == 64 * 1024
    assert cost(read(1, bytes(64 * 40 + 1), 40)) == 65 * 1024
    assert cost(read(1, bytes(60_000), 1452)) == 60_000


def test_the_sources_have_their_turns() -> None:
    arrivals = Arrivals(ROOM)
    for source, count in ((1, 3), (2, 1), (3, 2)):
        for number in range(count):
            arrivals.put(read(source, bytes((number,))))
    assert [(one.port, one.data[0]) for one in all_of(arrivals)] == [(1, 0), (2, 0), (3, 0), (1, 1), (3, 1), (1, 2)]


def test_one_alone_leaves_place_for_others() -> None:
    arrivals = Arrivals(ROOM)
    for source, kept in ((1, 32), (2, 16), (3, 10)):
        before = arrivals.cost
        assert [arrivals.put(read(source)) for _ in range(100)] == [True] * kept + [False] * (100 - kept)
        assert arrivals.cost - before == kept * 1024
    found = all_of(arrivals)
    assert [one.port for one in found[:30]] == [1, 2, 3] * 10
    assert len(found) == 58


@given(st.lists(st.one_of(st.none(), st.tuples(st.integers(1, 40), st.integers(1, 3000)))))
def test_each_source_keeps_its_order_and_nothing_is_beyond_the_room(steps: list[tuple[int, int] | None]) -> None:
    arrivals, put, got = Arrivals(ROOM), [], []
    for number, step in enumerate(steps):
        if step is None:
            if (found := arrivals.take()) is not None:
                got.append(found)
            continue
        source, size = step
        one = read(source, number.to_bytes(4) + bytes(size))
        if arrivals.put(one):
            put.append(one)
        assert arrivals.cost <= ROOM
    got += all_of(arrivals)
    assert arrivals.cost == arrivals.sources == 0
    assert sorted(got) == sorted(put)
    for source in range(1, 41):
        mine = [one for one in got if one.port == source]
        assert mine == sorted(mine)
