"""From a bare byte stream to a connection: multistream, Noise, then Yamux, in as few round trips as the peer allows.

Knows no address book and keeps nothing. Spec: libp2p/specs connections, noise
("inlined muxer negotiation").
"""

from __future__ import annotations

from functools import partial

import trio

from punchbridge.addresses import endpoint_of
from punchbridge.config import MuxedLimits, YamuxLimits
from punchbridge.errors import AddressError, AuthenticationFailed, ConnectionLost, DialTimeout, ProtocolViolation
from punchbridge.events import Role
from punchbridge.identity import Identity, PeerId
from punchbridge.tasks.failures import NETWORK_FAILURES
from punchbridge.tasks.fair import FairQueue
from punchbridge.tasks.memory import Memory
from punchbridge.tasks.prefixes import network, source
from punchbridge.tasks.supervise import report
from punchbridge.transport import base
from punchbridge.transport.link import Link
from punchbridge.transport.muxed.connection import MuxedConnection
from punchbridge.transport.raw import RawStream
from punchbridge.wire.multistream import Initiator, Responder
from punchbridge.wire.noise import NOISE, Handshake, Secured
from punchbridge.yamux import YAMUX

_READ = 65536


class MuxedUpgrader:
    """See `base.Upgrader`: multistream-select, Noise and Yamux, for one identity. `memory`, `turns`: what they share;
    whoever gives `turns` runs them."""

    def __init__(
        self,
        identity: Identity,
        limits: MuxedLimits,
        yamux: YamuxLimits,
        memory: Memory | None = None,
        turns: FairQueue[str] | None = None,
    ) -> None:
        self._limits, self._yamux = limits, yamux
        self._memory = Memory() if memory is None else memory
        self._turns = turns
        self._identity = identity

    async def upgrade(self, link: Link, *, role: Role, expected: PeerId | None) -> base.Connection:
        """See `base.Upgrader`."""
        try:
            with trio.move_on_after(self._limits.upgrade_timeout):
                return await upgrade(
                    link,
                    role=role,
                    identity=self._identity,
                    expected=expected,
                    limits=self._limits,
                    yamux=self._yamux,
                    memory=self._memory,
                    turns=self._turns,
                )
        except NETWORK_FAILURES:
            raise
        except Exception as problem:  # the named supervisor: a stranger's bytes end one link, not us
            link.raw.abort()
            report("a handshake", problem)
            raise ProtocolViolation(f"the handshake with {link.remote} failed on a defect: {problem!r}") from problem
        raise DialTimeout(f"{link.remote} did not finish the handshake within {self._limits.upgrade_timeout:g} s")


async def upgrade(
    link: Link,
    *,
    role: Role,
    identity: Identity,
    expected: PeerId | None,
    limits: MuxedLimits = MuxedLimits(),
    yamux: YamuxLimits = YamuxLimits(),
    memory: Memory | None = None,
    turns: FairQueue[str] | None = None,
) -> MuxedConnection:
    """Secures and muxes a link, without a deadline. `expected` is the peer that must be there; None accepts any.
    `memory`, `turns`: what the connection shares with others.

    Raises AuthenticationFailed, WrongPeer, NegotiationFailed, ProtocolViolation or ConnectionLost. The link is aborted
    on every failure and on cancellation.
    """
    try:
        secured, rtt = await _secure(link.raw, role, identity, expected)
        if secured.peer == identity.peer_id:
            raise AuthenticationFailed("the peer is ourselves: an address of our own was dialled")
        early = b""
        if secured.muxer is None:
            early = await _agree_on_yamux(link.raw, role, secured)
        origin = _origin(link)
        return MuxedConnection(
            link,
            peer=secured.peer,
            role=role,
            sealer=secured.sealer,
            opener=secured.opener,
            limits=limits,
            yamux=yamux,
            account=None if memory is None else memory.account(origin),
            turn=None if turns is None else partial(turns.turn, origin),
            early=early,
            rtt=rtt,
        )
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as problem:
        link.raw.abort()
        raise ConnectionLost(f"{link.remote}: lost while it was being secured ({problem})") from None
    except BaseException:
        link.raw.abort()
        raise


def _origin(link: Link) -> str:
    """The address that a connection's memory and turns count for; of a circuit, the relay's."""
    try:
        endpoint = endpoint_of(link.remote)
    except AddressError:
        endpoint = None
    return "" if endpoint is None else network(source(endpoint.host))


async def _receive(raw: RawStream, phase: str) -> bytes:
    data = await raw.receive_some(_READ)
    if not data:
        raise ConnectionLost(f"the peer closed the connection during {phase}")
    return data


async def _secure(raw: RawStream, role: Role, identity: Identity, expected: PeerId | None) -> tuple[Secured, float]:
    """The keys and the peer, and the round trip from our last Noise message before the peer's last one, in seconds."""
    asked = trio.current_time()
    handshake, data = await _agree_on_noise(raw, role, identity, expected)
    while handshake.secured is None:
        received = data or await _receive(raw, "the Noise handshake")
        data = b""
        rtt = trio.current_time() - asked
        reply = handshake.receive(received)
        if reply:
            asked = trio.current_time()
            await raw.send_all(reply)
    return handshake.secured, rtt


async def _agree_on_noise(
    raw: RawStream, role: Role, identity: Identity, expected: PeerId | None
) -> tuple[Handshake, bytes]:
    """multistream-select in the clear; returns the handshake and the peer's bytes for it.

    The responder makes its keys when it has heard of the handshake: whoever connects and says nothing costs none.
    """
    if role == "initiator":
        handshake = Handshake(identity, role, expected=expected, muxers=(YAMUX,))
        proposal = Initiator([NOISE])
        await raw.send_all(proposal.start() + handshake.start())
        await _negotiate(raw, proposal)
        return handshake, proposal.leftover
    answer = Responder(lambda: (NOISE,))
    await _negotiate(raw, answer)
    return Handshake(identity, role, expected=expected, muxers=(YAMUX,)), answer.leftover


async def _negotiate(raw: RawStream, negotiation: Initiator | Responder) -> None:
    while not negotiation.done:
        reply = negotiation.receive(await _receive(raw, "the security negotiation"))
        if reply:
            await raw.send_all(reply)


async def _agree_on_yamux(raw: RawStream, role: Role, secured: Secured) -> bytes:
    """multistream-select inside the channel; returns the peer's first Yamux bytes, if they came along."""
    negotiation: Initiator | Responder
    if role == "initiator":
        negotiation = Initiator([YAMUX])
        await raw.send_all(secured.sealer.seal(negotiation.start()))
    else:
        negotiation = Responder(lambda: (YAMUX,))
    data = b""  # the first round opens what arrived behind the handshake
    while True:
        reply = negotiation.receive(b"".join(secured.opener.receive(data)))
        if reply:
            await raw.send_all(secured.sealer.seal(reply))
        if negotiation.done:
            return negotiation.leftover
        data = await _receive(raw, "the muxer negotiation")
