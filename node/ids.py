"""Block hashes and transaction ids as Kaspa computes them, from the messages of the wire.

Pure. Covers headers of any version and transactions of version 0, whose id is keyed BLAKE2b; later transaction
versions use another hash and have no id here, so their place in the request order has to do.
"""

from __future__ import annotations

import hashlib
import struct

from punchbridge_node._pb.protowire import p2p_pb2 as pb

from .wire import MalformedMessage

COINBASE_SUBNETWORK = bytes([1]) + bytes(19)
NATIVE_SUBNETWORK = bytes(20)
LAST_BLAKE2_VERSION = 0


def _count(value: int) -> bytes:
    return struct.pack("<Q", value)


def _var(data: bytes) -> bytes:
    return _count(len(data)) + data


def block_hash(block: pb.BlockMessage) -> bytes:
    """The 32-byte hash of the block's header. Raises MalformedMessage for an absurd number of parents."""
    header = block.header
    digest = hashlib.blake2b(digest_size=32, key=b"BlockHash")
    digest.update(struct.pack("<H", header.version & 0xFFFF))
    levels = parent_levels(header)
    if sum(map(len, levels)) > MAX_PARENT_HASHES:
        raise MalformedMessage(f"header with more than {MAX_PARENT_HASHES} parents")
    digest.update(_count(len(levels)))
    for level in levels:
        digest.update(_count(len(level)) + b"".join(level))
    digest.update(header.hashMerkleRoot.bytes + header.acceptedIdMerkleRoot.bytes + header.utxoCommitment.bytes)
    digest.update(struct.pack("<QI", header.timestamp & 0xFFFF_FFFF_FFFF_FFFF, header.bits))
    digest.update(struct.pack("<QQQ", header.nonce, header.daaScore, header.blueScore))
    digest.update(_var(header.blueWork.lstrip(b"\0")))
    digest.update(header.pruningPoint.bytes)
    return digest.digest()


# A header with more levels than this is not expanded: kaspad's maximal level is 225 on mainnet.
MAX_LEVELS = 256
# kaspad has at most 16 parents in a level; expanded, a few bytes of run length must not cost seconds of hashing.
MAX_PARENT_HASHES = 1 << 16


def parent_levels(header: pb.BlockHeader) -> list[list[bytes]]:
    """Parents by level. Run-length coded items (cumulativeLevel not 0) repeat up to, not including, that level."""
    levels: list[list[bytes]] = []
    for item in header.parents:
        parents = [parent.bytes for parent in item.parentHashes]
        end = min(item.cumulativeLevel, MAX_LEVELS) if item.cumulativeLevel else len(levels) + 1
        levels.extend([parents] * max(0, end - len(levels)))
    return levels


def transaction_id(tx: pb.TransactionMessage) -> bytes | None:
    """The 32-byte id, or None for a version whose id is computed otherwise."""
    return blake2b_transaction_id(tx) if tx.version <= LAST_BLAKE2_VERSION else None


def blake2b_transaction_id(tx: pb.TransactionMessage) -> bytes:
    """The id by the rule of version 0: everything but signature scripts, which only a coinbase keeps."""
    subnetwork = tx.subnetworkId.bytes or NATIVE_SUBNETWORK
    digest = hashlib.blake2b(digest_size=32, key=b"TransactionID")
    _write_transaction(digest, tx, subnetwork, signatures=subnetwork == COINBASE_SUBNETWORK)
    return digest.digest()


def _write_transaction(
    digest: hashlib.blake2b, tx: pb.TransactionMessage, subnetwork: bytes, *, signatures: bool
) -> None:
    digest.update(struct.pack("<H", tx.version & 0xFFFF) + _count(len(tx.inputs)))
    for item in tx.inputs:
        point = item.previousOutpoint
        digest.update(point.transactionId.bytes + struct.pack("<I", point.index))
        if signatures:
            digest.update(_var(item.signatureScript) + bytes([item.computeCommit & 0xFF]))
        else:
            digest.update(_count(0))  # the script is left out of an id, its length is not
        digest.update(_count(item.sequence))
    digest.update(_count(len(tx.outputs)))
    for out in tx.outputs:
        script = out.scriptPublicKey
        digest.update(_count(out.value) + struct.pack("<H", script.version & 0xFFFF) + _var(script.script))
    digest.update(_count(tx.lockTime) + subnetwork + _count(tx.gas) + _var(tx.payload))
