"""When free memory goes back to the system."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from punchbridge.config import MIB
from punchbridge.tasks import heap
from punchbridge.tasks.memory import Memory


@pytest.mark.parametrize(("most", "held", "times"), [(8 * MIB, MIB, 1), (8 * MIB, 5 * MIB, 0), (3 * MIB, 0, 0)])
async def test_once_after_much_was_held(
    most: int, held: int, times: int, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(heap, "_malloc_trim", lambda: asked.append)
    memory = Memory()
    account = memory.account("a")
    for size in (most, held):
        account.unread = size
        account.settle(0.0)
    with trio.move_on_after(100):
        await heap.give_back(memory, 20.0)
    assert asked == [0] * times


def test_the_c_library_of_this_machine_has_the_call_or_none() -> None:
    trim = heap._malloc_trim()
    assert trim is None or trim(0) in (0, 1)
