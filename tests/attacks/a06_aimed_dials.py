"""Addresses that a stranger names in identify, DCUtR and AutoNAT: which of them a program dials.

In a namespace whose every address leads to one trap, that counts connections by the address that was dialled. Each list
ends in a public address, so that the filter is seen to let something through.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Sequence

import trio

from punchbridge.addresses import Multiaddr, parse
from punchbridge.identity import Identity
from punchbridge.wire import varint
from punchbridge.wire.autonat import DIAL_REQUEST, Answer, decode_for_client, encode_request
from punchbridge.wire.dcutr import PROTOCOL as DCUTR
from punchbridge.wire.dcutr import encode_connect
from tests.attacks.asks import through
from tests.attacks.attacker import Attacker
from tests.attacks.frame import Row, Stage
from tests.attacks.programs import Program, Relay
from tests.attacks.wire import EXPECTED, Stream

NAMESPACES = True

RELAY, EXPOSED, STRANGER = "11.0.0.1", "11.0.0.2", "11.0.0.66"
PUBLIC = "11.9.0.1"
"""What may be dialled: an address that no special-purpose table holds."""

REFUSED: Sequence[str] = (
    *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "0.1.2.3", "192.0.0.8"),
    *("192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1", "224.0.0.1", "240.0.0.1"),
    *("::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1"),
    *("100::1", "2001::7f00:1", "2001:db8::1", "2002:7f00:1::1", "200:1::1", "3fff::1", "4000::1", "5f00::1"),
    *("e000::1", "fc00::1", "fec0::2", "fe80::1", "ff02::1", "2a00:b::200:5efe:7f00:1", "2a00:b::5efe:a00:1"),
)
"""Addresses of machines that a stranger has no business with; each is of another kind."""


class Trap:
    """Listens on one port of every address; `dialled` counts connections by the address that was dialled."""

    def __init__(self) -> None:
        self.dialled: Counter[str] = Counter()
        self.port = 0

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        (four,) = await trio.open_tcp_listeners(0, host="0.0.0.0")
        self.port = four.socket.getsockname()[1]
        (six,) = await trio.open_tcp_listeners(self.port, host="::")
        task_status.started()
        await trio.serve_listeners(self._count, [four, six])

    async def _count(self, stream: trio.SocketStream) -> None:
        self.dialled[stream.socket.getsockname()[0].removeprefix("::ffff:")] += 1
        await stream.aclose()

    def addrs(self, ips: Sequence[str]) -> tuple[Multiaddr, ...]:
        return tuple(parse(f"/{'ip6' if ':' in ip else 'ip4'}/{ip}/tcp/{self.port}") for ip in ips)


class Aimer:
    """A stranger behind the relay, with a fresh identity for each list of addresses."""

    def __init__(self, relay: Relay, trap: Trap) -> None:
        self.relay, self.trap = relay, trap
        self.exchanges = self.circuits = 0

    async def punches(self, target: str, lists: Sequence[Sequence[str]]) -> None:
        for ips in lists:
            with trio.move_on_after(8):
                await self._once(target, self.trap.addrs(ips))

    async def _once(self, target: str, addrs: tuple[Multiaddr, ...]) -> None:
        outer = await Attacker.dial(self.relay.ip, self.relay.port, source=STRANGER, identity=Identity.generate())
        done = trio.Event()

        async def exchange(stream: Stream) -> None:
            await stream.message()
            words = varint.prefixed(encode_connect(addrs))
            await stream.send(words)
            await stream.message()
            self.exchanges += 1
            await trio.sleep(1.5)  # the dials of the attempt
            done.set()

        async with trio.open_nursery() as nursery:
            await nursery.start(outer.run)
            inner = await through(outer, target)
            self.circuits += 1
            inner.listen = addrs[:-1]
            await nursery.start(inner.run)
            nursery.start_soon(lambda: inner.serve({DCUTR: exchange}))
            await done.wait()
            outer.abort()
            nursery.cancel_scope.cancel()

    async def autonat(self, ips: Sequence[str]) -> Answer:
        """Which of the addresses the relay's AutoNAT chose."""
        connection = await Attacker.dial(self.relay.ip, self.relay.port, source=STRANGER)
        async with trio.open_nursery() as nursery:
            await nursery.start(connection.run)
            stream = await connection.open(DIAL_REQUEST, varint.prefixed(encode_request(self.trap.addrs(ips), 7)))
            with trio.fail_after(20):
                answer = decode_for_client(await stream.message())
            nursery.cancel_scope.cancel()
        assert isinstance(answer, Answer), answer
        return answer


def _every_address_is_here() -> None:
    for command in (
        "route add local 0.0.0.0/0 dev lo",
        "-6 route add local ::/0 dev lo",
        *(f"addr add {ip}/32 dev lo" for ip in (RELAY, EXPOSED, STRANGER)),
        "-6 addr add 2a00:b::2/128 dev lo nodad",
    ):
        subprocess.run(["ip", *command.split()], check=True)


async def main(stage: Stage) -> list[Row]:
    _every_address_is_here()
    trap = Trap()
    await stage.nursery.start(trap.serve)
    relay = await stage.relay(listen=f"/ip4/{RELAY}/tcp/0", lan=False)
    refused = REFUSED[:: 4 if stage.short else 1]
    lists = [[*refused[start : start + 3], PUBLIC] for start in range(0, len(refused), 3)]
    return [
        await _autonat(stage, relay, trap, refused),
        await _punch(stage, relay, trap, lists, "--open"),
        await _punch(stage, relay, trap, lists[:3]),
    ]


async def _autonat(stage: Stage, relay: Relay, trap: Trap, refused: Sequence[str]) -> Row:
    answers: list[Answer] = []

    async def attack() -> None:
        answers.append(await Aimer(relay, trap).autonat([*refused, STRANGER]))

    row = await stage.measure(f"AutoNAT of a relay: {len(refused)} addresses", relay, attack, seconds=25, calm=0)
    row.said.update(_told(trap))
    row.bound("its own address is dialled, the last of the list", [one.index for one in answers] == [len(refused)])
    row.bound("no other is dialled", set(trap.dialled) == {STRANGER})
    return row


async def _punch(stage: Stage, relay: Relay, trap: Trap, lists: Sequence[Sequence[str]], *flags: str) -> Row:
    victim: Program = stage.start(
        Program,
        "expose", "127.0.0.1:9", "--relay", relay.addr, *flags, "--ephemeral",
        "--listen", f"/ip4/{EXPOSED}/tcp/0", "--listen", "/ip6/2a00:b::2/tcp/0",
    )  # fmt: skip
    target = (await victim.event("reservation.accepted"))["addrs"][0].rpartition("/")[2]
    aimer = Aimer(relay, trap)
    trap.dialled.clear()
    what = f"DCUtR of {' '.join(('expose', *flags))}: {len(lists)} lists of addresses"

    async def attack() -> None:
        try:
            await aimer.punches(target, lists)
        except* EXPECTED:
            pass

    row = await stage.measure(what, victim, attack, seconds=9.0 * len(lists), calm=0)
    row.said.update({"circuits": aimer.circuits, "exchanges": aimer.exchanges, **_told(trap)})
    if flags:
        row.bound("public addresses are dialled", trap.dialled[PUBLIC] > 0)
        row.bound("no other is dialled", set(trap.dialled) <= {PUBLIC, STRANGER})
    else:
        row.bound("no exchange with somebody who is not admitted", aimer.exchanges == 0)
        row.bound("nothing is dialled", not trap.dialled)
    victim.stop()
    return row


def _told(trap: Trap) -> dict[str, str]:
    dialled = ", ".join(f"{ip} ({times})" for ip, times in sorted(trap.dialled.items()))
    return {"dialled": dialled or "nothing"}
