"""The specification of sessions (docs/spec-session.md) says what the code does: numbers, vectors, bounds and states."""

from __future__ import annotations

import inspect
import random
import re
from operator import attrgetter
from pathlib import Path
from struct import pack

import pytest

from punchbridge.config import Limits
from punchbridge.errors import ProtocolViolation
from punchbridge.sessions import Attach, Refused, Released, Session, SessionEvent, SessionRefusal, frames, machine
from punchbridge.sessions.carrier import CarrierState
from punchbridge.sessions.frames import HEADER, AttachedFrame, FrameReader, Kind, UnknownVersion, encode, refuse
from tests.support.session_wires import Wires

PAGE = (Path(__file__).parents[2] / "docs/spec-session.md").read_text()
Row = dict[str, str]


def section(heading: str) -> str:
    """What stands under one heading, up to the next one of any level."""
    (text,) = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


def tables(text: str) -> list[list[Row]]:
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines())
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def table(heading: str, first: str) -> list[Row]:
    """The one table of a section whose first column has this name."""
    (rows,) = [rows for rows in tables(section(heading)) if next(iter(rows[0])) == first]
    return rows


def vectors(heading: str) -> list[tuple[Row, bytes]]:
    rows = table(heading, "Vector")
    (block,) = re.findall(r"```hex\n(.*?)```", section(heading), re.DOTALL)
    said = {}
    for lines in re.split(r"\n(?=\w)", block):
        name, text = lines.split(maxsplit=1)
        said[name] = bytes.fromhex(text)
    assert list(said) == [row["Vector"] for row in rows]
    return [(row, said[row["Vector"]]) for row in rows]


def split(raw: bytes) -> tuple[Kind, int, bytes]:
    ((kind, value, payload),) = FrameReader().feed(raw)
    return kind, value, bytes(payload)


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_frame_types() -> None:
    rows = table("Frame types", "Type")
    assert [(int(row["Type"]), row["Name"]) for row in rows] == [(kind.value, kind.name) for kind in Kind]


def test_refusals() -> None:
    rows = table("Refusals", "Number")
    assert [(int(row["Number"]), row["Name"]) for row in rows] == [(one.value, one.name) for one in SessionRefusal]


@pytest.mark.parametrize(
    ("column", "pattern"), [("Code", r'_end\("([A-Z]+)"'), ("Reason", r'Released\([^"]*"([A-Z_]+)')]
)
def test_codes_of_ends(column: str, pattern: str) -> None:
    rows = table("How a session ends", column)
    assert {row[column] for row in rows} == set(re.findall(pattern, inspect.getsource(machine)))


def test_constants() -> None:
    rows = table("Constants and limits", "Constant")
    told = {row["Constant"]: float(row["Value"]) for row in rows}
    names = {name: attrgetter(name)(Limits() if "." in name else frames) for name in told}
    assert told == names
    assert HEADER.size + frames.MAX_PAYLOAD == frames.MAX_FRAME


@pytest.mark.parametrize(
    ("heading", "size"),
    [
        ("The header", HEADER.size),
        ("ATTACH", len(Attach(bytes(16), 1, 0, 0, True, 0).encode()) - HEADER.size),
        ("ATTACHED", len(AttachedFrame(1, 0, 0, False).encode()) - HEADER.size),
    ],
)
def test_byte_tables_leave_no_hole(heading: str, size: int) -> None:
    at = 0
    for row in table(heading, "Offset"):
        assert int(row["Offset"]) == at
        at += int(row["Size"]) if row["Size"].isdecimal() else 0
    assert at == size


# --- vectors ----------------------------------------------------------------------------------------------------------


def made(kind: Kind, value: int, said: Row) -> bytes:
    """The frame that the fields of a good vector describe, as the code writes it."""
    if kind is Kind.ATTACH:
        session, generation = bytes.fromhex(said["session"]), int(said["generation"])
        fresh, alive, edge = said["fresh"] == "1", int(said["alive"]), int(said["edge"])
        return Attach(session, generation, value, edge, fresh, alive, said["service"]).encode()
    if kind is Kind.ATTACHED:
        return AttachedFrame(int(said["generation"]), value, int(said["edge"]), said["drained"] == "1").encode()
    if kind is Kind.REFUSED:
        return refuse(SessionRefusal(value), said["text"])
    if kind is Kind.ACK:
        return encode(kind, value, pack(">Q", int(said["edge"])))
    return encode(kind, value, said.get("text", "").encode())


GOOD, BAD = vectors("Good frames"), vectors("Bad frames")


def named(pairs: list[tuple[Row, bytes]]) -> list[str]:
    return [row["Vector"] for row, _ in pairs]


@pytest.mark.parametrize(("row", "raw"), GOOD, ids=named(GOOD))
def test_good_vector(row: Row, raw: bytes) -> None:
    said = dict(re.findall(r"(\w+)=(.*?)(?= \w+=|$)", row["Fields"]))
    kind, value, payload = split(raw)
    assert (kind.name, value) == (row["Frame"], int(row["Value"]))
    assert made(kind, value, said) == raw
    if kind is Kind.ATTACH:
        assert (Attach.decode(value, payload).encode(), int(said["version"])) == (raw, frames.VERSION)
    if kind is Kind.ATTACHED:
        assert AttachedFrame.decode(value, payload).encode() == raw


def test_every_frame_type_has_a_vector() -> None:
    assert {row["Frame"] for row, _ in GOOD} == {kind.name for kind in Kind}


@pytest.mark.parametrize(("row", "raw"), BAD, ids=named(BAD))
def test_bad_vector(row: Row, raw: bytes) -> None:
    good = {one["Vector"]: whole for one, whole in GOOD}
    opening, wires = Attach.decode(*split(good["V1"])[1:]), Wires()
    assert row["Where"] in ("first", "answer", "attached")
    if row["Where"] == "first":
        with pytest.raises(ProtocolViolation) as caught:
            Attach.decode(*split(raw)[1:])
        assert isinstance(caught.value, UnknownVersion) is (row["Outcome"] == SessionRefusal.BAD_VERSION.name)
        return
    assert row["Outcome"] == "reset"
    if row["Where"] == "answer":
        end = wires.dialler
        assert end.attach(wires.now) == opening.generation
    else:
        end = Session(opening.session, opening.service, dialling=False, now=wires.now)
        assert end.attached_by(opening, wires.now)[0] is None
        assert b"".join(end.output(1, 1 << 20, wires.now)[0]) == good["V4"]
    released = [event for event in end.received(1, raw, wires.now) if isinstance(event, Released)]
    assert [event.reason[:9] for event in released] == ["PROTOCOL:"]
    assert end.carriers == ()
    assert end.over is None


# --- states -----------------------------------------------------------------------------------------------------------

SESSION_STATES, CARRIER_STATES = table("The session", "Session state"), table("The carrier", "Carrier state")
MARKS = {"none": (None,), "true": (True,), "false": (False,), "yes": (True,), "no": (False,)}


def fits(mark: str, value: object) -> bool:
    return mark == "any" or (value is not None if mark == "set" else value in MARKS[mark])


def session_state(end: Session) -> str:
    fields = ("over", "active", "_established", "_starved_at")
    (state,) = [row for row in SESSION_STATES if all(fits(row[name], getattr(end, name)) for name in fields)]
    return state["Session state"]


def carrier_state(end: Session, carrier: CarrierState) -> str:
    values = {name: getattr(carrier, name) for name in ("attached", "end_sent", "end_received", "asked_at")}
    values["it is `active`"] = end.active == carrier.generation
    (state,) = [row for row in CARRIER_STATES if all(fits(row[name], value) for name, value in values.items())]
    return state["Carrier state"]


class Watched(Session):
    """A session that notes each change of its own state and of its carriers' states."""

    moves: set[tuple[str, str]]
    carrier_moves: set[tuple[str, str]]
    _was = "OPENING"
    _were: dict[int, str]

    def look(self) -> None:
        state = session_state(self)
        self.moves.add((self._was, state))
        self._was = state
        if self.over is not None:
            return
        now = {generation: carrier_state(self, one) for generation, one in self._carriers.items()}
        for generation in self._were.keys() | now.keys():
            self.carrier_moves.add((self._were.get(generation, "NEW"), now.get(generation, "GONE")))
        self._were = now

    def attach(self, now: float) -> int:
        generation = super().attach(now)
        self.look()
        return generation

    def attached_by(self, attach: Attach, now: float) -> tuple[SessionRefusal | None, list[SessionEvent]]:
        outcome = super().attached_by(attach, now)
        self.look()
        return outcome

    def lost(self, generation: int, reason: str, now: float) -> list[SessionEvent]:
        events = super().lost(generation, reason, now)
        self.look()
        return events

    def received(self, generation: int, data: bytes | bytearray | memoryview, now: float) -> list[SessionEvent]:
        events = super().received(generation, data, now)
        self.look()
        return events

    def _frame(
        self, carrier: CarrierState, kind: Kind, value: int, payload: memoryview, now: float
    ) -> list[SessionEvent]:
        events = super()._frame(carrier, kind, value, payload, now)
        self.look()
        return events

    def after_output(self, generation: int) -> list[SessionEvent]:
        events = super().after_output(generation)
        self.look()
        return events

    def tick(self, now: float) -> list[SessionEvent]:
        events = super().tick(now)
        self.look()
        return events

    def reset(self, text: str) -> list[SessionEvent]:
        events = super().reset(text)
        self.look()
        return events


class Watching(Wires):
    """Two watched ends, and what they went through."""

    def __init__(self) -> None:
        super().__init__()
        self.dialler = Watched(self.dialler.id, "echo", dialling=True, now=self.now)
        self.acceptor = Watched(self.dialler.id, "echo", dialling=False, now=self.now)
        for end in (self.dialler, self.acceptor):
            end.moves, end.carrier_moves, end._were = set(), set(), {}


def wander(seed: int) -> Watching:
    """Any history: moves, cuts that one end notices first, silence, half-close, resets, and a peer that lies."""
    chance, wires = random.Random(seed), Watching()
    wires.attach()
    for _ in range(chance.choice((4, 40, 160))):
        who = chance.choice(("dialler", "acceptor"))
        end, action = wires.end(who), chance.random()
        generation = chance.choice(sorted(wires.queues)) if wires.queues else 0
        if action < 0.1:
            end.write(bytes(chance.choice((1, 700))), wires.now)
        elif action < 0.7:
            wires.flush(who, generation)
            wires.deliver(who, generation, chance.choice((13, 1 << 20)))
            wires.read(who)
        elif action < 0.78:
            wires.note(who, end.lost(generation, "CUT", wires.now))
        elif action < 0.9 and not wires.dialler.crowded and wires.dialler.over is None:
            wires.attach()
        elif action < 0.96:
            wires.now += chance.choice((0.02, 0.4, 1.1, 31.0)) if chance.random() < 0.5 else 0.02
            wires.note(who, end.tick(wires.now))
        elif action < 0.97:
            end.finish()
        elif action < 0.975:
            wires.note(who, end.reset("given up"))
        elif action < 0.985:
            told = refuse(chance.choice(list(SessionRefusal)), "no")
            wires.note("dialler", wires.dialler.received(generation, told, wires.now))
        else:
            wires.note(who, end.received(generation, encode(Kind.END, 0), wires.now))
    return wires


def listed(heading: str) -> set[tuple[str, str]]:
    return {(row["From"], row["To"]) for row in table(heading, "From")}


def test_states_are_told_apart_and_change_as_the_tables_say() -> None:
    """Each state that an end is seen in is one row, and the changes that happen are those that are listed."""
    sessions: set[tuple[str, str]] = set()
    carriers: set[tuple[str, str]] = set()
    for seed in range(1000):
        wires = wander(seed)
        for end in (wires.dialler, wires.acceptor):
            assert isinstance(end, Watched)
            sessions |= end.moves
            carriers |= end.carrier_moves
    assert sessions - {("OVER", "OVER")} == listed("The session")
    assert {(one, other) for one, other in carriers if one != other} == listed("The carrier")


@pytest.mark.parametrize("row", table("Refusals", "Number"), ids=lambda row: str(row["Name"]))
@pytest.mark.parametrize("established", [False, True])
def test_what_a_refusal_does_to_the_session(row: Row, established: bool) -> None:
    wires, goes_on = Wires(), row["What the dialling end does"]
    if established:
        wires.attach()
        wires.settle()
    generation = wires.attach()
    refusal = SessionRefusal[row["Name"]]
    events = wires.dialler.received(generation, refuse(refusal, "no"), wires.now)
    assert events[0] == Refused(generation, refusal, "no")
    lives = goes_on.startswith("the session goes on") or ("that was attached before goes on" in goes_on and established)
    assert (wires.dialler.over is None) is lives
