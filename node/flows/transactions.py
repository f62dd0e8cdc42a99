"""Transactions: announced unknown ids are requested, answered in request order, kept and announced on.

Answers are not by id: Transaction and TransactionNotFound come on one route, one for each requested id, in order.
"""

from __future__ import annotations

import asyncio

from punchbridge_node._pb.protowire import p2p_pb2 as pb

from .. import fixed, ids, wire
from ..config import NodeConfig
from ..connection import PeerConnection
from ..errors import ProtocolViolation
from .base import Flow, FlowContext


class RelayTransactions(Flow):
    """Take announcements one after another; a request is answered in full before the next is made."""

    def __init__(self, connection: PeerConnection, config: NodeConfig) -> None:
        self._connection, self._config = connection, config
        self._invs = connection.subscribe([wire.INV_TRANSACTIONS], fixed.INV_TRANSACTIONS_CAPACITY)
        self._answers = connection.subscribe([wire.TRANSACTION, wire.TRANSACTION_NOT_FOUND], fixed.TRANSACTION_CAPACITY)

    async def run(self, context: FlowContext) -> None:
        """See Flow."""
        while True:
            announced = wire.transaction_ids(await self._invs.get())
            context.record.known_transactions.update(announced)
            wanted = context.inventory.want(announced, self._connection)
            if not wanted:
                continue
            self._connection.expect(len(wanted))
            request = pb.RequestTransactionsMessage(ids=(pb.TransactionId(bytes=item) for item in wanted))
            await self._connection.send(wire.message(wire.REQUEST_TRANSACTIONS, request))
            for item in wanted:
                await self._take(context, item)
                self._connection.expect(-1)

    async def _take(self, context: FlowContext, wanted: bytes) -> None:
        answer = await self._answers.answer(self._config.answer_timeout, "transaction")
        if wire.payload_type(answer) == wire.TRANSACTION_NOT_FOUND:
            found = wire.hash_bytes(answer.transactionNotFound.id)
        else:
            # A version whose id we cannot compute is taken by its place in the order.
            found = ids.transaction_id(answer.transaction) or wanted
        if found != wanted:
            raise ProtocolViolation(f"requested transaction {wanted.hex()} but got {found.hex()}")
        context.inventory.answered(wanted)
        if wire.payload_type(answer) == wire.TRANSACTION:
            context.inventory.add_transaction(wanted, answer.transaction, context.record)


class AnswerTransactions(Flow):
    """A Transaction or a TransactionNotFound for every requested id, in order."""

    def __init__(self, connection: PeerConnection, config: NodeConfig) -> None:
        self._connection = connection
        self._requests = connection.subscribe([wire.REQUEST_TRANSACTIONS])
        self._turn = config.limits.answers_per_turn

    async def run(self, context: FlowContext) -> None:
        """See Flow."""
        while True:
            for number, item in enumerate(wire.transaction_ids(await self._requests.get()), 1):
                if number % self._turn == 0:
                    await asyncio.sleep(0)  # one full request would hold up every other peer for seconds
                tx = context.inventory.transactions.get(item)
                if tx is None:
                    missing = pb.TransactionNotFoundMessage(id=pb.TransactionId(bytes=item))
                    await self._connection.send(wire.message(wire.TRANSACTION_NOT_FOUND, missing))
                else:
                    await self._connection.send(wire.message(wire.TRANSACTION, tx))
