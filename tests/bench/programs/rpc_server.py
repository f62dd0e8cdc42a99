"""A gRPC server on a unix socket, on TCP with TLS, through the bridge and through stock py-libp2p, all at once.

rpc_server.py [--relay ADDR]: with a relay it keeps a reservation there, and never punches.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

sys.path[:0] = [str(Path(__file__).resolve().parents[3] / "src")]

import stock_grpc  # noqa: E402
from control import ready  # noqa: E402

import punchbridge  # noqa: E402

MIB = bytes(1 << 20)


class Handler(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # it is generic for checkers alone
    """Echo (unary), Chat (bidi echo), Up (counts bytes), Down (n messages of 1 MiB)."""

    def service(self, details: Any) -> Any:
        match details.method.rpartition("/")[2]:
            case "Up":
                return grpc.stream_unary_rpc_method_handler(lambda parts, _: str(sum(map(len, parts))).encode())
            case "Down":
                return grpc.unary_stream_rpc_method_handler(lambda count, _: (MIB for _ in range(int(count))))
            case "Chat":
                return grpc.stream_stream_rpc_method_handler(lambda parts, _: parts)
        return grpc.unary_unary_rpc_method_handler(lambda request, _: request)


def certificate() -> tuple[bytes, bytes]:
    """(key, certificate) in PEM for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return (
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        cert.public_bytes(pem),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--relay")
    options = parser.parse_args()
    key, cert = certificate()
    server = grpc.server(ThreadPoolExecutor(32), handlers=[Handler()], options=punchbridge.server_options())
    relays = [options.relay] if options.relay else []
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        punchbridge.open(
            listen=["/ip4/127.0.0.1/tcp/0"], relays=relays, punch=False, allow_private=True, allow=punchbridge.ANYONE
        ) as b,
    ):
        b.serve(server)
        server.add_insecure_port(f"unix:{folder}/s")
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, cert)]))
        server.start()
        if relays:
            b.wait_reservation(20)
        ready(
            b.peer_id,
            list(b.addrs),
            f"grpcio {grpc.__version__}",
            unix=f"unix:{folder}/s",
            stock=stock_grpc.serve(f"{folder}/s"),
            tls=f"127.0.0.1:{port}",
            certificate=cert.decode(),
        )
        sys.stdin.read()
        server.stop(None).wait()


if __name__ == "__main__":
    main()
