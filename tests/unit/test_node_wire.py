"""The wire's facts: the path, field numbers, ids and bounds; and the generated modules against their source."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge_node import fixed, ids, wire
from punchbridge_node._pb.protowire import p2p_pb2 as pb
from punchbridge_node.addressbook import AddressBook, NetworkAddress
from punchbridge_node.config import NodeConfig, default_port
from punchbridge_node.transport import PeerInfo, parse_grpc_peer

ROOT = Path(__file__).resolve().parents[2]

# The oneof of the wire, as other implementations have it.
NUMBERS = {
    "addresses": 1, "block": 2, "transaction": 3, "blockLocator": 5, "requestAddresses": 6, "requestRelayBlocks": 10,
    "requestTransactions": 12, "ibdBlock": 13, "invRelayBlock": 14, "invTransactions": 15, "ping": 16, "pong": 17,
    "verack": 19, "version": 20, "transactionNotFound": 21, "reject": 22, "pruningPointUtxoSetChunk": 25,
    "requestIBDBlocks": 26, "unexpectedPruningPoint": 27, "ibdBlockLocator": 30, "ibdBlockLocatorHighestHash": 31,
    "requestNextPruningPointUtxoSetChunk": 33, "donePruningPointUtxoSetChunks": 34,
    "ibdBlockLocatorHighestHashNotFound": 35, "blockWithTrustedData": 36, "doneBlocksWithTrustedData": 37,
    "requestPruningPointAndItsAnticone": 40, "blockHeaders": 41, "requestNextHeaders": 42, "DoneHeaders": 43,
    "requestPruningPointUTXOSet": 44, "requestHeaders": 45, "requestBlockLocator": 46, "pruningPoints": 47,
    "requestPruningPointProof": 48, "pruningPointProof": 49, "ready": 50, "blockWithTrustedDataV4": 51,
    "trustedData": 52, "requestIBDChainBlockLocator": 53, "ibdChainBlockLocator": 54, "requestAntipast": 55,
    "requestNextPruningPointAndItsAnticoneBlocks": 56, "blockBody": 57, "requestBlockBodies": 58,
    "requestPruningPointSmtState": 59, "smtMetadata": 60, "smtLaneChunk": 61, "requestNextPruningPointSmtChunk": 63,
}  # fmt: skip


def test_the_path_and_the_oneof_are_those_of_the_wire() -> None:
    assert wire.PATH == "/protowire.P2P/MessageStream"
    assert {name: field.number for name, field in wire.PAYLOAD_FIELDS.items()} == NUMBERS
    fields = pb.KaspadMessage.DESCRIPTOR.fields_by_name
    assert (fields["responseId"].number, fields["requestId"].number) == (101, 102)


def test_a_version_has_the_bytes_of_the_wire() -> None:
    """Written by hand from the field table, so that a renumbering in the .proto shows."""
    version = pb.VersionMessage(protocolVersion=10, timestamp=5, id=b"\x07" * 16, userAgent="a", network="n")
    expected = b"\x08\x0a" + b"\x18\x05" + b"\x2a\x10" + b"\x07" * 16 + b"\x32\x01a" + b"\x52\x01n"
    assert version.SerializeToString() == expected
    outer = wire.message(wire.VERSION, version).SerializeToString()
    assert outer == b"\xa2\x01" + bytes([len(expected)]) + expected
    assert wire.message(wire.VERACK, pb.VerackMessage()).SerializeToString() == b"\x9a\x01\x00"


def test_messages_outside_our_subset_survive_unread() -> None:
    # requestHeaders = 45 with a field 3 we do not declare, as bytes
    data = b"\xea\x02\x05\x1a\x03abc"
    assert wire.parse(data).SerializeToString() == data


def test_the_generated_modules_are_what_their_source_makes() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "gen-proto", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --- ids: vectors of rusty-kaspa's own tests and its genesis blocks ---

ZERO = pb.Hash(bytes=bytes(32))
EMPTY_MUHASH = bytes.fromhex("544eb3142c000f0ad2c76ac41f4222abbababed830eeafee4b6dc56b52d5cac0")
INPUT = pb.TransactionInput(
    previousOutpoint=pb.Outpoint(transactionId=pb.TransactionId(bytes=bytes(32)), index=2),
    signatureScript=b"\1\2",
    sequence=7,
    computeCommit=5,
)
OTHER_INPUT = pb.TransactionInput(
    previousOutpoint=pb.Outpoint(
        transactionId=pb.TransactionId(
            bytes=bytes.fromhex("59b3d6dc6cdc660c389c3fdb5704c48c598d279cdf1bab54182db586a4c95dd5")
        ),
        index=2,
    ),
    signatureScript=b"\1\2",
    sequence=7,
    computeCommit=5,
)
OUTPUT = pb.TransactionOutput(value=1564, scriptPublicKey=pb.ScriptPublicKey(script=b"\1\2\3\4\5", version=7))
NATIVE = pb.SubnetworkId(bytes=ids.NATIVE_SUBNETWORK)
COINBASE = pb.SubnetworkId(bytes=ids.COINBASE_SUBNETWORK)


def tx(
    version: int, *, lock: int = 0, gas: int = 0, subnetwork: pb.SubnetworkId = NATIVE, **parts: object
) -> pb.TransactionMessage:
    return pb.TransactionMessage(version=version, lockTime=lock, gas=gas, subnetworkId=subnetwork, **parts)  # type: ignore[arg-type]


VECTORS = [
    (tx(0), "2c18d5e59ca8fc4c23d9560da3bf738a8f40935c11c162017fbf2c907b7e665c"),
    (tx(1, inputs=[INPUT]), "dafa415216d26130a899422203559c809d3efe72e20d48505fb2f08787bc4f49"),
    (tx(1, inputs=[INPUT], outputs=[OUTPUT]), "d1cd9dc1f26955832ccd12c27afaef4b71443aa7e7487804baf340952ca927e5"),
    (
        tx(2, inputs=[INPUT], outputs=[OUTPUT], lock=54, gas=3),
        "59b3d6dc6cdc660c389c3fdb5704c48c598d279cdf1bab54182db586a4c95dd5",
    ),
    (
        tx(2, inputs=[OTHER_INPUT], outputs=[OUTPUT], lock=54, gas=3),
        "9d106623860567915b19cea33af486286a31b4bfc68627c6d4d377287afb40ad",
    ),
    (
        tx(2, inputs=[OTHER_INPUT], outputs=[OUTPUT], lock=54, gas=3, subnetwork=COINBASE),
        "3fad809b11bd5a4af027aa4ac3fbde97e40624fd40965ba3ee1ee1b57521ad10",
    ),
]


@pytest.mark.parametrize(("transaction", "expected"), VECTORS)
def test_transaction_ids(transaction: pb.TransactionMessage, expected: str) -> None:
    assert ids.blake2b_transaction_id(transaction).hex() == expected


def test_only_version_0_has_an_id_here() -> None:
    assert ids.transaction_id(VECTORS[0][0]) is not None
    assert ids.transaction_id(VECTORS[1][0]) is None


def genesis(root: str, utxo: bytes, timestamp: int, bits: int, nonce: int, daa: int) -> pb.BlockMessage:
    header = pb.BlockHeader(
        hashMerkleRoot=pb.Hash(bytes=bytes.fromhex(root)),
        acceptedIdMerkleRoot=ZERO,
        utxoCommitment=pb.Hash(bytes=utxo),
        timestamp=timestamp,
        bits=bits,
        nonce=nonce,
        daaScore=daa,
        pruningPoint=ZERO,
    )
    return pb.BlockMessage(header=header)


def test_block_hashes_of_the_genesis_blocks() -> None:
    mainnet = genesis(
        "8ec898568c6801d13df4ee6e2a1b54b7e6236f671f20954f05306410518eeb32",
        bytes.fromhex("710f27df423e63aa6cdb72b89ea5a06cffa399d66f167704455b5af59def8e20"),
        1637609671037,
        486722099,
        0x3392C,
        1312860,
    )
    assert ids.block_hash(mainnet).hex() == "58c2d4199e21f910d1571d114969cecef48f09f934d42ccb6a281a15868f2999"
    simnet = genesis(
        "1946d629f7e922a7bced59190521c3771f73d352ddbbb686564ad7fd56857c1b",
        EMPTY_MUHASH,
        0x17C5F62FBB6,
        0x207FFFFF,
        2,
        0,
    )
    assert ids.block_hash(simnet).hex() == "411f8cd26f3d41aea39e78573927da24d23995705b579f30959b9127e96b79e3"


def test_run_length_coded_parents_expand_and_are_bounded() -> None:
    header = pb.BlockHeader()
    header.parents.add(cumulativeLevel=2).parentHashes.add(bytes=b"a" * 32)
    header.parents.add(cumulativeLevel=3).parentHashes.add(bytes=b"b" * 32)
    assert ids.parent_levels(header) == [[b"a" * 32], [b"a" * 32], [b"b" * 32]]
    header.parents.add(cumulativeLevel=2**32 - 1).parentHashes.add(bytes=b"c" * 32)
    assert len(ids.parent_levels(header)) == ids.MAX_LEVELS
    ids.block_hash(pb.BlockMessage(header=header))
    for _ in range(ids.MAX_PARENT_HASHES // ids.MAX_LEVELS + 4):
        header.parents[2].parentHashes.add(bytes=b"d" * 32)
    with pytest.raises(wire.MalformedMessage, match="parents"):
        ids.block_hash(pb.BlockMessage(header=header))


# --- bounds ---


def test_a_full_inventory_parses_and_one_more_id_does_not() -> None:
    full = wire.inv_transactions(bytes(32) for _ in range(fixed.MAX_INV_PER_MESSAGE))
    assert full.ByteSize() > 4 << 20  # more than grpcio takes by default
    assert len(wire.transaction_ids(full)) == fixed.MAX_INV_PER_MESSAGE
    full.invTransactions.ids.add(bytes=bytes(32))
    with pytest.raises(wire.MalformedMessage):
        wire.transaction_ids(full)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_hash_has_32_bytes(size: int) -> None:
    with pytest.raises(wire.MalformedMessage):
        wire.transaction_ids(wire.inv_transactions([bytes(size)]))


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (pb.NetAddress(ip=b"\x0b\0\0\1", port=1), "11.0.0.1"),
        (pb.NetAddress(ip=bytes(10) + b"\xff\xff\x0b\0\0\1", port=1), "11.0.0.1"),
        (pb.NetAddress(ip=b"\x20\x01" + bytes(13) + b"\1", port=1), "2001::1"),
    ],
)
def test_addresses_from_the_wire(item: pb.NetAddress, text: str) -> None:
    assert NetworkAddress.from_wire(item) == NetworkAddress(text, 1)


@pytest.mark.parametrize(
    "item", [pb.NetAddress(ip=b"", port=1), pb.NetAddress(ip=bytes(5)), pb.NetAddress(ip=bytes(4), port=65536)]
)
def test_addresses_that_are_none(item: pb.NetAddress) -> None:
    with pytest.raises(wire.MalformedMessage):
        NetworkAddress.from_wire(item)


def test_the_address_book_is_bounded_and_gives_the_youngest_first() -> None:
    book = AddressBook(capacity=3)
    items = [NetworkAddress(f"11.0.0.{n}", 1) for n in range(5)]
    assert book.add(items) == items
    assert book.newest() == [items[4], items[3], items[2]]
    assert book.add([items[2]]) == []
    assert book.newest(1) == [items[2]]
    useless = ["127.0.0.1", "0.0.0.0", "169.254.1.1", "224.0.0.1", "::1", "fe80::1", "::"]
    useless += ["10.0.0.1", "192.168.1.1", "100.64.0.1", "255.255.255.255", "192.0.2.1", "fd00::1", "64:ff9b::a00:1"]
    assert book.add([NetworkAddress(ip, 1) for ip in useless] + [NetworkAddress("11.0.0.9", 0)]) == []
    assert len(book) == 3


@pytest.mark.parametrize(
    ("text", "info"),
    [
        ("ipv4:1.2.3.4:5", PeerInfo("1.2.3.4", 5)),
        ("ipv6:%5B::1%5D:50051", PeerInfo("::1", 50051)),
        ("ipv6:[::ffff:1.2.3.4]:7", PeerInfo("1.2.3.4", 7)),
        ("unix:/run/x", PeerInfo()),
    ],
)
def test_grpc_peer_names(text: str, info: PeerInfo) -> None:
    assert parse_grpc_peer(text) == info


def test_the_peer_key_is_the_peer_id_whatever_the_address() -> None:
    node_id = bytes(16)
    assert PeerInfo("1.2.3.4", 5).key_with(node_id) == f"{'00' * 16}@1.2.3.4"
    assert PeerInfo("1.2.3.4", 5, peer_id="P").key_with(node_id) == "P"
    assert PeerInfo("5.6.7.8", 5, peer_id="P").key_with(b"x" * 16) == "P"


def test_configs_refuse_what_cannot_work() -> None:
    for changes in (
        {"network": "mainnet"},
        {"node_id": b"short"},
        {"min_protocol_version": 11},
        {"ping_interval": 0},
        {"blocks_per_second": 0},
    ):
        with pytest.raises(ValueError, match=r"must|hold"):
            NodeConfig(**changes)
    assert default_port("kaspa-testnet-10") == 16211
    assert default_port("kaspa-testnet-99") == 16411
    with pytest.raises(ValueError, match="no Kaspa network"):
        default_port("kaspa-nonet")


@given(
    st.text(max_size=40) | st.tuples(st.sampled_from(["ipv4:", "ipv6:", "unix:"]), st.text(max_size=30)).map("".join)
)
def test_any_name_of_a_grpc_peer_is_an_address_or_none(text: str) -> None:
    info = parse_grpc_peer(text)
    assert info.peer_id is None
    assert info.port >= 0
