"""What the access file holds, as one value: who is allowed, who is denied, and the invitations; its edits and its text.

The text is JSON with one entry a line, so that people can read it and compare two of them. Pure: bytes and UTC seconds
come in. Edits return another value, and raise ConfigError for what cannot be done. Nothing here opens the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from punchbridge.access.invitations import Invitation, Outcome, Redeemed, outcome_of, redeem
from punchbridge.access.lists import Entry, Rules, Who, check_label, parse_who
from punchbridge.access.secret import Secret
from punchbridge.config.access import AccessLimits
from punchbridge.errors import AccessFileError, ConfigError
from punchbridge.identity import PeerId

__all__ = ["Records", "decode_records", "encode_records"]

_FORMAT: Final = "punchbridge access"
_VERSION: Final = 1
_KEYS: Final = ("format", "version", "allow", "deny", "invitations")
_YEAR_10000: Final = 253_402_300_800
"""UTC seconds; a moment is written with four digits of the year."""

_NAME_LEAST: Final = 4
"""Digits of an invitation's name that are enough when no other begins so."""

T = TypeVar("T")


@dataclass(frozen=True)
class Records:
    """The content of the access file. The default is that of a file that does not exist: nobody is let in."""

    allowed: tuple[Entry, ...] = ()
    denied: tuple[Entry, ...] = ()
    invitations: tuple[Invitation, ...] = ()

    @property
    def allow(self) -> Rules:
        """Who is admitted: the allowed, and those that an invitation let in, under its label."""
        invited = (Entry(peer, one.label) for one in self.invitations for peer in sorted(one.peers, key=str))
        return Rules((*self.allowed, *invited))

    @property
    def deny(self) -> Rules:
        """Who is not, whatever else is said."""
        return Rules(self.denied)

    def allowing(self, who: Who, label: str, limits: AccessLimits) -> Records:
        """With one more allowed, which is then denied no longer. One that is there gets the label."""
        return replace(self, allowed=_with(self.allowed, who, label, limits), denied=_without(self.denied, who))

    def denying(self, who: Who, label: str, limits: AccessLimits) -> Records:
        """With one more denied, which is then on the list of the allowed no longer."""
        return replace(self, allowed=_without(self.allowed, who), denied=_with(self.denied, who, label, limits))

    def forgetting(self, who: Who) -> Records:
        """With neither word about a peer or network. Raises ConfigError when there is none, with what helps."""
        after = replace(self, allowed=_without(self.allowed, who), denied=_without(self.denied, who))
        by = next((one.name for one in self.invitations if who in one.peers), None)
        if by is not None and any(one.who == who for one in self.denied):
            raise ConfigError(
                f"{who} is denied, and without that invitation {by} lets it in again; allow the peer, or revoke the "
                "invitation first"
            )
        if by is not None:
            raise ConfigError(
                f"{who} was let in by invitation {by}; deny the peer, or revoke the invitation and all it let in"
            )
        if after == self:
            raise ConfigError(f"{who} is neither allowed nor denied here; see punchbridge allow --list")
        return after

    def inviting(
        self,
        secret: Secret,
        *,
        now: float,
        expires: float | None,
        uses: int,
        label: str,
        limits: AccessLimits,
        newest: int | None = None,
    ) -> Records:
        """With one more invitation; those that admit nobody and never will are forgotten.

        newest: of the unredeemed ones with this label keep at most so many, the others go; so a program that makes one
        at each start does not fill the file. Raises ConfigError for more than the limits allow.
        """
        label = check_label(label)
        if not 1 <= uses <= limits.uses:
            raise ConfigError(f"an invitation is for 1 to {limits.uses} peers, not {uses}")
        kept = [one for one in self.invitations if not one.dead(now)]
        if newest is not None:
            same = [one for one in kept if one.label == label and not one.redeemed]
            kept = [one for one in kept if one not in same[: max(0, len(same) - newest + 1)]]
        if len(kept) >= limits.invitations:
            raise ConfigError(f"{len(kept)} invitations are kept, and no more; revoke some")
        places = sum(len(one.redeemed) + (one.left if one.state(now) is Outcome.GRANTED else 0) for one in kept)
        if places + uses > limits.entries:
            raise ConfigError(f"the invitations that are kept are for {places} of {limits.entries} peers; revoke some")
        until = None if expires is None else int(expires)
        made = Invitation(secret.digest, int(now), until, uses, label)
        return replace(self, invitations=(*kept, made))

    def outcome(self, secret: Secret, peer: PeerId, now: float) -> Outcome:
        """What `redeeming` answers, without counting it. To a denied peer every invitation is unknown."""
        return Outcome.UNKNOWN if peer in self.deny.peers else outcome_of(self.invitations, secret, peer, now)

    def redeeming(self, secret: Secret, peer: PeerId, now: float) -> tuple[Outcome, Records]:
        """The answer to a secret, and the records after it: others only when a peer was let in for the first time."""
        if self.outcome(secret, peer, now) is not Outcome.GRANTED:
            return self.outcome(secret, peer, now), self
        outcome, after = redeem(self.invitations, secret, peer, now)
        return outcome, self if after == self.invitations else replace(self, invitations=after)

    def revoking(self, name: str, now: float, limits: AccessLimits, *, keep: bool = False) -> Records:
        """With an invitation revoked: nobody else is let in, and those that were are admitted no longer.

        keep: they stay, as allowed peers. Raises ConfigError when the name is of none, or of several.
        """
        found = self.invitation(name)
        if found.revoked is not None:
            raise ConfigError(f"invitation {found.name} is revoked already")
        after = self
        elsewhere = {entry.who for entry in (*self.allowed, *self.denied)}
        for peer in sorted(found.peers.difference(elsewhere), key=str) if keep else ():
            after = after.allowing(peer, found.label, limits)
        revoked = replace(found, revoked=int(now))
        return replace(after, invitations=tuple(revoked if one is found else one for one in self.invitations))

    def invitation(self, name: str) -> Invitation:
        """The invitation whose name begins so. Raises ConfigError."""
        wanted = name.strip().lower()
        found = [one for one in self.invitations if one.digest.hex().startswith(wanted)]
        if len(wanted) < _NAME_LEAST or len(found) != 1:
            fault = "no invitation" if len(wanted) < _NAME_LEAST or not found else "more than one invitation"
            raise ConfigError(f"{fault} has the name {name[:80]!r}; see punchbridge invite --list")
        return found[0]


def _with(entries: tuple[Entry, ...], who: Who, label: str, limits: AccessLimits) -> tuple[Entry, ...]:
    entry = Entry(who, check_label(label))
    if any(one.who == who for one in entries):
        return tuple(entry if one.who == who else one for one in entries)
    if len(entries) >= limits.entries:
        raise ConfigError(f"the list has {limits.entries} entries, and holds no more; take some off, or write networks")
    return (*entries, entry)


def _without(entries: tuple[Entry, ...], who: Who) -> tuple[Entry, ...]:
    return tuple(one for one in entries if one.who != who)


# --- the text ---------------------------------------------------------------------------------------------


def encode_records(records: Records) -> bytes:
    """The text of the access file."""
    parts = [
        f'"format": "{_FORMAT}"',
        f'"version": {_VERSION}',
        _lines("allow", map(_entry, records.allowed)),
        _lines("deny", map(_entry, records.denied)),
        _lines("invitations", map(_invitation, records.invitations)),
    ]
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def _lines(key: str, rows: Iterable[Mapping[str, Any]]) -> str:
    texts = [json.dumps(row, ensure_ascii=False) for row in rows]
    return f'"{key}": [\n{",".join(f"{chr(10)} {text}" for text in texts)[1:]}\n]' if texts else f'"{key}": []'


def _entry(entry: Entry) -> dict[str, Any]:
    return {"who": str(entry.who), "label": entry.label}


def _invitation(one: Invitation) -> dict[str, Any]:
    return {
        "sha256": one.digest.hex(),
        "label": one.label,
        "uses": one.uses,
        "made": _moment(one.made),
        "expires": _moment(one.expires),
        "revoked": _moment(one.revoked),
        "redeemed": [{"peer": str(use.peer), "at": _moment(use.at)} for use in one.redeemed],
    }


def _moment(at: int | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def decode_records(data: bytes, name: str, limits: AccessLimits) -> Records:
    """Reads the text of an access file; nothing at all is an empty one. `name` is the file's.

    Raises AccessFileError, for any bytes, that names the file, the place in it and what to do.
    """
    if not data.strip():
        return Records()
    try:
        if len(data) > limits.file:
            raise ConfigError(f"more than {limits.file} bytes")
        try:
            table = json.loads(data.decode())
        except (ValueError, RecursionError) as problem:
            raise ConfigError(f"not JSON: {problem}") from None
        if not isinstance(table, dict) or table.get("format") != _FORMAT:
            raise ConfigError(f'"format" is not "{_FORMAT}"')
        if table.get("version") != _VERSION:
            raise AccessFileError(
                f"the access file {name} cannot be used: it is of version {table.get('version')!r:.40}, and this "
                f"program reads {_VERSION}; update punchbridge, or name another file"
            )
        _only(table, _KEYS)
        return Records(
            _rows(table, "allow", _read_entry, limits.entries),
            _rows(table, "deny", _read_entry, limits.entries),
            _rows(table, "invitations", _read_invitation(limits), limits.invitations),
        )
    except AccessFileError:
        raise
    except ConfigError as problem:
        advice = "correct it, or move it away and a fresh one will be made"
        raise AccessFileError(f"the access file {name} cannot be used: {problem}; {advice}") from None


def _only(row: object, keys: Iterable[str]) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ConfigError("not an object {…}")
    for key in row:
        if key not in keys:
            raise ConfigError(f"there is no key {key[:40]!r} here")
    return row


def _rows(table: Mapping[str, Any], key: str, read: Callable[[object], T], most: int) -> tuple[T, ...]:
    rows = table.get(key, [])
    if not isinstance(rows, list) or len(rows) > most:
        raise ConfigError(f'"{key}" is not a list of at most {most}')
    found = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(read(row))
        except ConfigError as problem:
            raise ConfigError(f'"{key}", entry {number}: {problem}') from None
    return tuple(found)


def _text(row: Mapping[str, Any], key: str) -> str:
    text = row.get(key, "")
    if not isinstance(text, str):
        raise ConfigError(f'"{key}" is not a text')
    return text


def _read_entry(row: object) -> Entry:
    table = _only(row, ("who", "label"))
    return Entry(parse_who(_text(table, "who")), check_label(_text(table, "label")))


def _read_invitation(limits: AccessLimits) -> Callable[[object], Invitation]:
    def read(row: object) -> Invitation:
        table = _only(row, ("sha256", "label", "uses", "made", "expires", "revoked", "redeemed"))
        uses = table.get("uses")
        if not isinstance(uses, int) or isinstance(uses, bool) or not 1 <= uses <= limits.uses:
            raise ConfigError(f'"uses" is not a number from 1 to {limits.uses}')
        made = _read_moment(table, "made")
        if made is None:
            raise ConfigError('"made" is missing')
        try:
            digest = bytes.fromhex(_text(table, "sha256"))
            return Invitation(
                digest,
                made,
                _read_moment(table, "expires"),
                uses,
                check_label(_text(table, "label")),
                _read_moment(table, "revoked"),
                _rows(table, "redeemed", _read_redeemed, uses),
            )
        except ValueError as problem:
            raise ConfigError(f'"sha256": {problem}') from None

    return read


def _read_redeemed(row: object) -> Redeemed:
    table = _only(row, ("peer", "at"))
    peer, at = parse_who(_text(table, "peer")), _read_moment(table, "at")
    if not isinstance(peer, PeerId) or at is None:
        raise ConfigError('not a "peer" and the moment "at" which it was let in')
    return Redeemed(peer, at)


def _read_moment(row: Mapping[str, Any], key: str) -> int | None:
    """UTC seconds of a moment such as 2026-01-31T12:00:00Z; without a zone it is taken for UTC."""
    if row.get(key) is None:
        return None
    try:
        moment = datetime.fromisoformat(_text(row, key))
        at = int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        at = -1
    if not 0 <= at < _YEAR_10000:
        raise ConfigError(f'"{key}" is not a moment such as 2026-01-31T12:00:00Z')
    return at
