"""The relays whose word is taken, since the user named them."""

from __future__ import annotations

from punchbridge.addresses import Circuit, circuit_of, parse
from punchbridge.identity import Identity, peer_text
from punchbridge.swarm.named import NamedRelays

RELAY, TARGET = (peer_text(Identity.generate().peer_id) for _ in range(2))
BARE = "/ip4/203.0.113.9/tcp/4001"


def through(relay: str) -> Circuit:
    circuit = circuit_of(parse(f"{relay}/p2p-circuit/p2p/{TARGET}"))
    assert circuit is not None
    return circuit


def test_a_relay_is_known_by_its_id_at_whatever_address() -> None:
    named = NamedRelays(4)
    assert not named.holds(through(f"{BARE}/p2p/{RELAY}"))
    named.add([parse(f"{BARE}/p2p/{RELAY}")])
    assert named.holds(through(f"/ip4/203.0.113.10/tcp/1/p2p/{RELAY}"))
    assert not named.holds(through(f"{BARE}/p2p/{peer_text(Identity.generate().peer_id)}"))


def test_a_target_over_a_relay_names_the_relay_and_a_direct_one_names_none() -> None:
    named = NamedRelays(4)
    named.add_targets([parse(f"{BARE}/p2p/{RELAY}"), parse(f"{BARE}/p2p-circuit/p2p/{TARGET}/p2p-circuit")])
    assert not named.holds(through(f"{BARE}/p2p/{RELAY}"))
    named.add_targets([parse(f"{BARE}/p2p/{RELAY}/p2p-circuit/p2p/{TARGET}")])
    assert named.holds(through(f"{BARE}/p2p/{RELAY}"))


def test_a_relay_without_an_id_is_known_by_its_address() -> None:
    named = NamedRelays(4)
    named.add_targets([parse(f"{BARE}/p2p-circuit/p2p/{TARGET}")])
    assert named.holds(through(BARE))
    assert not named.holds(through("/ip4/203.0.113.10/tcp/4001"))


def test_those_named_longest_ago_are_forgotten() -> None:
    named = NamedRelays(2)
    for last in (1, 2, 1, 3):
        named.add([parse(f"/ip4/203.0.113.{last}/tcp/1")])
    assert [named.holds(through(f"/ip4/203.0.113.{last}/tcp/1")) for last in (1, 2, 3)] == [True, False, True]
