"""The words of the Kaspa wire: payload types, the RPC path, and how a message is made and parsed.

A payload type is the name of its oneof field in `KaspadMessage`. This module knows no connection, no flow and no
clock. Source: `proto/protowire/p2p.proto`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NewType

from google.protobuf.message import DecodeError, Message

from punchbridge_node._pb.protowire import p2p_pb2 as pb

from . import fixed

PayloadType = NewType("PayloadType", str)

SERVICE = "protowire.P2P"
METHOD = "MessageStream"
PATH = f"/{SERVICE}/{METHOD}"

ADDRESSES = PayloadType("addresses")
BLOCK = PayloadType("block")
BLOCK_BODY = PayloadType("blockBody")
INV_RELAY_BLOCK = PayloadType("invRelayBlock")
INV_TRANSACTIONS = PayloadType("invTransactions")
PING = PayloadType("ping")
PONG = PayloadType("pong")
READY = PayloadType("ready")
REJECT = PayloadType("reject")
REQUEST_ADDRESSES = PayloadType("requestAddresses")
REQUEST_BLOCK_LOCATOR = PayloadType("requestBlockLocator")
REQUEST_RELAY_BLOCKS = PayloadType("requestRelayBlocks")
REQUEST_TRANSACTIONS = PayloadType("requestTransactions")
TRANSACTION = PayloadType("transaction")
TRANSACTION_NOT_FOUND = PayloadType("transactionNotFound")
TRUSTED_DATA = PayloadType("trustedData")
VERACK = PayloadType("verack")
VERSION = PayloadType("version")

PAYLOAD_FIELDS = {
    PayloadType(field.name): field for field in pb.KaspadMessage.DESCRIPTOR.oneofs_by_name["payload"].fields
}
PAYLOAD_TYPES = frozenset(PAYLOAD_FIELDS)

# They have no meaning after the handshake, and no flow message has one before it.
HANDSHAKE = (VERSION, VERACK, READY)

# The two reasons of a Reject that a peer treats as harmless, and the one kaspad sends for either by name.
REASON_DUPLICATE = "DUPLICATE_CONNECTION"
REASON_LOOPBACK = "LOOPBACK_CONNECTION"

# Initial-block-download requests. A node without consensus has no answer to them; it takes them off the wire so that
# a real kaspad which asks is not cut off for "no route".
UNANSWERED_REQUESTS = tuple(
    PayloadType(name)
    for name in (
        "requestHeaders",
        "requestNextHeaders",
        "requestPruningPointProof",
        "requestIBDChainBlockLocator",
        "requestPruningPointAndItsAnticone",
        "requestNextPruningPointAndItsAnticoneBlocks",
        "requestPruningPointUTXOSet",
        "requestNextPruningPointUtxoSetChunk",
        "requestPruningPointSmtState",
        "requestNextPruningPointSmtChunk",
        "requestIBDBlocks",
        "requestBlockBodies",
        "requestAntipast",
        "requestBlockLocator",
    )
)


class MalformedMessage(ValueError):
    """The peer's bytes are no KaspadMessage, or a field breaks its bound. Theirs, never ours."""


def message(payload_type: PayloadType, body: Message, *, request_id: int = 0, response_id: int = 0) -> pb.KaspadMessage:
    """Wrap `body` as the payload of that type. Ids are unsigned 32 bit; 0 means none."""
    out = pb.KaspadMessage(requestId=request_id, responseId=response_id)
    target = getattr(out, payload_type)
    target.CopyFrom(body)
    target.SetInParent()  # an empty message (Verack, Ready) is present all the same
    return out


def parse(data: bytes) -> pb.KaspadMessage:
    """Parse one message. Raises MalformedMessage for bytes that are none."""
    try:
        return pb.KaspadMessage.FromString(data)
    except DecodeError as error:
        raise MalformedMessage(f"not a KaspadMessage: {error}") from error


def payload_type(msg: pb.KaspadMessage) -> PayloadType | None:
    """The payload's type, or None when it is empty or of a number we do not know."""
    name = msg.WhichOneof("payload")
    return PayloadType(name) if name is not None else None


def hash_bytes(value: pb.Hash | pb.TransactionId) -> bytes:
    """The 32 bytes of a hash. Raises MalformedMessage for any other length."""
    if len(value.bytes) != 32:
        raise MalformedMessage(f"hash of {len(value.bytes)} bytes, want 32")
    return value.bytes


def inv_transactions(ids: Iterable[bytes]) -> pb.KaspadMessage:
    """InvTransactions of these ids, at most `fixed.MAX_INV_PER_MESSAGE`; the caller splits."""
    body = pb.InvTransactionsMessage(ids=(pb.TransactionId(bytes=item) for item in ids))
    return message(INV_TRANSACTIONS, body)


def inv_block(block_hash: bytes) -> pb.KaspadMessage:
    """InvRelayBlock of one hash."""
    return message(INV_RELAY_BLOCK, pb.InvRelayBlockMessage(hash=pb.Hash(bytes=block_hash)))


def transaction_ids(msg: pb.KaspadMessage) -> list[bytes]:
    """The ids of an InvTransactions or RequestTransactions.

    Raises MalformedMessage for more than `fixed.MAX_INV_PER_MESSAGE` ids or one that is not 32 bytes.
    """
    ids = getattr(msg, msg.WhichOneof("payload") or "").ids
    if len(ids) > fixed.MAX_INV_PER_MESSAGE:
        raise MalformedMessage(f"{len(ids)} transaction ids, at most {fixed.MAX_INV_PER_MESSAGE} allowed")
    return [hash_bytes(item) for item in ids]


def cut_utf8(text: str, size: int) -> str:
    """The longest beginning of `text` whose UTF-8 form has at most `size` bytes, cut between characters."""
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")


def batches(ids: Iterable[bytes], size: int = fixed.MAX_INV_PER_MESSAGE) -> Iterable[list[bytes]]:
    """Split `ids` into lists of at most `size`, in order."""
    rest = iter(ids)
    while batch := list(itertools.islice(rest, size)):
        yield batch
