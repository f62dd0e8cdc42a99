"""Blocks: an announced unknown hash is requested, answered by request id, checked against its hash, announced on.

Only the header's hash is checked; what the block means is not known here.
"""

from __future__ import annotations

import asyncio

from punchbridge_node._pb.protowire import p2p_pb2 as pb

from .. import fixed, ids, wire
from ..config import NodeConfig
from ..connection import Inbox, PeerConnection
from ..errors import ProtocolViolation
from .base import Flow, FlowContext


class RelayBlocks(Flow):
    """Workers that share the announcements; each has a route of its own for the answers."""

    def __init__(self, connection: PeerConnection, config: NodeConfig) -> None:
        self._connection, self._config = connection, config
        capacity = config.blocks_per_second * fixed.INV_RELAY_BLOCK_CAPACITY_PER_BPS
        self._invs = connection.subscribe([wire.INV_RELAY_BLOCK], capacity)
        # By id only: a Block without the right response id has no route, as with kaspad.
        self._answers = [connection.subscribe([]) for _ in range(max(1, config.blocks_per_second // 2))]

    async def run(self, context: FlowContext) -> None:
        """See Flow."""
        async with asyncio.TaskGroup() as group:
            for answers in self._answers:
                group.create_task(self._connection.guard(self._work(context, answers)))

    async def _work(self, context: FlowContext, answers: Inbox) -> None:
        while True:
            inv = await self._invs.get()
            wanted = wire.hash_bytes(inv.invRelayBlock.hash)
            context.record.known_blocks.add(wanted)
            if not context.inventory.want([wanted], self._connection):
                continue
            self._connection.expect(1)
            request = pb.RequestRelayBlocksMessage(hashes=[pb.Hash(bytes=wanted)])
            await self._connection.send(wire.message(wire.REQUEST_RELAY_BLOCKS, request, request_id=answers.route.id))
            answer = await answers.answer(self._config.answer_timeout, "block")
            if wire.payload_type(answer) != wire.BLOCK:
                raise ProtocolViolation(f"asked for a block, got {wire.payload_type(answer)}")
            found = ids.block_hash(answer.block)
            if found != wanted:
                raise ProtocolViolation(f"requested block {wanted.hex()} but got block {found.hex()}")
            context.inventory.answered(wanted)
            context.inventory.add_block(wanted, answer.block, context.record)
            self._connection.expect(-1)


class AnswerBlocks(Flow):
    """A Block for every hash of RequestRelayBlocks, under the id of the request."""

    def __init__(self, connection: PeerConnection, config: NodeConfig) -> None:
        self._connection = connection
        self._requests = connection.subscribe([wire.REQUEST_RELAY_BLOCKS])
        self._most = config.limits.blocks_per_request

    async def run(self, context: FlowContext) -> None:
        """See Flow."""
        while True:
            request = await self._requests.get()
            hashes = request.requestRelayBlocks.hashes
            if len(hashes) > self._most:
                raise ProtocolViolation(f"{len(hashes)} blocks, at most {self._most} per request")
            for item in map(wire.hash_bytes, hashes):
                block = context.inventory.blocks.get(item)
                if block is None:  # the wire has no "block not found"; silence would cost the peer its time-out
                    raise ProtocolViolation(f"relay block {item.hex()} not found")
                await self._connection.send(wire.message(wire.BLOCK, block, response_id=request.requestId))
