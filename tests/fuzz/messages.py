"""Parsers of the messages that a peer sends once its id is proven: identify, circuits, DCUtR, AutoNAT and others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from punchbridge.access.invitations import Outcome
from punchbridge.access.secret import Secret
from punchbridge.addresses import parse
from punchbridge.config import Limits
from punchbridge.errors import AuthenticationFailed, ProtocolViolation
from punchbridge.keys import InvalidSignature, KeyRefused, PrivateKey, PublicKey
from punchbridge.peer_id import PeerId
from punchbridge.reach.autonat import Choice, choose
from punchbridge.reach.candidates import Scope, filter_remote
from punchbridge.wire import autonat, circuit, dcutr
from punchbridge.wire.envelope import seal, unseal
from punchbridge.wire.identify import IdentifyInfo, decode_update, encode_info
from punchbridge.wire.identity_key import verify_identity
from punchbridge.wire.invite import (
    MAX_INVITE,
    decode_invite_answer,
    decode_invite_request,
    encode_invite_answer,
    encode_invite_request,
)
from punchbridge.wire.ping import PingExchange
from punchbridge.wire.voucher import open_voucher, seal_voucher
from punchbridge_node import ids, wire
from punchbridge_node._pb.protowire import p2p_pb2 as pb
from punchbridge_node.addressbook import AddressBook, NetworkAddress
from punchbridge_node.config import NodeConfig
from punchbridge_node.handshake import check_version, own_version
from punchbridge_node.router import Outcome as Routed
from punchbridge_node.router import RouteTable
from tests.fuzz.identities import numbered, of_each_kind
from tests.fuzz.parser import Parser

_THEM: Final = numbered(1)
_RELAY: Final = numbered(2)
_PUNCH: Final = Limits().punch
_ADDRS: Final = tuple(
    map(
        parse,
        (
            "/ip4/11.0.0.1/tcp/4001",
            "/ip6/2a00:1450::1/tcp/4001",
            "/ip4/192.168.1.2/udp/4001/quic-v1",
            "/dns4/example.com/tcp/443",
            "/ip4/11.0.0.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit",
        ),
    )
)


def _any(data: bytes, *decoders: Callable[[bytes], Any]) -> list[Any]:
    """What the decoders made of the same bytes, those left out that refused."""
    found = []
    for decode in decoders:
        try:
            found.append(decode(data))
        except ProtocolViolation:
            continue
    return found


def _identify(data: bytes) -> bool:
    info = decode_update(data, _THEM.peer_id).merged_into(IdentifyInfo(agent="before"))
    assert len(info.agent) <= 256
    assert len(info.listen) <= 64
    assert len(info.protocols) <= 256
    assert all(text.isprintable() for text in (info.agent, info.protocol_version, *info.protocols))
    return True


def _circuit(data: bytes) -> bool:
    found = _any(
        data,
        circuit.decode_hop_request,
        circuit.decode_hop_answer,
        circuit.decode_stop_request,
        circuit.decode_stop_answer,
    )
    for one in found:
        if isinstance(one, circuit.Answer):
            assert circuit.status_name(one.status)
            assert one.grant is None or len(one.grant.addrs) <= circuit.MAX_RELAY_ADDRS
    return bool(found)


def _dcutr(data: bytes) -> bool:
    opener, answerer = dcutr.Opener(), dcutr.Answerer()
    opener.connect(_ADDRS[:2], 0.0)
    found = _any(data, lambda raw: opener.receive(raw, 1.0), lambda raw: answerer.receive(raw, 1.0))
    for addrs in found:
        judged = filter_remote(addrs, peer=_THEM.peer_id, own=_ADDRS[:1], scope=Scope(), limits=_PUNCH)
        assert len(judged.accepted) <= _PUNCH.candidates
        assert len(judged.refused) <= _PUNCH.candidates
    return bool(found)


def _autonat(data: bytes) -> bool:
    found = _any(
        data,
        autonat.decode_for_server,
        autonat.decode_for_client,
        autonat.decode_dial_back,
        autonat.decode_dial_back_response,
    )
    for one in found:
        if isinstance(one, autonat.Request):
            chosen = choose(one, client_ip="11.0.0.1", own=("11.0.0.9",), scope=Scope(), sources={(4, "tcp")})
            assert not isinstance(chosen, Choice) or chosen.index < len(one.addrs)
    return bool(found)


def _envelope(data: bytes) -> bool:
    unseal(data, "libp2p-relay-rsvp", (b"\x03\x02",))
    return True


def _voucher(data: bytes) -> bool:
    """An envelope of any bytes, and any bytes in an envelope that a relay signed."""
    for raw in (data, seal(_RELAY, "libp2p-relay-rsvp", b"\x03\x02", data)):
        try:
            open_voucher(raw, relay=_RELAY.peer_id, peer=_THEM.peer_id, now=1e9)
        except ProtocolViolation:
            continue
        return True
    return False


def _keys(data: bytes) -> bool:
    """A public key, a private key, and a signature by either."""
    accepted = False
    for kind in (PublicKey.parse, PrivateKey.parse):
        try:
            key = kind(data)
        except KeyRefused:
            continue
        accepted = True
        public = key if isinstance(key, PublicKey) else key.public
        assert PublicKey.parse(public.serialize()).peer_id == public.peer_id
        try:
            public.verify(b"data", data[:72])
        except InvalidSignature:
            continue
    try:
        verify_identity(data, data[-64:], b"signed")
    except AuthenticationFailed:
        pass
    return accepted


def _peer_id(data: bytes) -> bool:
    peer = PeerId(data)
    assert PeerId.parse(peer.to_base58()) == peer == PeerId.parse(peer.to_cid())
    return True


def _invite(data: bytes) -> bool:
    found = _any(data, decode_invite_request, decode_invite_answer)
    for one in found:
        if isinstance(one, Secret):
            assert one.to_bytes() in data
        else:
            assert one.text.isprintable()
            assert len(encode_invite_answer(Outcome.GRANTED, one.text)) <= MAX_INVITE
    return bool(found)


def _ping(data: bytes) -> bool:
    exchange, accepted = PingExchange(bytes(range(32)), 0.0), False
    for start in range(0, len(data), 7):
        accepted = exchange.receive(data[start : start + 7], 1.0) is not None
    return accepted


def _kaspa(data: bytes) -> bool:
    """A message of the node's own protocol, read by whatever reads one of its kind."""
    message = wire.parse(data)
    kind = wire.payload_type(message)
    table = RouteTable(1 << 20)
    table.subscribe(sorted(wire.PAYLOAD_TYPES - {wire.REJECT}))
    assert table.route(message, len(data)) in Routed
    if kind == wire.VERSION:
        check_version(message.version, NodeConfig(), duplicate=lambda _: False)
    elif kind == wire.ADDRESSES:
        book = AddressBook(2)
        for item in message.addresses.addressList:
            book.add([NetworkAddress.from_wire(item)])
        assert len(book) <= 2
    elif kind == wire.TRANSACTION:
        assert len(ids.transaction_id(message.transaction) or bytes(32)) == 32
    elif kind == wire.BLOCK:
        assert len(ids.block_hash(message.block)) == 32
    elif kind in (wire.INV_TRANSACTIONS, wire.REQUEST_TRANSACTIONS):
        assert all(len(one) == 32 for one in wire.transaction_ids(message))
    return kind is not None


def _kaspa_seeds() -> list[bytes]:
    address = pb.NetAddress(timestamp=1, ip=bytes(10) + b"\xff\xff" + bytes((11, 0, 0, 1)), port=16111)
    block = pb.BlockMessage(header=pb.BlockHeader(version=1, timestamp=5, bits=7, nonce=9))
    messages = [
        wire.message(wire.VERSION, own_version(NodeConfig(), 1)),
        wire.message(wire.ADDRESSES, pb.AddressesMessage(addressList=[address] * 3)),
        wire.message(wire.BLOCK, block),
        wire.message(wire.TRANSACTION, pb.TransactionMessage(version=0, lockTime=1)),
        wire.inv_transactions([bytes(32), bytes(range(32))]),
        wire.inv_block(bytes(32)),
    ]
    return [bytes(message.SerializeToString()) for message in messages]


def _circuit_seeds() -> list[bytes]:
    peer, limit = _THEM.peer_id, circuit.CircuitLimit(120, 1 << 17)
    grant = circuit.Grant(2_000_000_000, _ADDRS[:2], seal_voucher(_RELAY, peer, 2_000_000_000))
    return [
        circuit.encode_reserve(),
        circuit.encode_hop_connect(peer),
        circuit.encode_hop_answer(100, grant, limit),
        circuit.encode_hop_answer(200),
        circuit.encode_stop_connect(peer, limit),
        circuit.encode_stop_answer(100),
    ]


def _autonat_seeds() -> list[bytes]:
    return [
        autonat.encode_request(_ADDRS, 7),
        autonat.encode_answer(autonat.Answer("OK", 0, "OK")),
        autonat.encode_data_due(autonat.DataDue(0, 40_000)),
        autonat.encode_data(100),
        autonat.encode_dial_back(7),
        autonat.encode_dial_back_response(),
    ]


def _key_seeds() -> list[bytes]:
    found = []
    for identity in of_each_kind():
        found += [identity.public_key.serialize(), identity.private_key.serialize()]
    return found


def parsers() -> list[Parser]:
    them, relay = _THEM, _RELAY
    voucher = seal_voucher(relay, them.peer_id, 2_000_000_000)
    info = encode_info(them, agent="fuzz/1", protocols=("/a", "/b/1.0.0"), listen=_ADDRS, observed=_ADDRS[0])
    answers = [encode_invite_answer(outcome, "words") for outcome in Outcome]
    return [
        Parser("identify", _identify, [info, encode_info(them, agent="", protocols=(), listen=(), observed=None)]),
        Parser("circuit", _circuit, _circuit_seeds()),
        Parser("dcutr", _dcutr, [dcutr.encode_connect(_ADDRS), dcutr.encode_connect(()), dcutr.encode_sync()]),
        Parser("autonat", _autonat, _autonat_seeds()),
        Parser("envelope", _envelope, [voucher, seal(them, "libp2p-relay-rsvp", b"\x03\x02", b"any")]),
        Parser("voucher", _voucher, [voucher, _voucher_payload(voucher)]),
        Parser("identity-key", _keys, _key_seeds()),
        Parser("peer-id", _peer_id, [one.peer_id.to_bytes() for one in of_each_kind()]),
        Parser("invite", _invite, [encode_invite_request(Secret(bytes(16))), *answers]),
        Parser("ping", _ping, [bytes(range(32))]),
        Parser("kaspa", _kaspa, _kaspa_seeds(), (wire.MalformedMessage,)),
    ]


def _voucher_payload(voucher: bytes) -> bytes:
    return unseal(voucher, "libp2p-relay-rsvp", (b"\x03\x02",)).payload
