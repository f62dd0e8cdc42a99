"""What connections hold together: growth from one budget, and who is cut when it is too much."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from punchbridge.config import MemoryLimits
from punchbridge.tasks.memory import Account, Memory

NOW = 100.0


@dataclass
class Holder:
    """A connection with so many bytes in things of a size, the last of which moved at `moved`."""

    account: Account
    things: list[int] = field(default_factory=list)
    moved: float = 0.0

    def __post_init__(self) -> None:
        self.account.watch(lambda: sum(self.things), self.cut)

    def cut(self, since: float) -> None:
        if self.things and self.moved <= since:
            self.things.remove(max(self.things))

    def hold(self, *sizes: int, now: float = NOW) -> None:
        self.things += sizes
        self.account.settle(now)


def memory(**limits: float) -> tuple[Memory, list[str]]:
    small: dict[str, float] = {
        "windows": 1000,
        "windows_per_address": 600,
        "held": 1000,
        "held_per_address": 400,
        "stalled_per_address": 100,
        "stalled": 1.0,
    }
    told: list[str] = []
    return Memory(MemoryLimits(**small | limits), lambda account: told.append(account.origin)), told  # type: ignore[arg-type]


def test_windows_grow_by_one_budget_and_an_address_by_its_share() -> None:
    all_of_it, _ = memory()
    first, second, other = (all_of_it.account(origin) for origin in ("a", "a", "b"))
    assert first.grow(500) == 500
    assert second.grow(500) == 100, "the share of their address"
    assert other.grow(500) == 400, "what is left of all"
    first.shrink(300)
    assert second.grow(500) == 300
    second.close()
    assert other.grow(500) == 200, "the share of the other address"
    assert (all_of_it.granted, first.granted, other.granted) == (800, 200, 600)


def test_a_closed_account_has_given_back_everything_and_takes_nothing() -> None:
    all_of_it, _ = memory()
    account = all_of_it.account("a")
    account.grow(500)
    account.unread = 50
    account.settle(NOW)
    assert (all_of_it.held, all_of_it.granted) == (50, 500)
    account.close()
    account.close()
    account.shrink(500)
    account.settle(NOW)
    assert account.grow(100) == 0
    assert (all_of_it.held, all_of_it.granted) == (0, 0)


def test_of_an_address_the_largest_that_does_not_move_goes() -> None:
    all_of_it, told = memory()
    small, large, moving, other = (Holder(all_of_it.account(origin)) for origin in ("a", "a", "a", "b"))
    moving.moved = NOW
    moving.hold(90)
    other.hold(90)
    large.hold(4, 5)
    assert told == []
    small.hold(1, 1)
    assert (small.things, large.things, moving.things, other.things) == ([1, 1], [4], [90], [90])
    assert told == ["a"]


def test_what_moves_goes_at_the_bound_of_everything() -> None:
    all_of_it, told = memory()
    one, two = Holder(all_of_it.account("a"), moved=NOW), Holder(all_of_it.account("a"), moved=NOW)
    one.hold(150)
    two.hold(200)
    assert told == [], "it is slow, but it moves"
    two.hold(60)
    assert (one.things, two.things) == ([150], [60])


@pytest.mark.parametrize("granted", [0, 200])
def test_what_windows_have_grown_by_comes_on_top(granted: int) -> None:
    all_of_it, told = memory()
    holder = Holder(all_of_it.account("a"))
    assert holder.account.grow(granted) == granted
    holder.hold(60, 60)
    assert holder.things == ([60, 60] if granted else [60])
    assert bool(told) is not bool(granted)


def test_of_all_addresses_the_fullest_is_cut() -> None:
    all_of_it, told = memory(stalled_per_address=400)
    holders = [Holder(all_of_it.account(str(number)), moved=NOW) for number in range(4)]
    for holder, size in zip(holders, (300, 310, 290, 150), strict=True):
        holder.hold(size)
    assert told == ["1"]
    assert [holder.things for holder in holders] == [[300], [], [290], [150]]


def test_who_has_given_it_up_meanwhile_is_not_cut() -> None:
    all_of_it, told = memory()
    one, two = Holder(all_of_it.account("a")), Holder(all_of_it.account("a"))
    one.hold(90)
    one.things.clear()  # it was read, and no byte came since
    two.hold(50)
    assert told == []


def test_nobody_pays_for_one_that_cannot_be_cut() -> None:
    all_of_it, told = memory()
    stuck = all_of_it.account("a")
    stuck.unread = 5000
    stuck.settle(NOW)
    other = Holder(all_of_it.account("b"), moved=NOW)
    other.hold(50)
    assert (told, other.things) == ([], [50])
