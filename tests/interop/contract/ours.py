"""Our entry point for the published hole-punch suites: the environment in, relay, listener or dialer, the result out.

The library itself, no helper between. Logs go to stderr; the dialer's stdout is the result, exit status 0 only when
a round trip was made on a direct connection. The others run until they are stopped.
"""

from __future__ import annotations

import sys
from contextlib import aclosing

import trio

from contract.settings import Meeting, Settings, expected_side, log, meeting, own_ip, result, run
from punchbridge.access.policy import OPEN
from punchbridge.addresses import endpoint_of, parse, with_peer
from punchbridge.config import Punch
from punchbridge.errors import BridgeError
from punchbridge.eventhub import EventHub
from punchbridge.events import Event
from punchbridge.host.host import Host, HostConfig, open_host
from punchbridge.identity import Identity, parse_peer_id, peer_text
from punchbridge_relay.limits import RelayLimits
from punchbridge_relay.service import HopService

PINGS = 5
PING_PAUSE = 0.1


def on_event(event: Event) -> None:
    log(f"{event.name} {event.as_dict()}")


async def relay(host: Host, settings: Settings, place: Meeting) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(HopService(host.swarm, RelayLimits()).run)
        found = await host.swarm.listen(parse(settings.place(settings.ip or "0.0.0.0")))
        outside = next(addr for addr in found if "/ip4/127." not in str(addr))
        await place.tell_relay(str(with_peer(outside, host.swarm.peer)))


async def listener(host: Host, settings: Settings, place: Meeting) -> None:
    addr = await place.relay()
    await host.swarm.listen(parse(settings.place(settings.ip or own_ip(addr))))
    await host.relay_client.reserve(parse(addr))
    await place.tell_listener(peer_text(host.swarm.peer))
    await trio.sleep_forever()


async def dialer(host: Host, settings: Settings, place: Meeting) -> None:
    assert host.dcutr is not None
    addr = await place.relay()
    await host.swarm.listen(parse(settings.place(settings.ip or own_ip(addr))))
    await host.swarm.dial(parse(addr))  # it tells us how we are seen
    peer = await place.listener()
    began = trio.current_time()
    await host.swarm.dial(parse(f"{addr}/p2p-circuit/p2p/{peer}"))
    direct = await host.dcutr.wait_direct(parse_peer_id(peer))
    handshake = trio.current_time() - began
    remote = endpoint_of(direct.remote)
    assert remote is not None
    expected_side(settings, remote.host)
    async with aclosing(host.ping.ping(direct, PINGS, interval=PING_PAUSE)) as pings:  # type: ignore[type-var]
        times = [seconds async for seconds in pings]
    log(f"direct with {direct.remote} after {handshake:.3f} s, pings {times}")
    print(result(settings.suite, handshake, min(times)), flush=True)


async def main(settings: Settings) -> None:
    hub = EventHub()
    hub.subscribe(on_event)
    # The suites' WAN is private address space.
    config = HostConfig(
        Identity.generate(),
        access=OPEN,
        allow_private=True,
        punch=Punch(enabled=settings.role != "relay"),
        autonat=False,
    )
    play = {"relay": relay, "listener": listener, "dialer": dialer}[settings.role]
    async with meeting(settings) as place, open_host(config, hub) as host:
        await play(host, settings, place)


if __name__ == "__main__":
    sys.exit(run(main, BridgeError))
