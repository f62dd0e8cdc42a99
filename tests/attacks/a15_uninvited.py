"""A peer that nobody invited, at a closed server and a closed relay: everything that it can ask for, and what it gets.

The server is `expose` as it is started without a word about callers, and the relay has a list of one member. The
stranger asks for every protocol that the programs speak, directly and over the relay.
"""

from __future__ import annotations

from collections import Counter

import trio

from punchbridge.access.invitations import Outcome
from punchbridge.access.secret import Secret
from punchbridge.addresses import is_public, is_relayed
from punchbridge.identity import Identity
from punchbridge.sessions.frames import HEADER, Attach, Kind, SessionRefusal
from punchbridge.wire import varint
from punchbridge.wire.autonat import DIAL_BACK, DIAL_REQUEST
from punchbridge.wire.circuit import HOP, STOP, Status
from punchbridge.wire.dcutr import PROTOCOL as DCUTR
from punchbridge.wire.identify import IDENTIFY, PUSH, IdentifyInfo, decode_update
from punchbridge.wire.invite import INVITE, decode_invite_answer, encode_invite_request
from tests.attacks.asks import reserve, session_id, through
from tests.attacks.attacker import Attacker
from tests.attacks.frame import Backend, Row, Stage
from tests.attacks.programs import Listening, Relay
from tests.attacks.wire import EXPECTED, Ended

GRPC, SESSION, PING = "/punchbridge/grpc/1.0.0", "/punchbridge/session/1.0.0", "/ipfs/ping/1.0.0"
STRANGER = "127.0.2.2"
MAY = {IDENTIFY, PUSH, PING, INVITE, SESSION}
"""What a server lets anybody open; a session is refused by its first frame, so that the caller learns why."""


class Stranger:
    """Asks for all there is on one connection. `got`: what it was answered, by what it asked for."""

    def __init__(self) -> None:
        self.got: dict[str, object] = {}
        self.opened: set[str] = set()
        self.pings = 0

    async def ask(self, connection: Attacker, *, seconds: float) -> None:
        self.got["identify"] = await self.identify(connection)
        self.got["session"] = await self.attach(connection)
        self.got["secret"] = await self.guess(connection)
        for protocol in (GRPC, DCUTR, HOP, STOP, DIAL_REQUEST, DIAL_BACK, IDENTIFY, PUSH, PING, INVITE, "/x/1.0.0"):
            if await self.opens(connection, protocol):
                self.opened.add(protocol)
        with trio.move_on_after(seconds):
            await self.flood(connection)

    async def identify(self, connection: Attacker) -> IdentifyInfo:
        stream = await connection.open(IDENTIFY)
        assert connection.peer is not None
        return decode_update(await stream.message(), connection.peer).merged_into(None)

    async def attach(self, connection: Attacker) -> str:
        """The first frame that answers an ATTACH, by name; or why the stream ended."""
        frame = Attach(session_id(), 1, 0, 1 << 20, True, 0, GRPC).encode()
        try:
            stream = await connection.open(SESSION, frame)
            kind, _, value = HEADER.unpack(await stream.need(HEADER.size))
        except Ended as problem:
            return str(problem)
        return f"{Kind(kind).name} {SessionRefusal(value).name}" if kind == Kind.REFUSED else Kind(kind).name

    async def guess(self, connection: Attacker) -> Outcome | None:
        question = varint.prefixed(encode_invite_request(Secret(session_id())))
        stream = await connection.open(INVITE, question)
        return decode_invite_answer(await stream.message()).outcome

    async def opens(self, connection: Attacker, protocol: str) -> bool:
        try:
            with trio.fail_after(10):
                stream = await connection.open(protocol)
            await stream.abort()
        except EXPECTED:
            return False
        return True

    async def flood(self, connection: Attacker) -> None:
        stream = await connection.open(PING)
        while True:
            await stream.send(bytes(32))
            await stream.need(32)
            self.pings += 1


async def main(stage: Stage) -> list[Row]:
    member = Identity.generate()
    relay = await stage.relay("--allow", str(member))
    open_relay = await stage.relay()
    backend = await stage.echo()
    server = await stage.listening("expose", f"127.0.0.1:{backend.port}", relay=open_relay)
    return [
        await _server(stage, server, open_relay, backend, direct=True),
        await _server(stage, server, open_relay, backend, direct=False),
        await _relay(stage, relay),
    ]


async def _server(stage: Stage, server: Listening, relay: Relay, backend: Backend, *, direct: bool) -> Row:
    stranger, seconds = Stranger(), stage.pick(10.0, 4.0)

    async def attack() -> None:
        place = server if direct else relay
        outer = await Attacker.dial(place.ip, place.port, source=STRANGER)
        async with trio.open_nursery() as nursery:
            await nursery.start(outer.run)
            inner = outer if direct else await through(outer, server.peer)
            if not direct:
                await nursery.start(inner.run)
            await stranger.ask(inner, seconds=seconds)
            nursery.cancel_scope.cancel()

    what = f"closed expose, {'directly' if direct else 'over a relay'}: every protocol"
    row = await stage.measure(what, server, attack, seconds=60, calm=0)
    info = stranger.got.get("identify", IdentifyInfo())
    assert isinstance(info, IdentifyInfo)
    row.said.update({name: str(value) for name, value in stranger.got.items() if name != "identify"})
    row.said.update({"opened": " ".join(sorted(stranger.opened)), "pings answered": stranger.pings})
    row.bound("its session is refused with NOT_ALLOWED", stranger.got.get("session") == "REFUSED NOT_ALLOWED")
    row.bound("a guessed secret is unknown", stranger.got.get("secret") is Outcome.UNKNOWN)
    row.bound("identify, ping and invite are all that it may open", stranger.opened <= MAY)
    row.bound("identify names no service", set(info.protocols) <= MAY)
    private = [str(one) for one in info.listen if not is_relayed(one) and not is_public(one)]
    row.bound("identify names no private address", not private)
    row.bound("10 pings and 1 a second answered at most", 0 < stranger.pings <= 10 + 1.5 * seconds + 2)
    row.bound("no connection to the server behind", backend.taken == 0)
    row.bound("no punch begun", not {"punch.started", "punch.succeeded"} & set(server.counts))
    return row


async def _relay(stage: Stage, relay: Relay) -> Row:
    answers: Counter[str] = Counter()

    async def attack() -> None:
        for _ in range(3):
            connection = await Attacker.dial(relay.ip, relay.port, source=STRANGER)
            async with trio.open_nursery() as nursery:
                await nursery.start(connection.run)
                answers[Status((await reserve(connection)).status).name] += 1
                with trio.move_on_after(25):
                    while connection.dead is None:  # noqa: ASYNC110 - it ends by the peer
                        await trio.sleep(0.1)
                answers["sent away"] += connection.dead is not None
                nursery.cancel_scope.cancel()

    row = await stage.measure("closed relay: a reservation, and staying", relay, attack, seconds=80, calm=0)
    row.said.update(answers)
    row.bound("no reservation", set(answers) <= {"PERMISSION_DENIED", "sent away"})
    row.bound("who has neither circuit nor reservation is sent away", answers["sent away"] == 3)
    row.bound("refusals are counted", bool(row.refused))
    return row
