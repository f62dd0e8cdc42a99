"""Where a relay sees the two ends of a circuit (R16): who is told, and whose word is taken."""

from __future__ import annotations

from itertools import count

from punchbridge.addresses import Multiaddr, parse, without_peer
from punchbridge.events import ConnectionOpened
from punchbridge.transport.base import Connection
from tests.support.punch_lab import Peer, open_peer, open_relay

Ends = tuple[Connection, Connection]


async def circuit(relay: Multiaddr, dialer: Peer, listener: Peer, *, named: bool = True) -> Ends:
    """Both ends of a circuit through a relay that the dialer's user named, or that somebody told it of."""
    await listener.host.swarm.reserve(relay)
    target = parse(f"{relay}/p2p-circuit/p2p/{listener.peer.to_base58()}")
    ours = await (dialer.host.dial(target) if named else dialer.host.swarm.dial(target))
    for number in count(1):
        opened = await listener.record.wait(ConnectionOpened, number)
        theirs = listener.host.swarm.connection(opened.connection)
        if theirs is not None and theirs.path == "relay" and theirs.peer == dialer.peer:
            return ours, theirs
    raise AssertionError("no circuit")


def at_relay(peer: Peer, relay: Multiaddr) -> Multiaddr:
    """The address from which a peer is connected to the relay."""
    [connection] = [c for c in peer.host.swarm.connections() if without_peer(relay) == c.remote]
    return connection.local


async def test_r16_each_end_is_told_where_the_relay_sees_the_other() -> None:
    async with open_relay() as relay, open_peer(None) as listener, open_peer(None) as dialer:
        ours, theirs = await circuit(relay, dialer, listener)
        assert ours.attested == at_relay(listener, relay)
        assert theirs.attested == at_relay(dialer, relay)


async def test_a_relay_that_the_user_did_not_name_attests_nothing() -> None:
    async with open_relay() as relay, open_peer(None) as listener, open_peer(None) as dialer:
        ours, theirs = await circuit(relay, dialer, listener, named=False)
        assert ours.attested is None
        assert theirs.attested == at_relay(dialer, relay)  # the listener's user named it: it holds a reservation there


async def test_a_direct_connection_is_attested_by_nobody() -> None:
    async with open_peer(None) as listener, open_peer(None) as dialer:
        addr = listener.host.swarm.listen_addrs()[0]
        connection = await dialer.host.swarm.dial(addr, expected=listener.peer)
        assert connection.attested is None
