"""A session whose connection is killed while another one stands: it goes on there at once, not after a back-off."""

from __future__ import annotations

import trio

from punchbridge.config import PathLimits
from punchbridge.session.keeper import SessionKeeper
from tests.support.session_lab import Route, pair, read_exactly, until

KILLS = 8


async def test_a_killed_connection_is_not_tried_again() -> None:
    """The keeper resumes on the newest connection; the one that just died is it, and the swarm lists it a moment more.

    The quickest of several gaps is judged: a busy machine makes some of them longer, the back-off made all of them.
    """
    async with pair() as both:
        await both.connect()
        stream = await both.open()
        for number in range(1, KILLS + 1):
            active = both.dialler.sessions.opened[0].active
            assert active is not None
            active.connection.abort("CUT")
            await stream.send_all(b"still here")
            assert await read_exactly(stream, 10) == b"still here"
            await until(lambda count=number: sum(not one.planned for one in both.switches()) >= count)
            newest = await both.connect()
            assert await both.dialler.sessions.move(both.dialler.sessions.opened[0], newest, "NEWEST")
        gaps = [one.gap_ms for one in both.switches() if not one.planned]
        assert min(gaps) < 1000 * PathLimits().retry, gaps
        stream.abort()


async def test_a_carrier_that_dies_while_a_failed_move_is_waited_for_ends_the_wait() -> None:
    async with pair() as both, trio.open_nursery() as nursery:
        stream = await both.open()
        session = both.dialler.sessions.opened[0]
        route = Route(both.peer, both.addr)
        keeper = SessionKeeper(both.dialler.sessions._host, session, route, "any", both.dialler.sessions.move, nursery)
        keeper._pause = 30.0
        waited = trio.Event()

        async def wait() -> None:
            await keeper._backoff()
            waited.set()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not waited.is_set()
        active = session.active
        assert active is not None
        active.connection.abort("CUT")
        with trio.fail_after(5):
            await waited.wait()
        stream.abort()
