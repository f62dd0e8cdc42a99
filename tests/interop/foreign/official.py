"""gRPC's own Python interop client and server, unmodified, through `expose` and `forward`: each case that needs no
credentials, with the client's sync and asyncio halves, over a direct and over a relayed path, and while it moves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

from foreign.build import RECIPES, REPOSITORY
from foreign.cases import Case
from foreign.peer import Pool
from foreign.tunnel import NO_CAPS, Program, Tunnel, free_port, listens

GROUP = "official grpc"
CASES = (
    "empty_unary",
    "large_unary",
    "server_streaming",
    "client_streaming",
    "ping_pong",
    "cancel_after_begin",
    "cancel_after_first_response",
    "empty_stream",
    "status_code_and_message",
    "unimplemented_method",
    "unimplemented_service",
    "custom_metadata",
    "timeout_on_sleeping_server",
    "special_status_message",
)
CREDENTIALS = {"compute_engine_creds", "oauth2_auth_token", "jwt_token_creds", "per_rpc_creds"}
"""Cases that ask a cloud's servers for tokens; all others of the client's own list are run."""
UNSENT = {"cancel_after_begin", "timeout_on_sleeping_server"}
"""Their client may give these calls up before it has connected."""
CLIENTS = {"": "tests.interop.client", "asyncio, ": "tests_aio.interop.client"}
CASE_SECONDS = 60
SOAK = REPOSITORY / "tests" / "soak"
SWITCHED_SECONDS = 3
UNLIMITED: tuple[str, ...] = (
    *NO_CAPS,
    *("--circuits-per-peer", "0", "--hop-streams-per-peer", "0"),
    *("--peer-burst", "0", "--address-burst", "0"),
)
"""A circuit dies every 60 ms or so, and its peer asks for the next."""


def home() -> Path:
    return RECIPES["official"].home


def environment() -> dict[str, str]:
    """Their modules only, and what they import; nothing of this repository."""
    return {"PYTHONPATH": f"{home() / 'tree'}:{home() / 'site'}", "PYTHONWARNINGS": "ignore"}


def client(pool: Pool, *arguments: str) -> str:
    """Runs one of their programs to its end; returns its stdout. It raises, so ends with 1, when a case fails."""
    release = (home() / "VERSION").read_text()
    pool.versions["official"] = f"gRPC {release} (sources of Debian's package grpc), on grpcio {version('grpcio')}"
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=home() / "tree",
        env={**os.environ, **environment()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CASE_SECONDS,
    )
    assert done.returncode == 0, f"ended with {done.returncode}: {' | '.join(done.stderr.splitlines()[-4:])}"
    return done.stdout


def server(pool: Pool) -> int:
    """The port of the official server, started at the first call."""

    def start() -> tuple[int, Program]:
        port = free_port()
        argv = [sys.executable, "-m", "tests.interop.server", "--port", str(port)]
        program = Program(argv, cwd=home() / "tree", env=environment())
        program.until(lambda: listens(port), "did not listen")
        return port, program

    port: int = pool.keep(("official", "server"), start, lambda made: made[1].close())[0]
    return port


def tunnel(pool: Pool, path: str, *relay_options: str) -> Tunnel:
    """To the official server; a relay has the stock limits unless options say otherwise."""
    port = server(pool)
    made: Tunnel = pool.keep(("tunnel", path, *relay_options), lambda: Tunnel(path, port, *relay_options), Tunnel.close)
    return made


def _case(name: str, module: str, path: str, pool: Pool) -> str:
    front = tunnel(pool, path)
    before = len(front.switches())
    client(pool, "-m", module, "--server_host", "127.0.0.1", "--server_port", str(front.port), "--test_case", name)
    return front.check_path(before, idle=name in UNSENT)


def _switching(pool: Pool) -> tuple[str, ...]:
    """What the program that moves sessions has to be told: how to reach the official server directly and relayed."""

    def start() -> tuple[tuple[str, ...], list[Program]]:
        env = {"PYTHONPATH": str(REPOSITORY)}
        listen = ("--listen", "/ip4/127.0.0.1/tcp/0", "--lan")
        relay = Program([sys.executable, "-m", "punchbridge", "relay", *listen, "--json", *UNLIMITED], env=env)
        addr = relay.wait("relay.listening")["addrs"][0]
        serve = [str(SOAK / "official_server.py"), *listen, "--relay", addr, "--peer", str(home())]
        exposed = Program([sys.executable, *serve], env=env)
        ready = exposed.wait("ready")
        peer = f"/p2p/{ready['peer_id']}"
        addresses = ("--direct", f"{ready['listen'][0]}{peer}", "--circuit", f"{addr}/p2p-circuit{peer}")
        return addresses, [exposed, relay]

    def end(made: tuple[tuple[str, ...], list[Program]]) -> None:
        for program in made[1]:
            program.close()

    addresses: tuple[str, ...] = pool.keep(("official", "switching"), start, end)[0]
    return addresses


def _switched(name: str, pool: Pool) -> str:
    """The case once, then again and again, while its session moves every 20 ms and every third carrier is killed."""
    given = ["--lan", "--peer", str(home()), "--seconds", str(SWITCHED_SECONDS), *_switching(pool), name]
    program = Program([sys.executable, str(SOAK / "official.py"), *given], env={"PYTHONPATH": str(REPOSITORY)})
    try:
        result = program.wait("result", CASE_SECONDS)
    finally:
        program.close()
    row, carriers, killed = result["cases"][0], result["carriers"], result["killed"]
    assert not row["failure"], row["failure"]
    assert carriers >= SWITCHED_SECONDS / 0.06, f"only {carriers} carriers in {SWITCHED_SECONDS} s"
    assert killed >= 0.25 * carriers, f"only {killed} of {carriers} carriers were killed"
    return f"run {row['runs']} times over {carriers} carriers, {killed} of them killed"


def _own_list(pool: Pool) -> str:
    """None of the client's cases is left out but those with credentials."""
    code = "import json; from tests.interop.methods import TestCase; print(json.dumps([one.value for one in TestCase]))"
    theirs = set(json.loads(client(pool, "-c", code)))
    assert theirs - CREDENTIALS == set(CASES), theirs
    return f"{len(CASES)} of {len(theirs)}; {len(theirs & CREDENTIALS)} need credentials of a cloud"


def cases() -> Iterator[Case]:
    yield Case(GROUP, "all cases of the client that need no credentials", "direct", ("official",), _own_list)
    for name in CASES:
        for who, module in CLIENTS.items():
            for path, words in (("direct", "direct"), ("relay", "relayed")):
                run = partial(_case, name, module, path)
                yield Case(GROUP, name, f"{who}{words}", ("official",), run)
        yield Case(GROUP, name, "carriers switched", ("official",), partial(_switched, name))
