"""A client of another QUIC library (aioquic, which py-libp2p brings) that breaks a rule of libp2p's TLS."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import trio
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key

from punchbridge.errors import AuthenticationFailed, BridgeError, NegotiationFailed
from punchbridge.identity import Identity
from punchbridge.wire.tls_credentials import make_credentials
from tests.protocol.test_tls_identity import certificate, key_of, libp2p, signed_key
from tests.support.built import NOT_BUILT

pytest.importorskip("punchbridge_quic", reason=NOT_BUILT)

from tests.support.quic_pairs import Node, quic_nodes

LONG_AGO, LATE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)


async def visit(node: Node, *, alpn: str = "libp2p", shown: tuple[bytes, Any] | None = None) -> tuple[bool, int | None]:
    """Shakes hands as a client; whether that ended well for it, and the code that it was closed with."""
    settings = QuicConfiguration(is_client=True, alpn_protocols=[alpn], verify_mode=ssl.CERT_NONE)
    client = QuicConnection(configuration=settings)
    if shown is not None:
        settings.certificate, settings.private_key = x509.load_der_x509_certificate(shown[0]), shown[1]
    address, shaken, code = node.transport.port(4), False, None
    assert address is not None
    with trio.socket.from_stdlib_socket(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        await sock.bind(("127.0.0.1", 0))
        client.connect(address, trio.current_time())
        with trio.move_on_after(10):
            while code is None:
                for data, _ in client.datagrams_to_send(trio.current_time()):
                    await sock.sendto(data, address)
                while (event := client.next_event()) is not None:
                    shaken = shaken or isinstance(event, HandshakeCompleted)
                    if isinstance(event, ConnectionTerminated):
                        code = event.error_code
                with trio.move_on_at(client.get_timer() or trio.current_time() + 1):
                    data, source = await sock.recvfrom(65535)
                    client.receive_datagram(data, source, trio.current_time())
                due = client.get_timer()
                if due is not None and due <= trio.current_time():
                    client.handle_timer(trio.current_time())
    return shaken, code


def of(identity: Identity) -> tuple[bytes, Any]:
    made = make_credentials(identity, datetime.now(UTC))
    return made.certificate, load_der_private_key(made.key, None)


async def failure(node: Node) -> BridgeError:
    with trio.fail_after(10):
        while not node.failures:  # noqa: ASYNC110 - the handshake has ended at the client before it has here
            await trio.sleep(0.01)
    return node.failures[0]


async def test_tl7_another_application_protocol() -> None:
    async with quic_nodes(1) as (node,):
        _, code = await visit(node, alpn="h3", shown=of(Identity.generate()))
        assert code == 0x100 + 120  # no_application_protocol (RFC 8446 section 6)
        assert isinstance(await failure(node), NegotiationFailed)


async def test_tl1_no_certificate() -> None:
    async with quic_nodes(1) as (node,):
        _, code = await visit(node)
        assert code == 0x100 + 116  # certificate_required
        assert isinstance(await failure(node), AuthenticationFailed)


async def test_tl3_a_certificate_that_names_nobody() -> None:
    """TLS itself has nothing against it, so the connection is closed as soon as it stands."""
    key = key_of("p256")
    async with quic_nodes(1) as (node,):
        shaken, code = await visit(node, shown=(certificate(key, [], begin=LONG_AGO, end=LATE), key))
        assert (shaken, code) == (True, 1)
        assert isinstance(await failure(node), AuthenticationFailed)
        assert "lacks the libp2p extension" in str(node.failures[0])


async def test_tl6_somebody_elses_name() -> None:
    key, mallory, alice = key_of("p256"), Identity.generate(), Identity.generate()
    stolen = libp2p(signed_key(alice, key, signer=mallory))
    der = certificate(key, [stolen], begin=LONG_AGO, end=LATE)
    async with quic_nodes(1) as (node,):
        _, code = await visit(node, shown=(der, key))
        assert code == 1
        assert "signature is wrong" in str(await failure(node))


@pytest.mark.parametrize("kind", ["p256", "p384"])
async def test_an_honest_client(kind: str) -> None:
    key, identity = key_of(kind), Identity.generate()
    der = certificate(key, [libp2p(signed_key(identity, key), critical=True)], begin=LONG_AGO, end=LATE)
    async with quic_nodes(1) as (node,), trio.open_nursery() as nursery:
        nursery.start_soon(partial(visit, node, shown=(der, key)))
        connection = await node.accept()
        assert connection.peer == identity.peer_id
        nursery.cancel_scope.cancel()
