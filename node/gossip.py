"""Synthetic transactions and blocks for demos: opaque bodies with true ids, one each interval.

For nodes of ours only. Nothing here is valid to a consensus; a kaspad that gets such a body disconnects.
"""

from __future__ import annotations

import asyncio
import os
import time

from punchbridge_node._pb.protowire import p2p_pb2 as pb

from .config import GossipSource
from .ids import NATIVE_SUBNETWORK
from .inventory import Inventory


def transaction(body_bytes: int) -> pb.TransactionMessage:
    """A transaction of version 0 with a random payload."""
    return pb.TransactionMessage(
        subnetworkId=pb.SubnetworkId(bytes=NATIVE_SUBNETWORK), payload=os.urandom(max(16, body_bytes))
    )


def block(parent: bytes | None, body_bytes: int) -> pb.BlockMessage:
    """A block over `parent` with one transaction; its nonce makes the hash unique."""
    zero = pb.Hash(bytes=bytes(32))
    header = pb.BlockHeader(
        version=1,
        hashMerkleRoot=zero,
        acceptedIdMerkleRoot=zero,
        utxoCommitment=zero,
        pruningPoint=zero,
        timestamp=time.time_ns() // 1_000_000,
        nonce=int.from_bytes(os.urandom(8)),
    )
    if parent is not None:
        header.parents.add().parentHashes.add(bytes=parent)
    return pb.BlockMessage(header=header, transactions=[transaction(body_bytes)])


async def make_transactions(source: GossipSource, inventory: Inventory) -> None:
    """Publish a transaction each `transaction_interval`; returns at once when that is None."""
    while source.transaction_interval is not None:
        await asyncio.sleep(source.transaction_interval)
        inventory.publish_transaction(transaction(source.body_bytes))


async def make_blocks(source: GossipSource, inventory: Inventory) -> None:
    """Publish a block each `block_interval`, over the newest one known; returns at once when that is None."""
    while source.block_interval is not None:
        await asyncio.sleep(source.block_interval)
        inventory.publish_block(block(inventory.blocks.newest(), source.body_bytes))
