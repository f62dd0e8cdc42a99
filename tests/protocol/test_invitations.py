"""Invitations and the records that hold them: what a secret is answered, what each edit leaves, and the text."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.access.invitations import WORDS, Invitation, Outcome, Redeemed, outcome_of, redeem
from punchbridge.access.lists import MAX_LABEL, Entry, parse_who
from punchbridge.access.records import Records, decode_records, encode_records
from punchbridge.access.secret import SECRET_SIZE, Secret
from punchbridge.config.access import AccessLimits
from punchbridge.errors import AccessFileError, ConfigError
from punchbridge.identity import PeerId

LIMITS = AccessLimits()
NOW = 1_800_000_000
PEERS = [PeerId.of_key(bytes.fromhex("08011220") + bytes([n]) * 32) for n in range(6)]
ALICE, BOB, CAROL = PEERS[:3]
SECRET, OTHER = Secret(b"s" * SECRET_SIZE), Secret(b"o" * SECRET_SIZE)


def invitation(secret: Secret = SECRET, *, uses: int = 1, expires: int | None = None, label: str = "") -> Invitation:
    return Invitation(secret.digest, NOW, expires, uses, label)


def inviting(
    records: Records,
    secret: Secret = SECRET,
    *,
    now: float = NOW,
    expires: float | None = None,
    uses: int = 1,
    label: str = "",
    limits: AccessLimits = LIMITS,
    newest: int | None = None,
) -> Records:
    return records.inviting(secret, now=now, expires=expires, uses=uses, label=label, limits=limits, newest=newest)


# --- what a secret is answered ------------------------------------------------------------------------------


def test_uses_count_peers_and_not_runs() -> None:
    kept: tuple[Invitation, ...] = (invitation(OTHER), invitation(uses=2))
    for peer, at in ((ALICE, NOW), (ALICE, NOW + 1), (BOB, NOW + 2), (ALICE, NOW + 3), (BOB, NOW + 4)):
        outcome, kept = redeem(kept, SECRET, peer, at + 0.7)
        assert outcome is Outcome.GRANTED
    assert kept[1].redeemed == (Redeemed(ALICE, NOW), Redeemed(BOB, NOW + 2))
    assert kept[1].left == 0
    assert kept[1].peers == {ALICE, BOB}
    assert redeem(kept, SECRET, CAROL, NOW) == (Outcome.USED_UP, kept)
    assert kept[0] == invitation(OTHER)


def test_an_expiry_ends_the_inviting_and_not_the_being_admitted() -> None:
    kept: tuple[Invitation, ...] = (invitation(uses=5, expires=NOW + 10),)
    outcome, kept = redeem(kept, SECRET, ALICE, NOW + 9.9)
    assert outcome is Outcome.GRANTED
    assert redeem(kept, SECRET, BOB, NOW + 10) == (Outcome.EXPIRED, kept)
    assert redeem(kept, SECRET, ALICE, NOW + 10) == (Outcome.GRANTED, kept)
    assert kept[0].peers == {ALICE}


def test_a_revoked_one_lets_nobody_in_and_takes_back_whom_it_let_in() -> None:
    _, kept = redeem((invitation(uses=5, expires=NOW + 1),), SECRET, ALICE, NOW)
    kept = (replace(kept[0], revoked=NOW),)
    for peer in (ALICE, BOB):
        assert redeem(kept, SECRET, peer, NOW + 2) == (Outcome.REVOKED, kept)
    assert kept[0].peers == frozenset()


def test_an_unknown_secret() -> None:
    assert redeem((), SECRET, ALICE, NOW) == (Outcome.UNKNOWN, ())
    assert outcome_of((invitation(),), OTHER, ALICE, NOW) is Outcome.UNKNOWN


def test_each_answer_has_words_of_its_own() -> None:
    assert set(WORDS) == set(Outcome)
    assert len(set(WORDS.values())) == len(Outcome)


def test_the_secret_is_not_kept() -> None:
    made = invitation()
    assert made.digest == hashlib.sha256(SECRET.to_bytes()).digest()
    assert made.name == made.digest.hex()[:8]
    with pytest.raises(ValueError, match="32 bytes"):
        Invitation(SECRET.to_bytes(), NOW)


@given(
    st.integers(1, 3),
    st.none() | st.integers(NOW, NOW + 20),
    st.lists(st.tuples(st.sampled_from(PEERS), st.sampled_from([SECRET, OTHER]), st.integers(0, 30)), max_size=20),
)
def test_at_most_so_many_peers_and_none_that_was_let_in_is_turned_away(
    uses: int, expires: int | None, shown: list[tuple[PeerId, Secret, int]]
) -> None:
    kept: tuple[Invitation, ...] = (invitation(uses=uses, expires=expires),)
    granted: set[PeerId] = set()
    for peer, secret, after in shown:
        before = kept
        expected = outcome_of(kept, secret, peer, NOW + after)
        outcome, kept = redeem(kept, secret, peer, NOW + after)
        assert outcome is expected
        if outcome is Outcome.GRANTED:
            granted.add(peer)
        else:
            assert kept == before
            assert secret is OTHER or peer not in granted
    assert kept[0].peers == granted
    assert len(granted) <= uses


# --- edits --------------------------------------------------------------------------------------------------


def test_allowing_and_denying_are_each_others_contrary() -> None:
    net = ip_network("203.0.113.0/24")
    records = Records().allowing(ALICE, " alice ", LIMITS).allowing(net, "", LIMITS).denying(BOB, "", LIMITS)
    assert records.allow.entries == (Entry(ALICE, "alice"), Entry(net))
    assert records.deny.peers == {BOB}
    records = records.denying(ALICE, "left", LIMITS).allowing(BOB, "bob", LIMITS).allowing(BOB, "robert", LIMITS)
    assert records == Records((Entry(net), Entry(BOB, "robert")), (Entry(ALICE, "left"),))
    records = records.forgetting(ALICE).forgetting(net)
    assert records == Records((Entry(BOB, "robert"),))
    with pytest.raises(ConfigError, match="neither allowed nor denied here"):
        records.forgetting(ALICE)


def test_whoever_redeemed_is_allowed_by_the_label_of_the_invitation() -> None:
    outcome, records = inviting(Records(), label="ci").redeeming(SECRET, ALICE, NOW)
    assert outcome is Outcome.GRANTED
    assert records.allow.labels == {ALICE: {"ci"}}
    assert records.redeeming(SECRET, ALICE, NOW + 1) == (Outcome.GRANTED, records)
    with pytest.raises(ConfigError, match=f"was let in by invitation {SECRET.digest.hex()[:8]}; deny the peer"):
        records.forgetting(ALICE)


def test_a_denial_of_one_who_was_invited_is_not_ended_by_forgetting_it() -> None:
    records = inviting(Records()).redeeming(SECRET, ALICE, NOW)[1].denying(ALICE, "", LIMITS)
    with pytest.raises(ConfigError, match=r"is denied, and without that invitation \w+ lets it in again; allow"):
        records.forgetting(ALICE)
    assert ALICE in records.allowing(ALICE, "", LIMITS).allow.peers


def test_a_denied_peer_learns_nothing_of_an_invitation_and_uses_none() -> None:
    records = inviting(Records()).denying(ALICE, "", LIMITS)
    assert records.redeeming(SECRET, ALICE, NOW) == (Outcome.UNKNOWN, records)
    assert records.redeeming(SECRET, BOB, NOW)[0] is Outcome.GRANTED


def test_revoking_by_the_beginning_of_the_name() -> None:
    records = inviting(inviting(Records(), uses=3, label="team"), OTHER)
    for peer in (ALICE, BOB, CAROL):
        _, records = records.redeeming(SECRET, peer, NOW)
    records = records.denying(BOB, "", LIMITS).allowing(CAROL, "carol", LIMITS)
    name = SECRET.digest.hex()
    gone = records.revoking(name[:4].upper(), NOW + 5.5, LIMITS)
    assert gone.allow.peers == {CAROL}
    assert gone.invitations[0].revoked == NOW + 5
    kept = records.revoking(name[:8], NOW, LIMITS, keep=True)
    assert kept.allowed == (Entry(CAROL, "carol"), Entry(ALICE, "team"))
    assert kept.denied == records.denied
    for bad, words in (("", "no invitation"), (name[:3], "no invitation"), ("ffff", "no invitation")):
        with pytest.raises(ConfigError, match=f"{words} has the name '{bad}'; see punchbridge invite --list"):
            records.revoking(bad, NOW, LIMITS)
    with pytest.raises(ConfigError, match="is revoked already"):
        gone.revoking(name, NOW, LIMITS)
    twins = Records(invitations=(Invitation(b"\xaa" * 31 + b"\1", NOW), Invitation(b"\xaa" * 32, NOW)))
    with pytest.raises(ConfigError, match="more than one invitation"):
        twins.revoking("aaaaaaaa", NOW, LIMITS)
    assert twins.revoking("aa" * 32, NOW, LIMITS).invitations[1].revoked == NOW


def secret(number: int) -> Secret:
    return Secret(number.to_bytes(SECRET_SIZE, "big"))


def test_what_can_let_nobody_in_any_more_is_forgotten() -> None:
    records = inviting(inviting(Records(), secret(1), expires=NOW + 5), secret(2), expires=NOW + 5)
    _, records = records.redeeming(secret(2), ALICE, NOW)
    records = inviting(records, secret(3)).revoking(secret(3).digest.hex(), NOW, LIMITS)
    assert len(records.invitations) == 3
    records = inviting(records, secret(4), now=NOW + 5)
    assert [one.digest for one in records.invitations] == [secret(2).digest, secret(4).digest]


def test_the_newest_of_a_label() -> None:
    records = inviting(inviting(Records(), secret(100), label="start"), secret(101), label="gift")
    _, records = records.redeeming(secret(100), ALICE, NOW)
    for number in range(5):
        records = inviting(records, secret(number), label="start", newest=2)
    assert [one.digest for one in records.invitations] == [secret(n).digest for n in (100, 101, 3, 4)]


@pytest.mark.parametrize("newest", [1, 2, 3, 16])
def test_as_many_of_a_label_as_are_asked_for_stay(newest: int) -> None:
    records = Records()
    for number in range(40):
        records = inviting(records, secret(number), label="start", newest=newest)
        made = range(max(0, number + 1 - newest), number + 1)
        assert [one.digest for one in records.invitations] == [secret(n).digest for n in made]


def test_the_records_are_bounded() -> None:
    small = AccessLimits(entries=4, invitations=2, uses=3)
    full = inviting(inviting(Records(), secret(1), uses=2, limits=small), secret(2), uses=2, limits=small)
    with pytest.raises(ConfigError, match="2 invitations are kept, and no more; revoke some"):
        inviting(full, secret(3), limits=AccessLimits(entries=100, invitations=2))
    with pytest.raises(ConfigError, match="are for 4 of 4 peers; revoke some"):
        inviting(full, secret(3), limits=AccessLimits(entries=4))
    _, expiring = inviting(Records(), secret(1), uses=3, expires=NOW + 1).redeeming(secret(1), ALICE, NOW)
    assert inviting(expiring, secret(2), now=NOW + 1, uses=3, limits=AccessLimits(entries=4))
    for uses in (0, 4):
        with pytest.raises(ConfigError, match=f"for 1 to 3 peers, not {uses}"):
            inviting(Records(), uses=uses, limits=small)
    records = Records()
    for number in range(4):
        records = records.allowing(parse_who(f"10.0.0.{number}"), "", small)
    assert records.allowing(parse_who("10.0.0.3"), "again", small).allowed[3].label == "again"
    with pytest.raises(ConfigError, match="the list has 4 entries"):
        records.allowing(ALICE, "", small)


# --- the text -----------------------------------------------------------------------------------------------

labels = st.text(max_size=MAX_LABEL).filter(str.isprintable).map(str.strip)
whom = st.sampled_from([*PEERS, ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")])
moments = st.integers(0, 253_402_300_799)
lists = st.lists(st.builds(Entry, whom, labels), max_size=4).map(tuple)
redeemed = st.lists(st.builds(Redeemed, st.sampled_from(PEERS), moments), max_size=3).map(tuple)
invitations = st.builds(
    Invitation,
    st.binary(min_size=32, max_size=32),
    moments,
    st.none() | moments,
    st.integers(3, LIMITS.uses),
    labels,
    st.none() | moments,
    redeemed,
)
records_ = st.builds(Records, lists, lists, st.lists(invitations, max_size=3).map(tuple))


@given(records_)
def test_what_is_written_is_read_again(records: Records) -> None:
    data = encode_records(records)
    assert decode_records(data, "file", LIMITS) == records
    assert json.loads(data)["version"] == 1
    entries = len(records.allowed) + len(records.denied) + len(records.invitations)
    assert data.count(b"\n") == 4 + 1 + 2 + entries + sum(
        bool(part) for part in (records.allowed, records.denied, records.invitations)
    )


def test_the_text_is_for_people_too() -> None:
    records = inviting(Records().allowing(ALICE, "älice", LIMITS), expires=NOW + 1)
    assert encode_records(records).decode() == (
        '{\n"format": "punchbridge access",\n"version": 1,\n'
        f'"allow": [\n {{"who": "{ALICE}", "label": "älice"}}\n],\n"deny": [],\n"invitations": [\n'
        f' {{"sha256": "{SECRET.digest.hex()}", "label": "", "uses": 1, "made": "2027-01-15T08:00:00Z", '
        '"expires": "2027-01-15T08:00:01Z", "revoked": null, "redeemed": []}\n]\n}\n'
    )
    assert decode_records(b" \n", "file", LIMITS) == Records()


def read_or_said(data: bytes) -> Records | str:
    try:
        return decode_records(data, "file", LIMITS)
    except AccessFileError as problem:
        return str(problem)


@given(records_, st.data())
def test_a_damaged_text_is_read_or_an_error_that_names_the_file(records: Records, data: st.DataObject) -> None:
    text = bytearray(encode_records(records))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    found = read_or_said(bytes(text))
    if isinstance(found, str):
        assert found.startswith("the access file file cannot be used: ")
        assert found.endswith("move it away and a fresh one will be made")
    else:
        assert decode_records(encode_records(found), "file", LIMITS) == found


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["who", "label", "sha256"]), inner),
)


@given(
    st.dictionaries(st.sampled_from(["allow", "deny", "invitations", "x"]), json_values)
    | st.fixed_dictionaries(
        {
            "invitations": st.lists(
                st.dictionaries(
                    st.sampled_from(["sha256", "label", "uses", "made", "expires", "revoked", "redeemed"]),
                    json_values | st.just("00" * 32),
                )
            )
        }
    )
)
def test_any_json_is_read_or_an_access_file_error(table: dict[str, object]) -> None:
    found = read_or_said(json.dumps({"format": "punchbridge access", "version": 1, **table}).encode())
    assert isinstance(found, Records) or "cannot be used" in found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"no json", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 10_000, "not JSON|format"),
        (b"\xff", "not JSON"),
        (b"[]", '"format" is not "punchbridge access"'),
        (b"{}", '"format" is not'),
        (b'{"format": "punchbridge access", "version": 2}', "of version 2, and this program reads 1; update"),
        (b'{"format": "punchbridge access", "version": 1, "alow": []}', "no key 'alow'"),
        (b'{"format": "punchbridge access", "version": 1, "deny": 7}', '"deny" is not a list'),
        (
            b'{"format": "punchbridge access", "version": 1, "deny": [{"who": "bob"}]}',
            '"deny", entry 1: .bob. is neither',
        ),
        (b'{"format": "punchbridge access", "version": 1, "deny": [7]}', r'"deny", entry 1: not an object'),
        (
            b'{"format": "punchbridge access", "version": 1, "invitations": [{"sha256": "00", "uses": 1, "made": '
            b'"2026-01-01T00:00:00Z"}]}',
            '"invitations", entry 1: "sha256": a SHA-256 has 32 bytes',
        ),
        (
            b'{"format": "punchbridge access", "version": 1, "invitations": [{"uses": 1, "made": "yesterday"}]}',
            '"made" is not a moment such as 2026-01-31T12:00:00Z',
        ),
        (
            b'{"format": "punchbridge access", "version": 1, "invitations": [{"uses": 1, "made": '
            b'"0001-01-01T00:00:00+23:00"}]}',
            '"made" is not a moment',
        ),
        (b'{"format": "punchbridge access", "version": 1, "invitations": [{"uses": true}]}', '"uses" is not a number'),
        (b'{"format": "punchbridge access", "version": 1, "invitations": [{"uses": 1}]}', '"made" is missing'),
    ],
)
def test_a_malformed_file_is_told_with_the_place(text: bytes, words: str) -> None:
    with pytest.raises(AccessFileError, match=rf"the access file /a/b cannot be used: .*({words})"):
        decode_records(text, "/a/b", LIMITS)


def test_the_text_is_bounded() -> None:
    with pytest.raises(AccessFileError, match="more than 20 bytes"):
        decode_records(encode_records(Records()), "file", AccessLimits(file=20))
    two = encode_records(Records((Entry(ALICE), Entry(BOB))))
    with pytest.raises(AccessFileError, match='"allow" is not a list of at most 1'):
        decode_records(two, "file", AccessLimits(entries=1))
