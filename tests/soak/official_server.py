"""The other half of official.py: gRPC's official Python interop server, unmodified, behind the bridge.

official_server.py --listen ADDR … --relay ADDR --peer FOLDER
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import trio
from common import resident, say

import punchbridge
from punchbridge.local import expose

START_SECONDS = 30.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def answering(port: int) -> None:
    """Until the server listens. Raises trio.TooSlowError."""
    with trio.fail_after(START_SECONDS):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.05)
                continue
            await stream.aclose()
            return


async def run(arguments: argparse.Namespace) -> None:
    port = free_port()
    env = {**os.environ, "PYTHONPATH": f"{arguments.peer / 'tree'}:{arguments.peer / 'site'}"}
    argv = [sys.executable, "-m", "tests.interop.server", "--port", str(port)]
    async with (
        punchbridge.open_trio(
            listen=arguments.listen,
            relays=[arguments.relay],
            punch=False,
            allow_private=arguments.lan,
            allow=punchbridge.ANYONE,
        ) as b,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(
            partial(trio.run_process, argv, cwd=arguments.peer / "tree", env=env, stderr=subprocess.DEVNULL)
        )
        await answering(port)
        await nursery.start(partial(expose.run, b.host, f"127.0.0.1:{port}"))
        await b.wait_reservation(START_SECONDS)
        say("ready", peer_id=b.peer_id, listen=[str(addr) for addr in b.host.swarm.listen_addrs()])
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            nursery.start_soon(report_memory)
            async for _ in signals:
                break
        nursery.cancel_scope.cancel()


async def report_memory() -> None:
    while True:
        say("memory", resident=resident())
        await trio.sleep(1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", action="append", required=True)
    parser.add_argument("--relay", required=True)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--lan", action="store_true")
    trio.run(run, parser.parse_args())


if __name__ == "__main__":
    main()
