"""Our relay without limits on what it carries. Limits of number are wide, for the part that counts memory."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import trio

sys.path[:0] = [str(Path(__file__).resolve().parents[3] / "src")]

from control import Order, obey_stdin, pinned, ready  # noqa: E402

from punchbridge.access.policy import OPEN  # noqa: E402
from punchbridge.addresses import parse, with_peer  # noqa: E402
from punchbridge.config import Limits, Punch, SwarmLimits  # noqa: E402
from punchbridge.eventhub import EventHub  # noqa: E402
from punchbridge.host.host import HostConfig, open_host  # noqa: E402
from punchbridge.identity import Identity, peer_text  # noqa: E402
from punchbridge_relay.limits import RelayLimits  # noqa: E402
from punchbridge_relay.service import HopService  # noqa: E402

MANY = 4096
LIMITS = RelayLimits(
    reservations=MANY,
    reservations_per_address=0,
    circuits=MANY,
    circuits_per_peer=0,
    circuit_seconds=0,
    circuit_bytes=0,
    peer_burst=MANY,
    address_burst=4 * MANY,
)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", default="/ip4/127.0.0.1/tcp/0")
    options = parser.parse_args()
    config = HostConfig(
        Identity.generate(),
        access=OPEN,
        allow_private=True,
        punch=Punch(enabled=False),
        autonat=False,
        limits=Limits(swarm=SwarmLimits(connections=MANY, connections_per_address=MANY)),
    )

    async def obey(order: Order) -> dict[str, int]:
        stats = service.stats()
        return {"reservations": stats.reservations, "circuits": stats.circuits}

    async with open_host(config, EventHub()) as host, trio.open_nursery() as nursery:
        service = HopService(host.swarm, LIMITS)
        await nursery.start(service.run)
        await host.swarm.listen(parse(options.listen))
        me = host.swarm.peer
        ready(peer_text(me), [str(with_peer(one, me)) for one in host.swarm.listen_addrs()], pinned())
        await obey_stdin(obey)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
