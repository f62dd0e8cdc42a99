"""Fulfils the suites' contract with any peer of the interop suite, named by ADAPTER_KIND: orders on its line protocol.

For implementations whose own programs for the suites are container images. Routes, Redis and the result are done
here; everything libp2p is done by the peer. Ours proper does not pass through here (`contract.ours`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial

import trio
from foreign.peer import Event, Peer, PeerFailed

from contract.settings import Meeting, Settings, Unusable, expected_side, log, meeting, own_ip, result, run

PINGS = 4
PING_PAUSE = 0.1
POLL = 0.02

blocking = trio.to_thread.run_sync


def wait(ready: Callable[[], object], what: str, seconds: float) -> None:
    """Peers answer questions, they cannot be waited for. Raises PeerFailed."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise PeerFailed(f"{what} within {seconds:g} s")
        time.sleep(POLL)


def knows_itself(peer: Peer, ip: str) -> None:
    """go offers DCUtR only once it knows a public address of its own; who meets it before waits in vain."""
    if peer.kind == "go":
        wait(lambda: any(ip not in addr for one in peer.find("addrs") for addr in one["addrs"]), "no own address", 20)


async def relay(kind: str, settings: Settings, place: Meeting) -> None:
    if settings.ip is None:
        raise Unusable("RELAY_IP is not set")
    peer = await blocking(partial(Peer, kind, "-listen", settings.place(settings.ip), "-relay"))
    await place.tell_relay(peer.addr)
    await trio.sleep_forever()


class Told(list[Event]):
    """What a peer told; each event goes to the log at once."""

    def append(self, event: Event) -> None:
        log(f"{event}")
        super().append(event)


def client(kind: str, place: str) -> Peer:
    peer = Peer(kind, "-listen", place, "-punch", "-observers", "1")
    peer.events = Told(peer.events)
    return peer


async def listener(kind: str, settings: Settings, place: Meeting) -> None:
    addr = await place.relay()
    ip = settings.ip or own_ip(addr)
    peer = await blocking(client, kind, settings.place(ip))
    await blocking(partial(peer.ask, "reserve", addr=addr))
    await blocking(knows_itself, peer, ip)
    await place.tell_listener(peer.id)
    await trio.sleep_forever()


async def dialer(kind: str, settings: Settings, place: Meeting) -> None:
    addr = await place.relay()
    ip = settings.ip or own_ip(addr)
    peer = await blocking(client, kind, settings.place(ip))
    await blocking(partial(peer.ask, "dial", addr=addr))
    await blocking(knows_itself, peer, ip)
    other = await place.listener()
    handshake, remote, rtt = await blocking(punch, peer, addr, other, settings.seconds)
    expected_side(settings, remote.split("/")[2])
    log(f"direct with {remote} after {handshake:.3f} s")
    print(result(settings.suite, handshake, rtt), flush=True)
    peer.process.kill()


def punch(peer: Peer, relay_addr: str, other: str, seconds: float) -> tuple[float, str, float]:
    """(seconds until direct, the direct connection's remote address, its round trip in seconds)."""
    began = time.monotonic()
    peer.ask("dial", addr=f"{relay_addr}/p2p-circuit/p2p/{other}")
    direct: list[str] = []

    def is_direct() -> bool:
        direct[:] = [one["remote"] for one in peer.ask("conns", peer=other)["conns"] if not one["relay"]]
        return bool(direct)

    wait(is_direct, "no direct connection", seconds)
    handshake = time.monotonic() - began
    times = []
    for _ in range(PINGS):  # some ping on each connection in turn: the direct one is the faster
        times += peer.ask("ping", peer=other, count=1)["ms"]
        time.sleep(PING_PAUSE)
    log(f"pings {times}")
    return handshake, direct[0], min(times) / 1000


async def main(settings: Settings) -> None:
    play = {"relay": relay, "listener": listener, "dialer": dialer}[settings.role]
    async with meeting(settings) as place:
        await play(os.environ["ADAPTER_KIND"], settings, place)


if __name__ == "__main__":
    sys.exit(run(main, PeerFailed))
