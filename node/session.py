"""One stream from first byte to last: handshake, admission, flows. Joins the pure machines to a running connection.

Knows the node's tables and the connection; gRPC and what the transport is stay outside.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from punchbridge_node._pb.protowire import p2p_pb2 as pb

from . import fixed, flows, wire
from .addressbook import AddressBook, NetworkAddress
from .config import NodeConfig
from .connection import Inbox, PeerConnection
from .errors import DisconnectReason, Ending, HandshakeFailure
from .flows.base import Flow, FlowContext
from .handshake import Action, Failed, Handshake, HandshakeRefusal, Negotiated, Send, check_version, own_version
from .hub import Hub, Verdict
from .inventory import Inventory
from .peer import PeerRecord
from .transport import PeerInfo

Policy = Callable[[PeerInfo, pb.VersionMessage], str | None]


def accept_all(_info: PeerInfo, _version: pb.VersionMessage) -> str | None:
    """The policy that refuses nobody."""
    return None


def refuse_relayed(info: PeerInfo, _version: pb.VersionMessage) -> str | None:
    """A policy that takes only peers reached directly."""
    return "relayed peers are not accepted here" if info.path == "relay" else None


@dataclass(frozen=True)
class Shared:
    """What all sessions of a node work on."""

    config: NodeConfig
    hub: Hub
    inventory: Inventory
    addresses: AddressBook
    policy: Policy
    clock: Callable[[], float]
    learned: Callable[[list[NetworkAddress]], None]
    connected: Callable[[PeerRecord], None]


@dataclass(eq=False)
class PeerSession:
    """One stream's work. `established` is set with the record once the peer is admitted."""

    shared: Shared
    connection: PeerConnection
    info: PeerInfo
    record: PeerRecord | None = None
    established: asyncio.Event = field(default_factory=asyncio.Event)
    _flows: list[Flow] = field(default_factory=list)

    async def run(self) -> None:
        """Shake hands, enter the hub, run the flows until cancelled. A failed handshake ends the connection."""
        version = await self._shake_hands()
        if version is None:
            return
        admitted = self.shared.hub.admit(self.info, version.id, self.connection)
        if isinstance(admitted, HandshakeRefusal):
            self._fail(admitted.failure, admitted.reject)
            return
        self._describe(admitted, version)
        self.record = admitted
        self.established.set()
        self.shared.connected(admitted)
        self.shared.inventory.greet(admitted, self.connection)
        context = FlowContext(
            admitted, self.shared.inventory, self.shared.addresses, self.shared.clock, self.shared.learned
        )
        async with asyncio.TaskGroup() as group:
            for flow in self._flows:
                group.create_task(self.connection.guard(flow.run(context)))

    async def _shake_hands(self) -> pb.VersionMessage | None:
        config = self.shared.config
        times = config.handshake
        if self.info.path == "relay":
            times = times.scaled(config.slow_path_multiplier)
        machine = Handshake(own_version(config, time.time_ns() // 1_000_000), times, self._check)
        inbox = self.connection.subscribe(wire.HANDSHAKE)
        clock = self.shared.clock
        going = self._act(machine.start(clock()), machine)
        while going and machine.next_timer() is not None:
            going = self._act(await self._next(machine, inbox), machine)
        self.connection.unsubscribe(inbox)
        leftover = inbox.drain()
        if going and leftover:
            kind = wire.payload_type(leftover[0])
            self._fail(HandshakeFailure.OUT_OF_ORDER, f"unexpected {kind} after the handshake")
            return None
        return machine.peer_version if going else None

    async def _next(self, machine: Handshake, inbox: Inbox) -> list[Action]:
        deadline = machine.next_timer()
        assert deadline is not None
        try:
            async with asyncio.timeout(max(0.0, deadline - self.shared.clock())):
                return machine.receive(await inbox.get(), self.shared.clock())
        except TimeoutError:
            return machine.handle_timer(max(deadline, self.shared.clock()))

    def _act(self, actions: list[Action], machine: Handshake) -> bool:
        """Carry out actions; whether the handshake goes on (or is done)."""
        for action in actions:
            if isinstance(action, Send):
                self.connection.send_now(action.message)
            elif isinstance(action, Negotiated):
                self._flows = flows.subscribe_all(self.connection, self.shared.config)
                if not self._act(machine.flows_subscribed(self.shared.clock()), machine):
                    return False
            elif isinstance(action, Failed):
                self._fail(action.failure, action.reject)
                return False
        return True

    def _check(self, version: pb.VersionMessage) -> HandshakeRefusal | None:
        hub, outbound = self.shared.hub, self.connection.outbound
        return check_version(
            version,
            self.shared.config,
            duplicate=lambda node_id: hub.verdict(self.info, node_id, outbound) is Verdict.DUPLICATE,
            policy=lambda theirs: self.shared.policy(self.info, theirs),
        )

    def _fail(self, failure: HandshakeFailure, reject: str) -> None:
        self.connection.end(Ending(DisconnectReason.HANDSHAKE, reject, reject=reject, failure=failure))

    def _describe(self, record: PeerRecord, version: pb.VersionMessage) -> None:
        record.user_agent = wire.cut_utf8(version.userAgent, fixed.USER_AGENT_BYTES)
        record.protocol_version = version.protocolVersion
        record.relay_transactions = not version.disableRelayTx
        record.time_offset_ms = time.time_ns() // 1_000_000 - version.timestamp
        if self.connection.outbound and self.info.peer_id is None:
            self.shared.learned(self.shared.addresses.add(outbound_addresses(self.info, version)))


def outbound_addresses(info: PeerInfo, version: pb.VersionMessage) -> list[NetworkAddress]:
    """What a peer we dialled over TCP tells of itself: its socket address, and Version.address if it is one."""
    found = []
    try:
        found.append(NetworkAddress.parse(info.address or "", info.port))
        if version.HasField("address"):
            found.append(NetworkAddress.from_wire(version.address))
    except ValueError:
        return found  # a host name, or an empty address: nothing to remember
    return found


# How an ending before Ready is reported to who asked for the connection.
FAILURES = {
    DisconnectReason.PEER_REJECTED: HandshakeFailure.REJECTED_BY_PEER,
    DisconnectReason.PEER_CLOSED: HandshakeFailure.CLOSED_BY_PEER,
    DisconnectReason.TRANSPORT: HandshakeFailure.CLOSED_BY_PEER,
    DisconnectReason.LOCAL_CLOSE: HandshakeFailure.CANCELLED,
}


# The two harmless rejections keep their meaning when the peer is the one who says them.
REJECTIONS = {wire.REASON_DUPLICATE: HandshakeFailure.DUPLICATE, wire.REASON_LOOPBACK: HandshakeFailure.LOOPBACK}


def failure_of(ending: Ending) -> HandshakeFailure:
    """The handshake failure that an ending before Ready stands for."""
    if ending.reason is DisconnectReason.PEER_REJECTED and ending.detail in REJECTIONS:
        return REJECTIONS[ending.detail]
    return ending.failure or FAILURES.get(ending.reason, HandshakeFailure.PROTOCOL_ERROR)
