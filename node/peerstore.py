"""The peer store on disk: peers by key with their addresses, and the network's addresses, each with last seen and
expiry.

SQLite in WAL mode: a write is whole or absent whatever moment the process is killed at, readers never wait, and one
changed peer costs one page, not the rewriting of the file that an atomically replaced JSON file would. Blocking; the
event loop calls it through `punchbridge_node.storekeeper`. It knows no network and no clock: times come in as UTC
seconds. A file that others made is not believed: its schema must be ours to the letter, without triggers and views, and
a row that this module would not have written is passed over.
"""

from __future__ import annotations

import math
import os
import sqlite3
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from punchbridge.files import folder_fault

from .addressbook import NetworkAddress
from .config import StoreLimits
from .errors import PeerStoreCorrupt, PeerStoreError, PeerStoreFull, PeerStoreUnavailable

SCHEMA_VERSION = 1

# Documented in docs/policy.md; a test compares the two.
SCHEMA = """
CREATE TABLE peer (
    key TEXT PRIMARY KEY,
    peer_id TEXT,
    user_agent TEXT NOT NULL,
    protocol_version INTEGER NOT NULL,
    last_seen REAL NOT NULL,
    expires REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE peer_address (
    key TEXT NOT NULL REFERENCES peer(key) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('multiaddr', 'observed')),
    address TEXT NOT NULL,
    last_seen REAL NOT NULL,
    expires REAL NOT NULL,
    PRIMARY KEY (key, kind, address)
) WITHOUT ROWID;
CREATE TABLE network_address (
    ip TEXT NOT NULL,
    port INTEGER NOT NULL,
    last_seen REAL NOT NULL,
    expires REAL NOT NULL,
    PRIMARY KEY (ip, port)
) WITHOUT ROWID;
"""

# SQLite's primary result codes, as in its C interface.
FULL, CORRUPT, NOT_A_DATABASE, IO_ERROR = 13, 11, 26, 10
UNAVAILABLE = {3: "permission denied", 5: "locked", 6: "locked", 8: "read-only", 14: "cannot be opened"}
_CHOOSE = "name another file, or make this one accessible"


@dataclass(frozen=True)
class StoredPeer:
    """One peer as stored. Addresses the newest first; `observed` are ours as that peer saw them."""

    key: str
    peer_id: str | None
    user_agent: str
    protocol_version: int
    last_seen: float
    multiaddrs: tuple[str, ...] = ()
    observed: tuple[str, ...] = ()


class PeerStore:
    """An open peer store. Methods may be called from any thread, one at a time; each is one transaction.

    Every method raises PeerStoreFull, PeerStoreCorrupt or PeerStoreUnavailable; what was stored before stays.
    """

    def __init__(self, path: Path, limits: StoreLimits | None = None) -> None:
        """Open or make the file, mode 0600, in a directory that exists."""
        self.path = path
        self.limits = limits = limits or StoreLimits()
        self.passed_over = 0
        """Rows that were found since the opening and that no store of ours writes."""
        self._lock = threading.Lock()
        _make_private(path)
        with typed_errors(path):
            self._db = sqlite3.connect(path, timeout=limits.busy_timeout, isolation_level=None, check_same_thread=False)
        try:
            with typed_errors(path):
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        # What the schema says is not run: nothing of a file may act before it is known to be ours.
        self._db.execute("PRAGMA trusted_schema = OFF")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        found = _objects(self._db)
        if version != SCHEMA_VERSION and (version != 0 or found):
            raise PeerStoreCorrupt(
                f"{self.path} is no peer store of this version (schema {version}, want {SCHEMA_VERSION}); move it away"
            )
        if version == SCHEMA_VERSION and (odd := found ^ _ours()):
            names = ", ".join(sorted({f"{kind} {name!a}" for kind, name, _ in odd})[:4])
            raise PeerStoreCorrupt(f"{self.path} is no peer store of ours ({names}); move it away")
        self._db.execute("PRAGMA journal_mode = WAL")
        # NORMAL: a power cut may cost the last writes, never the file. A kill of the process costs nothing.
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        if version == 0:
            self._db.executescript(f"BEGIN IMMEDIATE;{SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")

    def close(self) -> None:
        """Close the file; SQLite folds the WAL back into it. Never raises for a full disk."""
        with self._lock:
            try:
                self._db.close()
            except sqlite3.Error:
                return  # the WAL stays beside the file and is read at the next opening

    def record_peer(self, peer: StoredPeer, now: float) -> None:
        """Enter or refresh a peer and its addresses; drop what is expired or beyond the bounds.

        Raises ValueError for a text above `text_bytes`, or with characters that cannot be printed.
        """
        limits = self.limits
        for text in (peer.key, peer.peer_id or "", peer.user_agent, *peer.multiaddrs, *peer.observed):
            if not self._is_text(text):
                raise ValueError(f"text above {limits.text_bytes} bytes, or not printable, for the peer store")
        expires = now + limits.expiry
        with self._transaction() as db:
            db.execute(
                "INSERT INTO peer VALUES (?,?,?,?,?,?) ON CONFLICT (key) DO UPDATE SET peer_id=excluded.peer_id,"
                " user_agent=excluded.user_agent, protocol_version=excluded.protocol_version,"
                " last_seen=excluded.last_seen, expires=excluded.expires",
                (peer.key, peer.peer_id, peer.user_agent, peer.protocol_version, now, expires),
            )
            rows = [(peer.key, "multiaddr", item, now, expires) for item in peer.multiaddrs]
            rows += [(peer.key, "observed", item, now, expires) for item in peer.observed]
            db.executemany(
                "INSERT INTO peer_address VALUES (?,?,?,?,?) ON CONFLICT (key, kind, address)"
                " DO UPDATE SET last_seen=excluded.last_seen, expires=excluded.expires",
                rows,
            )
            db.execute(
                "DELETE FROM peer_address WHERE expires < ? OR (key = ? AND (kind, address) NOT IN (SELECT kind,"
                " address FROM peer_address WHERE key = ? ORDER BY last_seen DESC, address LIMIT ?))",
                (now, peer.key, peer.key, limits.addresses_per_peer),
            )
            db.execute(
                "DELETE FROM peer WHERE expires < ? OR key NOT IN (SELECT key FROM peer ORDER BY last_seen DESC, key"
                " LIMIT ?)",
                (now, limits.peers),
            )

    def record_addresses(self, addresses: Iterable[NetworkAddress], now: float) -> None:
        """Enter or refresh addresses of the network; drop what is expired or beyond the bound."""
        expires = now + self.limits.expiry
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO network_address VALUES (?,?,?,?) ON CONFLICT (ip, port)"
                " DO UPDATE SET last_seen=excluded.last_seen, expires=excluded.expires",
                [(item.ip, item.port, now, expires) for item in addresses],
            )
            db.execute(
                "DELETE FROM network_address WHERE expires < ? OR (ip, port) NOT IN (SELECT ip, port FROM"
                " network_address ORDER BY last_seen DESC, ip, port LIMIT ?)",
                (now, self.limits.network_addresses),
            )

    def peers(self, now: float) -> list[StoredPeer]:
        """Peers not expired, the latest seen first, at most as many as are kept."""
        limits = self.limits
        with self._lock, typed_errors(self.path):
            rows = self._db.execute(
                "SELECT key, peer_id, user_agent, protocol_version, last_seen FROM peer WHERE expires >= ?"
                " ORDER BY last_seen DESC, key LIMIT ?",
                (now, limits.peers),
            ).fetchall()
            found = []
            for row in rows:
                if not self._is_peer(*row):
                    self.passed_over += 1
                    continue
                addresses = self._db.execute(
                    "SELECT kind, address FROM peer_address WHERE key = ? AND expires >= ? ORDER BY last_seen DESC,"
                    " address LIMIT ?",
                    (row[0], now, limits.addresses_per_peer),
                ).fetchall()
                texts = [(kind, item) for kind, item in addresses if self._is_text(item)]
                self.passed_over += len(addresses) - len(texts)
                by_kind = [tuple(item for kind, item in texts if kind == want) for want in ("multiaddr", "observed")]
                found.append(StoredPeer(*row, *by_kind))
            return found

    def addresses(self, now: float) -> list[NetworkAddress]:
        """Addresses of the network not expired, the latest seen last, at most as many as are kept."""
        with self._lock, typed_errors(self.path):
            rows = self._db.execute(
                "SELECT ip, port FROM network_address WHERE expires >= ? ORDER BY last_seen DESC, ip, port LIMIT ?",
                (now, self.limits.network_addresses),
            ).fetchall()
        found = []
        for ip, port in reversed(rows):
            try:
                if not isinstance(ip, str) or not isinstance(port, int):
                    raise ValueError("an address is a text and a whole number")
                found.append(NetworkAddress.parse(ip, port))
            except ValueError:
                self.passed_over += 1
        return found

    def _is_peer(self, key: Any, peer_id: Any, user_agent: Any, version: Any, last_seen: Any) -> bool:
        texts = (key, user_agent) if peer_id is None else (key, peer_id, user_agent)
        number = isinstance(version, int) and 0 <= version <= 0xFFFF_FFFF
        return number and isinstance(last_seen, float) and math.isfinite(last_seen) and all(map(self._is_text, texts))

    def _is_text(self, value: Any) -> bool:
        """Whether `record_peer` would have stored this; SQLite keeps any type in any column."""
        return isinstance(value, str) and value.isprintable() and len(value.encode()) <= self.limits.text_bytes

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, typed_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


def _make_private(path: Path) -> None:
    """Make the file 0600 before SQLite does it 0644; its WAL takes the same mode. A wider mode is narrowed. A pipe or a
    device is refused and never waited for, and so is a folder in which others could put a file of theirs."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fault = folder_fault(path.parent)
        if fault is None:
            descriptor = os.open(path, flags, 0o600)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    fault = f"it is no regular file; {_CHOOSE}"
                elif stat.S_IMODE(status.st_mode) & 0o077:
                    os.fchmod(descriptor, 0o600)
            finally:
                os.close(descriptor)
    except OSError as error:
        fault = f"{error.strerror}; {_CHOOSE}"
    if fault is not None:
        raise PeerStoreUnavailable(f"peer store {path}: {fault}")


def _objects(db: sqlite3.Connection) -> frozenset[tuple[str, str, str | None]]:
    """Type, name and definition of all that a database has."""
    return frozenset(db.execute("SELECT type, name, sql FROM sqlite_schema").fetchall())


@cache
def _ours() -> frozenset[tuple[str, str, str | None]]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA)
        return _objects(db)


@contextmanager
def typed_errors(path: Path) -> Iterator[None]:
    """SQLite's errors as ours. An I/O error counts as full: SQLite reports a file that may not grow that way."""
    try:
        yield
    except sqlite3.Error as error:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        raise _typed(path, code, str(error)) from error


def _typed(path: Path, code: int, text: str) -> PeerStoreError:
    if code in (FULL, IO_ERROR):
        return PeerStoreFull(f"peer store {path}: no room or the disk fails ({text}); free space")
    if code in (CORRUPT, NOT_A_DATABASE):
        return PeerStoreCorrupt(f"peer store {path} is damaged or something else ({text}); move it away")
    return PeerStoreUnavailable(f"peer store {path}: {UNAVAILABLE.get(code, text)}; {_CHOOSE}")
