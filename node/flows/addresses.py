"""Addresses of other nodes: asked for once at the start of a connection, answered whenever asked."""

from __future__ import annotations

from punchbridge_node._pb.protowire import p2p_pb2 as pb

from .. import fixed, wire
from ..addressbook import NetworkAddress
from ..config import NodeConfig
from ..connection import PeerConnection
from ..errors import ProtocolViolation
from .base import Flow, FlowContext


class AskAddresses(Flow):
    """RequestAddresses at once; one Addresses within `answer_timeout`, any later one is unasked for."""

    def __init__(self, connection: PeerConnection, config: NodeConfig) -> None:
        self._connection, self._config = connection, config
        self._answers = connection.subscribe([wire.ADDRESSES])

    async def run(self, context: FlowContext) -> None:
        """See Flow."""
        request = pb.RequestAddressesMessage(includeAllSubnetworks=False)
        await self._connection.send(wire.message(wire.REQUEST_ADDRESSES, request))
        answer = await self._answers.answer(self._config.answer_timeout, "addresses")
        items = answer.addresses.addressList
        if len(items) > fixed.MAX_ADDRESSES_RECEIVED:
            raise ProtocolViolation(f"{len(items)} addresses, at most {fixed.MAX_ADDRESSES_RECEIVED} allowed")
        context.learned(context.addresses.add([NetworkAddress.from_wire(item) for item in items]))
        await self._answers.get()
        raise ProtocolViolation("addresses nobody asked for")


class AnswerAddresses(Flow):
    """Our newest addresses for every RequestAddresses; an empty list is an answer too (kaspad waits for it)."""

    def __init__(self, connection: PeerConnection, config: NodeConfig) -> None:
        self._connection = connection
        self._requests = connection.subscribe([wire.REQUEST_ADDRESSES])

    async def run(self, context: FlowContext) -> None:
        """See Flow."""
        while True:
            await self._requests.get()
            newest = context.addresses.newest(fixed.MAX_ADDRESSES_SENT)
            body = pb.AddressesMessage(addressList=(item.to_wire() for item in newest))
            await self._connection.send(wire.message(wire.ADDRESSES, body))
