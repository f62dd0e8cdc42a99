"""The decision who may call, and what a change of it means for those who are connected."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

import punchbridge.access.policy as policy
from punchbridge.access.lists import Address, Entry, Rules
from punchbridge.access.policy import NOBODY, OPEN, Access, Change, Decision, change
from punchbridge.access.records import Records
from punchbridge.access.secret import Secret
from punchbridge.config.access import ANYONE, AccessLimits
from punchbridge.errors import ConfigError
from punchbridge.identity import Identity, PeerId

PEERS = [Identity.generate().peer_id for _ in range(4)]
A, B, C, D = PEERS
HOME, ABROAD = ip_address("203.0.113.9"), ip_address("198.51.100.9")
ALLOWED, DENIED, UNKNOWN = Decision.ALLOWED, Decision.DENIED, Decision.UNKNOWN


def test_nobody_is_let_in_who_is_on_no_list() -> None:
    assert NOBODY == Access() == Access.of()
    assert NOBODY.decide(A, HOME) is UNKNOWN
    access = Access.of([str(A), B], [])
    assert [access.decide(peer, None) for peer in PEERS] == [ALLOWED, ALLOWED, UNKNOWN, UNKNOWN]


def test_denial_wins_over_everything() -> None:
    for access in (Access.of([A, B], [A, "203.0.113.0/24"]), Access.of(ANYONE, [str(A), "203.0.113.0/24"])):
        assert access.decide(A, ABROAD) is DENIED
        assert access.decide(B, HOME) is DENIED
        assert access.decide(B, ABROAD) is ALLOWED
        assert access.decide(B, None) is ALLOWED
        assert access.denies_address(HOME)
        assert not access.denies_address(ABROAD)
        assert not access.denies_address(None)
    assert OPEN.decide(D, None) is ALLOWED
    assert Access.of(ANYONE) == OPEN


def test_a_network_lets_in_who_is_seen_there_and_nobody_whose_address_is_unknown() -> None:
    access = Access.of(["203.0.113.0/24"])
    assert access.decide(D, HOME) is ALLOWED
    assert access.decide(D, ABROAD) is UNKNOWN
    assert access.decide(D, None) is UNKNOWN


def test_flags_and_file_are_one_list() -> None:
    limits, secret = AccessLimits(), Secret(bytes(16))
    records = Records().allowing(B, "bob", limits).denying(A, "", limits)
    records = records.inviting(secret, now=1, expires=None, uses=1, label="guest", limits=limits)
    _, records = records.redeeming(secret, C, 2)
    access = Access(Rules((Entry(A, "flag"), Entry(B, "robert")))).with_records(records)
    assert [access.decide(peer, None) for peer in PEERS] == [DENIED, ALLOWED, ALLOWED, UNKNOWN]
    assert access.labels(B) == {"bob", "robert"}
    assert access.labels(C) == {"guest"}
    assert access.labels(A) == access.labels(D) == frozenset()
    assert (OPEN | access).decide(D, None) is ALLOWED
    assert (OPEN | access).decide(A, None) is DENIED
    gone = records.revoking(secret.digest.hex(), 3, limits)
    assert NOBODY.with_records(gone).decide(C, None) is UNKNOWN


def test_what_names_no_peer_is_refused() -> None:
    with pytest.raises(ConfigError, match="'bob' is neither a peer id nor an IP network"):
        Access.of(["bob"])


def test_anyone_says_who_it_is() -> None:
    assert repr(ANYONE) == "punchbridge.ANYONE"


present = st.lists(st.tuples(st.sampled_from(PEERS), st.sampled_from([HOME, ABROAD, None])), max_size=6)
who = st.sampled_from([*PEERS, "203.0.113.0/24", "198.51.100.9"])
rules = st.lists(who, max_size=4)
accesses = st.builds(Access.of, rules | st.just(ANYONE), rules)


@given(accesses, accesses, st.sampled_from(PEERS), st.sampled_from([HOME, ABROAD, None]))
def test_together_they_allow_what_one_allows_and_none_denies(
    one: Access, two: Access, peer: PeerId, address: Address | None
) -> None:
    decisions = {one.decide(peer, address), two.decide(peer, address)}
    together = DENIED if DENIED in decisions else ALLOWED if ALLOWED in decisions else UNKNOWN
    assert (one | two).decide(peer, address) is (two | one).decide(peer, address) is together


def test_who_was_struck_out_and_who_was_admitted() -> None:
    before, after = Access.of([A, B, "203.0.113.0/24"]), Access.of([B, C], [D])
    connected = [(A, HOME), (B, None), (C, ABROAD), (D, HOME), (A, None)]
    assert change(before, after, connected) == Change(admitted=(C,), struck_out=(A, D))
    assert change(before, after, [(B, HOME)]) == Change()
    assert change(NOBODY, Access.of([], [A]), [(A, HOME)]) == Change()
    # B is allowed by its id as before; that one of its addresses is denied now strikes it out.
    assert change(before, Access.of([B], ["198.51.100.0/24"]), [(B, HOME), (B, ABROAD)]).struck_out == (B,)


@given(accesses, accesses, present)
def test_a_change_and_its_contrary(
    before: Access, after: Access, connected: list[tuple[PeerId, Address | None]]
) -> None:
    there, back = change(before, after, connected), change(after, before, connected)
    assert (there.admitted, there.struck_out) == (back.struck_out, back.admitted)
    assert change(before, before, connected) == Change()
    for peer in there.struck_out:
        places = [address for one, address in connected if one == peer]
        assert any(before.decide(peer, address) is ALLOWED for address in places)
        assert any(after.decide(peer, address) is not ALLOWED for address in places)


def test_it_is_decided_without_files() -> None:
    assert not {"os", "fcntl", "time", "socket"} & set(vars(policy))
