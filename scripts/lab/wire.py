"""The wire: a child process that carries Ethernet frames between pairs of sockets with delay and loss.

Runs alone (`python -I -S wire.py`, standard library only). It knows file descriptors, seconds and
probabilities, and the relay's addresses as bytes, by which it tells direct packets; no namespace. It ends
when its standard input does. Kernel schedulers such as netem are not needed, and it works without root.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import select
import socket
import sys
import time

BATCH_FRAMES = 16  # per wake-up, so that one busy link cannot starve the others
FRAME_BYTES = 70_000  # 64 KiB of GSO payload and its headers
QUEUE_BYTES = 64 * 1024 * 1024  # under way in one direction; more is dropped, as a router would
CONTROL_BYTES = 65_536  # one read of orders; an order is under 100 bytes

_VNET_HEADER = 10
_ETHERTYPE = _VNET_HEADER + 12
_IPV6_NEXT = _VNET_HEADER + 14 + 6
_ICMPV6_TYPE = _VNET_HEADER + 14 + 40
_IPV4 = b"\x08\x00"
_IPV4_ENDS = slice(_VNET_HEADER + 14 + 12, _VNET_HEADER + 14 + 20)
_IPV6_ENDS = slice(_VNET_HEADER + 14 + 8, _VNET_HEADER + 14 + 40)
_ARP = b"\x08\x06"
_IPV6 = b"\x86\xdd"


class Direction:
    """Frames read from one socket and written to another after `delay` seconds, some of them lost.

    Those between two hosts that are no relay take `detour` seconds more, and may be overtaken by the others.
    """

    def __init__(self, name: str, source: socket.socket, sink: socket.socket, delay: float, loss: float) -> None:
        self.name = name
        self.source = source
        self.sink = sink
        self.delay = delay
        self.loss = loss
        self.detour = 0.0
        self.last_due = {False: 0.0, True: 0.0}
        self.queued = 0


def is_neighbour_discovery(frame: bytes) -> bool:
    """ARP and IPv6 ND pass at once: delayed they would add a round trip to each first packet, lost a second."""
    kind = frame[_ETHERTYPE : _ETHERTYPE + 2]
    if kind == _ARP:
        return True
    if kind != _IPV6 or len(frame) <= _ICMPV6_TYPE:
        return False
    return frame[_IPV6_NEXT] == 58 and 133 <= frame[_ICMPV6_TYPE] <= 137


def is_direct(frame: bytes, relays: list[bytes]) -> bool:
    """An IP packet whose ends are both no relay's address."""
    kind = frame[_ETHERTYPE : _ETHERTYPE + 2]
    if kind not in (_IPV4, _IPV6):
        return False
    ends = frame[_IPV4_ENDS if kind == _IPV4 else _IPV6_ENDS]
    half = len(ends) // 2
    return ends[:half] not in relays and ends[half:] not in relays


class Wire:
    """All delayed links of one lab: a heap of due times, one loop."""

    def __init__(self, directions: list[Direction], seed: int, relays: list[bytes]) -> None:
        self.relays = relays
        self.by_fd = {one.source.fileno(): one for one in directions}
        self.heap: list[tuple[float, int, Direction, bytes]] = []
        self.serial = 0
        self.random = random.Random(seed)

    def take(self, one: Direction, now: float) -> None:
        for _ in range(BATCH_FRAMES):
            try:
                frame = one.source.recv(FRAME_BYTES)
            except OSError:  # nothing more to read, or the link is down for a moment
                return
            if is_neighbour_discovery(frame):
                self.send(one, frame)
            elif one.queued + len(frame) <= QUEUE_BYTES and self.random.random() >= one.loss:
                away = one.detour > 0 and is_direct(frame, self.relays)
                delay = one.delay + one.detour if away else one.delay
                due = one.last_due[away] = max(now + delay, one.last_due[away])  # a shorter delay must not reorder
                one.queued += len(frame)
                self.serial += 1
                heapq.heappush(self.heap, (due, self.serial, one, frame))

    def send(self, one: Direction, frame: bytes) -> None:
        try:
            one.sink.send(frame)
        except OSError:
            return  # a failed write is a lost packet

    def deliver(self, now: float) -> None:
        while self.heap and self.heap[0][0] <= now:
            _, _, one, frame = heapq.heappop(self.heap)
            one.queued -= len(frame)
            self.send(one, frame)

    def control(self, line: str) -> None:
        """`{"link": NAME, "delay": seconds, "loss": probability, "detour": seconds}`: change a link while it runs."""
        order = json.loads(line)
        for one in self.by_fd.values():
            if one.name == order["link"]:
                one.delay = float(order.get("delay", one.delay))
                one.loss = float(order.get("loss", one.loss))
                one.detour = float(order.get("detour", one.detour))

    def run(self, control_fd: int) -> None:
        sources = [control_fd, *self.by_fd]
        pending = b""
        while True:
            wait = max(0.0, self.heap[0][0] - time.monotonic()) if self.heap else None
            # select, not epoll: epoll waits in whole milliseconds.
            ready, _, _ = select.select(sources, [], [], wait)
            now = time.monotonic()
            for fd in ready:
                if fd != control_fd:
                    self.take(self.by_fd[fd], now)
                    continue
                data = os.read(control_fd, CONTROL_BYTES)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self.control(line.decode())
            self.deliver(time.monotonic())


def main() -> None:
    """First argument: JSON `{"seed": n, "relays": [hex, ...], "links": [[name, fd, fd, delay, loss], ...]}`.

    Writes one line when ready.
    """
    order = json.loads(sys.argv[1])
    directions: list[Direction] = []
    for name, left_fd, right_fd, delay, loss in order["links"]:
        left, right = socket.socket(fileno=left_fd), socket.socket(fileno=right_fd)
        left.setblocking(False)
        right.setblocking(False)
        directions += [Direction(name, left, right, delay, loss), Direction(name, right, left, delay, loss)]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    relays = [bytes.fromhex(text) for text in order["relays"]]
    Wire(directions, order["seed"], relays).run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
