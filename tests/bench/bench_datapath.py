"""The data path against a stock py-libp2p host: throughput and echo time, two processes each, rounds interleaved.

Run: python tests/bench/bench_datapath.py [--rounds 5] [--mib 64]. Prints medians and ratios; asserts nothing.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import trio

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

SINK, ECHO = "/bench/sink/1.0.0", "/bench/echo/1.0.0"
CHUNK = bytes(65536)
ECHOES = 1500


# --- ours ---------------------------------------------------------------------------------------------------


async def serve_ours() -> None:
    from bridge.addresses import parse
    from bridge.errors import StreamReset
    from bridge.identity import Identity
    from bridge.net.tcp import TcpStream, listen_socket
    from bridge.swarm.link import Link
    from bridge.swarm.stream import Stream
    from bridge.swarm.upgrade import upgrade

    identity = Identity.generate()
    listener = listen_socket(parse("/ip4/127.0.0.1/tcp/0"))
    print(listener.getsockname()[1], identity, flush=True)

    async def handle(stream: Stream) -> None:
        try:
            await answer(stream)
        except StreamReset:
            pass  # the client is done

    async def answer(stream: Stream) -> None:
        if stream.protocol == ECHO:
            while data := await stream.receive_some():
                await stream.send_all(data)
        else:
            total = 0
            while data := await stream.receive_some():
                total += len(data)
            await stream.send_all(b"!")
        await stream.aclose()

    async def serve(tcp: TcpStream) -> None:
        link = Link(tcp, tcp.local, tcp.remote, "direct", True)
        connection = await upgrade(link, role="responder", identity=identity, expected=None)
        await connection.run(lambda stream, _: nursery.start_soon(handle, stream), lambda: (SINK, ECHO))

    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(serve, TcpStream((await listener.accept())[0]))


async def run_ours(port: int, peer: str, mib: int) -> tuple[float, float]:
    from bridge.addresses import parse
    from bridge.identity import Identity, parse_peer_id
    from bridge.net.tcp import connect
    from bridge.swarm.link import Link
    from bridge.swarm.upgrade import upgrade

    tcp = await connect(parse(f"/ip4/127.0.0.1/tcp/{port}"), timeout=5)
    link = Link(tcp, tcp.local, tcp.remote, "direct", False)
    connection = await upgrade(link, role="initiator", identity=Identity.generate(), expected=parse_peer_id(peer))
    async with trio.open_nursery() as nursery:
        await nursery.start(connection.run, lambda stream, _: stream.abort(), lambda: ())
        stream = await connection.open_stream([SINK])
        start = time.perf_counter()
        for _ in range(mib * 16):
            await stream.send_all(CHUNK)
        await stream.send_eof()
        assert await stream.receive_some(1) == b"!"
        rate = mib * 1.048576 / (time.perf_counter() - start)
        stream = await connection.open_stream([ECHO])
        times = []
        for _ in range(ECHOES):
            start = time.perf_counter()
            await stream.send_all(b"x" * 32)
            got = 0
            while got < 32:
                got += len(await stream.receive_some(32))
            times.append(time.perf_counter() - start)
        connection.abort("DONE")
    return rate, statistics.median(times) * 1e6


# --- stock py-libp2p ----------------------------------------------------------------------------------------


def stock_host() -> Any:
    from libp2p import new_host
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.crypto.x25519 import create_new_key_pair as create_static_key
    from libp2p.security.noise.transport import PROTOCOL_ID, Transport

    keys = create_new_key_pair()
    noise = Transport(keys, noise_privkey=create_static_key().private_key)
    return new_host(key_pair=keys, sec_opt={PROTOCOL_ID: noise}, muxer_preference="YAMUX")


async def serve_stock() -> None:
    from libp2p.network.stream.exceptions import StreamEOF
    from multiaddr import Multiaddr

    host = stock_host()

    async def read(stream: Any) -> bytes:
        try:
            data: bytes = await stream.read(262144)
            return data
        except StreamEOF:
            return b""

    async def echo(stream: Any) -> None:
        while data := await read(stream):
            await stream.write(data)
        await stream.close()

    async def sink(stream: Any) -> None:
        while await read(stream):
            pass
        await stream.write(b"!")
        await stream.close()

    host.set_stream_handler(ECHO, echo)
    host.set_stream_handler(SINK, sink)
    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        addr = next(one for one in host.get_addrs() if "127.0.0.1" in str(one))
        print(addr.value_for_protocol("tcp"), host.get_id(), flush=True)
        await trio.sleep_forever()


async def run_stock(port: int, peer: str, mib: int) -> tuple[float, float]:
    from libp2p.peer.id import ID
    from libp2p.peer.peerinfo import PeerInfo
    from multiaddr import Multiaddr

    host = stock_host()
    target = ID.from_base58(peer)
    async with host.run(listen_addrs=[]):
        await host.connect(PeerInfo(target, [Multiaddr(f"/ip4/127.0.0.1/tcp/{port}")]))
        stream = await host.new_stream(target, [SINK])
        start = time.perf_counter()
        for _ in range(mib * 16):
            await stream.write(CHUNK)
        await stream.close()
        assert await stream.read(1) == b"!"
        rate = mib * 1.048576 / (time.perf_counter() - start)
        stream = await host.new_stream(target, [ECHO])
        times = []
        for _ in range(ECHOES):
            start = time.perf_counter()
            await stream.write(b"x" * 32)
            got = 0
            while got < 32:
                got += len(await stream.read(32))
            times.append(time.perf_counter() - start)
        await host.disconnect(target)
    return rate, statistics.median(times) * 1e6


SERVERS = {"ours": serve_ours, "stock": serve_stock}
CLIENTS = {"ours": run_ours, "stock": run_stock}


def measure(kind: str, mib: int) -> tuple[float, float]:
    """One round: a fresh server process, a fresh client process."""
    command = [sys.executable, __file__]
    with subprocess.Popen([*command, "--serve", kind], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port, peer = server.stdout.readline().split()
            out = subprocess.run(
                [*command, "--client", kind, port, peer, "--mib", str(mib)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                timeout=120,
            ).stdout
        finally:
            server.kill()
    rate, echo = map(float, out.split())
    return rate, echo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--serve", choices=SERVERS)
    parser.add_argument("--client", nargs=3, metavar=("KIND", "PORT", "PEER"))
    options = parser.parse_args()
    if options.serve:
        trio.run(SERVERS[options.serve])
    elif options.client:
        kind, port, peer = options.client
        print(*trio.run(CLIENTS[kind], int(port), peer, options.mib))
    else:
        results: dict[str, list[tuple[float, float]]] = {"ours": [], "stock": []}
        for _ in range(options.rounds):
            for kind, rounds in results.items():
                rounds.append(measure(kind, options.mib))
        medians = {}
        for kind, rounds in results.items():
            rates, echoes = zip(*rounds, strict=True)
            medians[kind] = statistics.median(rates), statistics.median(echoes)
            print(
                f"{kind:6} {medians[kind][0]:7.0f} MB/s ({min(rates):.0f}-{max(rates):.0f})"
                f"  echo {medians[kind][1]:6.0f} µs ({min(echoes):.0f}-{max(echoes):.0f})"
            )
        print(
            f"ratio  {medians['ours'][0] / medians['stock'][0]:7.2f} x rate"
            f"        echo {medians['ours'][1] / medians['stock'][1]:6.2f} x time"
        )


if __name__ == "__main__":
    main()
