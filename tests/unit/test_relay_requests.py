"""How many requests a relay has under way: of a peer, of a network, in all."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from punchbridge.identity import Identity
from punchbridge_relay.limits import RelayLimits
from punchbridge_relay.refusal import HopRefusal
from punchbridge_relay.requests import Requests

PEERS = [Identity.generate().peer_id for _ in range(4)]
LIMITS = RelayLimits(hop_streams=6, hop_streams_per_peer=2, hop_streams_per_address=3)


def refused(requests: Requests, peer: int, network: str) -> str:
    with pytest.raises(HopRefusal) as raised, requests.under_way(PEERS[peer], network):
        pass
    return raised.value.reason


def test_each_bound_refuses_by_its_name_and_places_come_back() -> None:
    requests = Requests(LIMITS)
    with ExitStack() as first:
        for peer in (0, 0, 1):
            first.enter_context(requests.under_way(PEERS[peer], "near"))
        assert refused(requests, 0, "far") == "hop_streams_peer"
        assert refused(requests, 2, "near") == "hop_streams_address"
        for peer in (1, 2, 2):
            first.enter_context(requests.under_way(PEERS[peer], "far"))
        assert refused(requests, 3, "third") == "hop_streams"
    with requests.under_way(PEERS[0], "near"):
        assert not Requests(LIMITS)._peers
    assert (requests._all, requests._peers, requests._networks) == (0, {}, {})


def test_refusals_that_nobody_reads_are_told_to_so_many_only() -> None:
    requests = Requests(LIMITS)
    with ExitStack() as waiting:
        assert [waiting.enter_context(requests.refusing("near")) for _ in range(4)] == [True, True, True, False]
        assert waiting.enter_context(requests.refusing("far"))
    with requests.refusing("near") as told:
        assert told


def test_unlimited_is_unlimited() -> None:
    requests = Requests(RelayLimits(hop_streams=0, hop_streams_per_peer=0, hop_streams_per_address=0))
    with ExitStack() as all_of_them:
        for _ in range(3000):
            all_of_them.enter_context(requests.under_way(PEERS[0], "near"))
            assert all_of_them.enter_context(requests.refusing("near"))
