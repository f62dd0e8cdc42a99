"""A Redis for one test: strings and lists in memory, GET SET DEL RPUSH LPUSH LPOP BLPOP PING, over RESP 2.

`python -m contract.store HOST PORT` prints one line when it listens. Any Redis client of the published suites can
use it.
"""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from functools import partial

import trio

from contract.resp import Reader, RespError, Value, reply, texts

MAX_KEYS = 10_000


class Store:
    """What the clients share. Lists hand their items out in order, each to one client."""

    def __init__(self) -> None:
        self._strings: dict[str, str] = {}
        self._lists: defaultdict[str, deque[str]] = defaultdict(deque)
        self._pushed = trio.Event()

    async def obey(self, words: list[str]) -> Value:
        """Raises RespError with the text of the error reply."""
        name, given = words[0].upper(), words[1:]
        match name, given:
            case "PING", _:
                return "PONG"
            case "SET", [key, value, *_]:
                if len(self._strings) >= MAX_KEYS:
                    raise RespError("OOM too many keys")
                self._strings[key] = value
                return "OK"
            case "GET", [key]:
                return self._strings.get(key)
            case "DEL", keys:
                return sum(self._strings.pop(key, None) is not None for key in keys)
            case (("RPUSH" | "LPUSH"), [key, *values]) if values:
                return self._push(key, values, left=name == "LPUSH")
            case "LPOP", [key]:
                return self._lists[key].popleft() if self._lists[key] else None
            case "BLPOP", [*keys, timeout] if keys:
                return await self._pop(keys, float(timeout))
        raise RespError(f"ERR unknown command or wrong number of arguments for '{name.lower()}'")

    def _push(self, key: str, values: list[str], *, left: bool) -> int:
        if len(self._lists) >= MAX_KEYS:
            raise RespError("OOM too many keys")
        items = self._lists[key]
        for value in values:
            (items.appendleft if left else items.append)(value)
        self._pushed.set()
        self._pushed = trio.Event()
        return len(items)

    async def _pop(self, keys: list[str], seconds: float) -> Value:
        with trio.move_on_after(seconds or float("inf")):
            while True:
                for key in keys:
                    if self._lists[key]:
                        return [key, self._lists[key].popleft()]
                await self._pushed.wait()
        return None


async def serve(store: Store, stream: trio.SocketStream) -> None:
    """One client, until it leaves."""
    reader = Reader(stream)
    try:
        while True:
            words = texts(await reader.value())
            try:
                answer = reply(await store.obey(list(words)))
            except RespError as problem:
                answer = f"-{problem}\r\n".encode()
            await stream.send_all(answer)
    except (EOFError, RespError, ValueError, OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        return  # it left, or speaks something else
    finally:
        await trio.aclose_forcefully(stream)


async def main(host: str, port: int) -> None:
    async with trio.open_nursery() as nursery:
        serving = partial(trio.serve_tcp, partial(serve, Store()), port, host=host)
        listeners = await nursery.start(serving)
        place = listeners[0].socket.getsockname()
        print(f"{place[0]}:{place[1]}", flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
