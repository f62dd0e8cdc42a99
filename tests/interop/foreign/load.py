"""Many connections and much load from others' load generators (h2load, ghz) through `expose` and `forward`.

At the other end is the official gRPC interop server. Every call has to be answered, with status OK; how fast is only
noted, since the figures of a run belong to its machine.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from foreign.build import RECIPES
from foreign.cases import Case
from foreign.official import home, tunnel
from foreign.peer import Pool
from foreign.tunnel import NO_CAPS, Tunnel

GROUP = "load"
LOAD_SECONDS = 150
EMPTY = bytes(5)
"""A gRPC message of no bytes: not compressed, length 0."""
SERVICE = "grpc.testing.TestService"

Generate = Callable[[Pool, int], str]
"""Makes its load on a local port, checks every answer, returns a note."""


def _run(argv: Sequence[str], cwd: Path, **env: str) -> str:
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LOAD_SECONDS,
    )
    assert done.returncode == 0, f"ended with {done.returncode}: {' | '.join(done.stderr.splitlines()[-4:])}"
    return done.stdout


def h2load(calls: int, connections: int, streams: int, pool: Pool, port: int) -> str:
    """EmptyCall. h2load counts HTTP statuses; a refused call would be 200 too, but without its five bytes of data."""
    where = RECIPES["h2load"].home
    body = where / "empty.bin"
    body.write_bytes(EMPTY)
    libraries = ":".join(str(where / "root" / one) for one in (where / "libraries").read_text().split(":"))
    argv = [str(where / RECIPES["h2load"].product), "-n", str(calls), "-c", str(connections), "-m", str(streams)]
    argv += ["-H", "content-type: application/grpc", "-H", "te: trailers", "-d", str(body)]
    said = _run([*argv, f"http://127.0.0.1:{port}/{SERVICE}/EmptyCall"], where, LD_LIBRARY_PATH=libraries)
    wanted = f"{calls} total, {calls} started, {calls} done, {calls} succeeded, 0 failed, 0 errored, 0 timeout"
    counted = next(line for line in said.splitlines() if line.startswith("requests:"))
    assert wanted in counted, counted
    assert f"{calls} 2xx, 0 3xx, 0 4xx, 0 5xx" in said, said
    data = re.search(r"\((\d+)\) data", said)
    assert data is not None, said
    assert int(data[1]) == calls * len(EMPTY), f"{data[1]} bytes of data for {calls} calls"
    rate = re.search(r"([\d.]+) req/s", said)
    pool.versions["h2load"] = _run([argv[0], "--version"], where, LD_LIBRARY_PATH=libraries).strip()
    return f"{float(rate[1]):.0f} calls/s" if rate else ""


def ghz(calls: int, connections: int, workers: int, size: int, pool: Pool, port: int) -> str:
    """UnaryCall with `size` bytes each way; `workers` calls under way at once, spread over the connections."""
    where = RECIPES["ghz"].home
    payload = {"body": base64.b64encode(bytes(size)).decode()}
    argv = [str(where / RECIPES["ghz"].product), "--insecure", "--format", "json", "--timeout", "60s"]
    argv += ["--import-paths", str(home() / "tree"), "--proto", str(home() / "tree/src/proto/grpc/testing/test.proto")]
    argv += ["--call", f"{SERVICE}.UnaryCall", "--data", json.dumps({"response_size": size, "payload": payload})]
    argv += ["--total", str(calls), "--connections", str(connections), "--concurrency", str(workers)]
    told = json.loads(_run([*argv, f"127.0.0.1:{port}"], where))
    assert told["statusCodeDistribution"] == {"OK": calls}, (told["statusCodeDistribution"], told["errorDistribution"])
    assert not told["errorDistribution"], told["errorDistribution"]
    pool.versions["ghz"] = "v0.120.0"
    slowest = next(one["latency"] for one in told["latencyDistribution"] if one["percentage"] == 99)
    return f"{told['rps']:.0f} calls/s, p99 {slowest / 1e6:.0f} ms"


def _case(connections: int, generate: Generate, path: str, pool: Pool) -> str:
    options = NO_CAPS if path == "relay" else ()
    front: Tunnel = tunnel(pool, path, *options)
    before = len(front.switches())
    note = generate(pool, front.port)
    front.check_path(before)
    opened = [one for one in front.switches(before) if one["reason"] == "OPENED"]
    assert len(opened) == connections, f"{len(opened)} sessions for {connections} connections"
    return note


ROWS: tuple[tuple[str, str, int, Generate], ...] = (
    ("4000 EmptyCalls, 4 connections, 16 calls at once on each", "h2load", 4, partial(h2load, 4000, 4, 16)),
    ("4000 EmptyCalls, 60 connections, 4 calls at once on each", "h2load", 60, partial(h2load, 4000, 60, 4)),
    ("5000 calls of 1 KiB, 50 connections, 200 at once", "ghz", 50, partial(ghz, 5000, 50, 200, 1024)),
    ("500 calls of 64 KiB, 50 connections, 50 at once", "ghz", 50, partial(ghz, 500, 50, 50, 65536)),
)


def cases() -> Iterator[Case]:
    for title, kind, connections, generate in ROWS:
        for path, words in (("direct", "direct"), ("relay", "relayed")):
            run = partial(_case, connections, generate, path)
            yield Case(GROUP, f"{kind}: {title}", words, ("official", kind), run)
