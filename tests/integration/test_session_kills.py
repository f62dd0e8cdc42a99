"""A session whose connection is killed while another one stands: it goes on there at once, not after a back-off."""

from __future__ import annotations

from test_session import pair, read_exactly, until

from bridge.limits.session import SESSION_RETRY_FIRST

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
        assert min(gaps) < 1000 * SESSION_RETRY_FIRST, gaps
        stream.abort()
