"""Many peers of ours in one process, each with a reservation at one relay and nothing else to do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import trio

sys.path[:0] = [str(Path(__file__).resolve().parents[3] / "src")]

from control import Order, obey_stdin, pinned, ready  # noqa: E402

from punchbridge.addresses import parse  # noqa: E402
from punchbridge.config import Punch  # noqa: E402
from punchbridge.errors import BridgeError  # noqa: E402
from punchbridge.eventhub import EventHub  # noqa: E402
from punchbridge.host.host import HostConfig, open_host  # noqa: E402
from punchbridge.identity import Identity  # noqa: E402

AT_ONCE = 8


async def main() -> None:
    slots = trio.CapacityLimiter(AT_ONCE)
    held = 0

    async def hold(relay: str, done: trio.MemorySendChannel[BridgeError | None]) -> None:
        nonlocal held
        config = HostConfig(Identity.generate(), allow_private=True, punch=Punch(enabled=False), autonat=False)
        async with done, open_host(config, EventHub()) as host:
            try:
                async with slots:
                    await host.relay_client.reserve(parse(relay))
            except BridgeError as problem:
                await done.send(problem)
                return
            held += 1
            await done.send(None)
            await trio.sleep_forever()

    async def obey(order: Order) -> dict[str, Any]:
        wanted = order["count"] - held
        send, receive = trio.open_memory_channel[BridgeError | None](max(1, wanted))
        for _ in range(wanted):
            nursery.start_soon(hold, order["addr"], send.clone())
        for _ in range(wanted):
            if (problem := await receive.receive()) is not None:
                raise problem
        return {"held": held}

    async with trio.open_nursery() as nursery:
        ready("", [], pinned())
        await obey_stdin(obey)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
