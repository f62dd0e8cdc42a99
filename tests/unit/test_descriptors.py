"""How close the process is to its limit of open files, and the spare file."""

from __future__ import annotations

import os
import resource

from punchbridge.tasks.descriptors import Spare, room_above


def test_room_is_what_is_above_the_newest_file() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert room_above(soft - 1) == 0
    assert room_above(soft - 6) == 5
    assert room_above(soft + 7) == 0, "the limit was lowered below it"


def test_a_spare_file_gives_its_number_back() -> None:
    spare = Spare()
    assert not spare.give_up()
    spare.hold()
    spare.hold()
    free = os.dup(0)
    os.close(free)
    assert spare.give_up()
    given = os.dup(0)
    os.close(given)
    assert given < free
    assert not spare.give_up()


def test_a_spare_file_that_cannot_be_had_is_no_fault() -> None:
    spare = Spare()
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        spare.hold()
        assert not spare.give_up()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
