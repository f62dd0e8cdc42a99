"""Ping both ways: liveness and the round-trip time. A peer's silence ends the connection, nothing else does."""

from __future__ import annotations

import asyncio
import random

from punchbridge_node._pb.protowire import p2p_pb2 as pb

from .. import wire
from ..config import NodeConfig
from ..connection import PeerConnection
from ..errors import ProtocolViolation
from .base import Flow, FlowContext


class SendPings(Flow):
    """A Ping each `ping_interval`; its Pong must bring the nonce back within `answer_timeout`."""

    def __init__(self, connection: PeerConnection, config: NodeConfig) -> None:
        self._connection, self._config = connection, config
        self._pongs = connection.subscribe([wire.PONG])

    async def run(self, context: FlowContext) -> None:
        """See Flow."""
        while True:
            await asyncio.sleep(self._config.ping_interval)
            nonce = random.getrandbits(64)  # tells pongs apart, guards nothing
            sent = context.clock()
            await self._connection.send(wire.message(wire.PING, pb.PingMessage(nonce=nonce)))
            pong = await self._pongs.answer(self._config.answer_timeout, "pong")
            if pong.pong.nonce != nonce:
                raise ProtocolViolation("nonce mismatch between ping and pong")
            context.record.rtt = context.clock() - sent


class AnswerPings(Flow):
    """A Pong for every Ping, with its nonce."""

    def __init__(self, connection: PeerConnection, config: NodeConfig) -> None:
        self._connection = connection
        self._pings = connection.subscribe([wire.PING])

    async def run(self, context: FlowContext) -> None:
        """See Flow."""
        while True:
            ping = await self._pings.get()
            await self._connection.send(wire.message(wire.PONG, pb.PongMessage(nonce=ping.ping.nonce)))
