"""The server behind `expose`, in a process of its own: `python -m tests.attacks.backend HOW`.

`echo` echoes, `deaf` accepts and never reads, `chatty` sends without end and reads nothing. It prints its port, and
then a JSON list a line with each connection that comes or goes: open now, most at once, taken since the start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import trio

ROOT = Path(__file__).resolve().parents[2]
_TICK = 0.05


class Server:
    """The process. `open`: connections now, `most`: at once, `taken`: since the start."""

    def __init__(self, how: str) -> None:
        self.open = self.most = self.taken = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.attacks.backend", how],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            for line in pipe:
                self.open, self.most, self.taken = json.loads(line)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


async def _serve(how: str) -> None:
    counts = [0, 0, 0]

    async def connection(stream: trio.SocketStream) -> None:
        counts[0] += 1
        counts[1] = max(counts[:2])
        counts[2] += 1
        try:
            if how == "deaf":
                await trio.sleep_forever()
            while how == "chatty":
                await stream.send_all(bytes(262144))
            async for data in stream:
                await stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            counts[0] -= 1

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        print(listeners[0].socket.getsockname()[1], flush=True)
        nursery.start_soon(trio.serve_listeners, connection, listeners)
        told = list(counts)
        while True:
            await trio.sleep(_TICK)
            if counts != told:
                told = list(counts)
                print(json.dumps(told), flush=True)


if __name__ == "__main__":
    trio.run(_serve, sys.argv[1])
