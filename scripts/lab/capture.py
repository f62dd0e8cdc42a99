"""Packet capture to a pcap file, as a child process of its own (`python -I -S capture.py FD PATH`).

Standard library only; it knows one frame socket and one file. Ends on SIGTERM or when its input closes.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time

SNAP_BYTES = 128  # headers with options; no payload worth keeping
FRAME_BYTES = 70_000  # 64 KiB of GSO payload and its headers
MAX_PACKETS = 20_000  # about 3 MB, enough for the punch and some traffic
_MAGIC_NANOSECONDS = 0xA1B23C4D
_LINKTYPE_ETHERNET = 1


def main() -> None:
    sock = socket.socket(fileno=int(sys.argv[1]))
    with open(sys.argv[2], "wb") as file:
        file.write(struct.pack("=IHHiIII", _MAGIC_NANOSECONDS, 2, 4, 0, 0, SNAP_BYTES, _LINKTYPE_ETHERNET))
        file.flush()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for _ in range(MAX_PACKETS):
            ready, _, _ = select.select([sock, sys.stdin], [], [])
            if sys.stdin in ready and not os.read(sys.stdin.fileno(), 1):
                return
            try:
                frame = sock.recv(FRAME_BYTES)
            except OSError:  # the link is down for a moment
                continue
            now = time.time_ns()
            kept = frame[:SNAP_BYTES]
            file.write(struct.pack("=IIII", now // 10**9, now % 10**9, len(kept), len(frame)) + kept)
            file.flush()


if __name__ == "__main__":
    main()
