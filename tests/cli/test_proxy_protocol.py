"""`expose --proxy-protocol`: the server behind it learns who calls, as a reader by the specification, haproxy and nginx
see it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

import punchbridge
from punchbridge.access.ticket import parse_ticket
from punchbridge.identity import load_or_create
from punchbridge.local.peer import synthesized_address
from tests.cli.programs import LOCAL, LOOPBACK, PATIENCE, Start
from tests.support.proxy_header import read_proxy_header
from tests.support.rpc_lab import eventually


def needs(program: str) -> str:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed: apt-get install {program}")
    return found


@contextmanager
def running(command: list[str], path: Path) -> Iterator[None]:
    """A server of others in the foreground, once it takes connections at the unix socket."""

    def takes() -> bool:
        assert server.poll() is None, server.communicate()[0]
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(str(path))
            return True
        return False

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            eventually(takes, PATIENCE)
            yield
        finally:
            server.terminate()


def test_a_reader_by_the_specification(start: Start, tmp_path: Path) -> None:
    key = tmp_path / "caller.key"
    caller = str(load_or_create(key))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = start("expose", f"127.0.0.1:{listener.getsockname()[1]}", "--proxy-protocol", *LOCAL, "--open").line()
        host, _, port = start("forward", target, *LOCAL, "--key", str(key)).line().rpartition(":")
        listener.settimeout(PATIENCE)
        for words in (b"first", b"second"):
            with socket.create_connection((host, int(port)), PATIENCE) as client:
                client.sendall(words)
                server, _ = listener.accept()
                with server:
                    server.settimeout(PATIENCE)
                    data = b""
                    while (told := read_proxy_header(data)) is None or len(told.rest) < len(words):
                        data += server.recv(1000)
                    assert told.source == synthesized_address(caller)
                    assert told.destination == synthesized_address(str(parse_ticket(target).peer))
                    assert told.values == {0xE7: caller.encode()}
                    assert told.rest == words
                    server.sendall(b"back")
                    assert client.recv(10) == b"back"


HAPROXY = """
defaults
    mode http
    timeout client 30s
    timeout server 30s
    timeout connect 5s
frontend f
    bind unix@{path} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"
"""


def test_haproxy_sees_the_caller(start: Start, tmp_path: Path) -> None:
    program = needs("haproxy")
    key = tmp_path / "caller.key"
    caller = str(load_or_create(key))
    path = tmp_path / "h.sock"
    (tmp_path / "haproxy.cfg").write_text(HAPROXY.format(path=path))
    with running([program, "-db", "-f", str(tmp_path / "haproxy.cfg")], path):
        target = start("expose", f"unix:{path}", "--proxy-protocol", *LOCAL, "--open").line()
        place = start("forward", target, *LOCAL, "--key", str(key)).line()
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"http://{place}/", None, PATIENCE
        ) as page:
            told = page.read().decode().split()
    ours, theirs = synthesized_address(caller), synthesized_address(str(parse_ticket(target).peer))
    assert told == [ours[0], str(ours[1]), theirs[0], str(theirs[1])]


NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen unix:{folder}/n.sock proxy_protocol http2;
        location / {{
            grpc_pass grpc://{server};
            grpc_set_header x-caller $proxy_protocol_addr;
        }}
    }}
}}
"""


def test_a_grpc_server_behind_nginx_learns_the_caller(start: Start, tmp_path: Path) -> None:
    program = needs("nginx")

    def who(request: bytes, context: grpc.ServicerContext) -> bytes:
        return str(dict(context.invocation_metadata())["x-caller"]).encode()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    handlers = {"Who": grpc.unary_unary_rpc_method_handler(who)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Caller", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, server=f"127.0.0.1:{port}"))
    with running(
        [program, "-e", "stderr", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")], tmp_path / "n.sock"
    ):
        target = start("expose", f"unix:{tmp_path}/n.sock", "--proxy-protocol", *LOCAL, "--open").line()
        for _ in range(2):
            with punchbridge.open(listen=(LOOPBACK,), allow_private=True) as b, b.channel(target) as channel:
                # What the caller says of itself is replaced.
                said = channel.unary_unary("/test.Caller/Who")(b"", timeout=20, metadata=(("x-caller", "somebody"),))
                assert said.decode() == synthesized_address(b.peer_id)[0]
    server.stop(None).wait()
