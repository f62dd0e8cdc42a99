"""The peer store: what it keeps, its bounds, its modes; a kill at any moment, a full disk, a foreign file."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchbridge.events import ErrorEvent, Event
from punchbridge_node.addressbook import NetworkAddress
from punchbridge_node.config import NodeLimits, StoreLimits
from punchbridge_node.errors import PeerStoreCorrupt, PeerStoreError, PeerStoreFull, PeerStoreUnavailable
from punchbridge_node.peer import PeerRecord
from punchbridge_node.peerstore import SCHEMA, PeerStore, StoredPeer
from punchbridge_node.storekeeper import StoreKeeper, tcp_multiaddr
from punchbridge_node.transport import PeerInfo

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PeerStore]:
    it = PeerStore(tmp_path / "peers.db")
    yield it
    it.close()


def peer(key: str = "P", **changes: object) -> StoredPeer:
    base: dict[str, object] = {
        "key": key,
        "peer_id": key,
        "user_agent": "/a/",
        "protocol_version": 10,
        "last_seen": 0.0,
        "multiaddrs": (f"/ip4/11.0.0.1/tcp/1/p2p/{key}",),
        "observed": ("/ip4/12.0.0.1/tcp/2",),
    }
    return StoredPeer(**{**base, **changes})  # type: ignore[arg-type]


def test_what_was_stored_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "peers.db"
    first = PeerStore(path)
    first.record_peer(peer(), now=100)
    first.record_addresses([NetworkAddress("11.0.0.9", 16611)], now=100)
    first.close()
    again = PeerStore(path)
    assert again.peers(now=101) == [peer(last_seen=100.0)]
    assert again.addresses(now=101) == [NetworkAddress("11.0.0.9", 16611)]
    again.close()


def test_a_peer_seen_again_is_refreshed_and_keeps_its_former_addresses(store: PeerStore) -> None:
    store.record_peer(peer(), now=100)
    store.record_peer(peer(multiaddrs=("/ip4/13.0.0.1/tcp/1",), observed=(), user_agent="/b/"), now=200)
    (found,) = store.peers(now=200)
    assert found.multiaddrs == ("/ip4/13.0.0.1/tcp/1", "/ip4/11.0.0.1/tcp/1/p2p/P")
    assert found.observed == ("/ip4/12.0.0.1/tcp/2",)
    assert (found.user_agent, found.last_seen) == ("/b/", 200.0)


def test_what_expired_is_not_given_and_goes_with_the_next_write(tmp_path: Path) -> None:
    store = PeerStore(tmp_path / "peers.db", StoreLimits(expiry=10.0))
    store.record_peer(peer("old"), now=100)
    store.record_addresses([NetworkAddress("11.0.0.9", 1)], now=100)
    assert store.peers(now=111) == []
    assert store.addresses(now=111) == []
    store.record_peer(peer("young"), now=111)
    store.record_addresses([], now=111)
    rows = [store._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES]
    assert rows == [1, 2, 0]
    store.close()


TABLES = ("peer", "peer_address", "network_address")


def test_every_table_is_bounded(tmp_path: Path) -> None:
    store = PeerStore(tmp_path / "few.db", StoreLimits(peers=3, addresses_per_peer=2, network_addresses=4))
    for now in range(6):
        store.record_peer(peer(str(now), multiaddrs=tuple(f"/ip4/11.0.0.{n}/tcp/1" for n in range(9))), now=now)
        store.record_addresses([NetworkAddress(f"11.0.{now}.{n}", 1) for n in range(3)], now=now)
    assert [item.key for item in store.peers(now=6)] == ["5", "4", "3"]
    assert all(len(item.multiaddrs) + len(item.observed) == 2 for item in store.peers(now=6))
    assert len(store.addresses(now=6)) == 4
    store.close()


def test_a_text_of_the_network_that_is_too_long_is_refused(store: PeerStore) -> None:
    with pytest.raises(ValueError, match="512 bytes"):
        store.record_peer(peer(user_agent="x" * 513), now=1)
    with pytest.raises(ValueError, match="not printable"):
        store.record_peer(peer(user_agent="a\x1b[2J"), now=1)
    assert store.peers(now=1) == []


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = PeerStore(tmp_path / "peers.db")
        store.record_peer(peer(), now=1)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert set(modes) == {"peers.db", "peers.db-wal", "peers.db-shm"}
    assert set(modes.values()) == {0o600}
    (tmp_path / "peers.db").chmod(0o644)
    PeerStore(tmp_path / "peers.db").close()
    assert stat.S_IMODE((tmp_path / "peers.db").stat().st_mode) == 0o600


# --- things that are no peer store ---


def test_garbage_is_corrupt_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "peers.db"
    path.write_bytes(os.urandom(5000))
    with pytest.raises(PeerStoreCorrupt, match="move it away"):
        PeerStore(path)


def test_another_database_or_another_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    later = tmp_path / "later.db"
    PeerStore(later).close()
    with sqlite3.connect(later) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    for path in (foreign, later):
        with pytest.raises(PeerStoreCorrupt, match="move it away"):
            PeerStore(path)
    with sqlite3.connect(foreign) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]
    db.close()


@pytest.mark.parametrize(
    "addition",
    [
        "CREATE TRIGGER loud AFTER INSERT ON peer BEGIN DELETE FROM peer_address; END",
        "CREATE VIEW other AS SELECT key FROM peer",
        "CREATE INDEX slow ON peer (user_agent)",
        "ALTER TABLE peer ADD COLUMN more TEXT",
        "DROP TABLE network_address",
    ],
)
def test_a_store_with_anything_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, addition: str) -> None:
    path = tmp_path / "peers.db"
    PeerStore(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute(addition)
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(PeerStoreCorrupt, match="move it away"):
        PeerStore(path)
    assert path.read_bytes() == before


def test_rows_that_no_store_of_ours_writes_are_bounded_and_passed_over(tmp_path: Path) -> None:
    store = PeerStore(tmp_path / "peers.db", StoreLimits(network_addresses=50, peers=20, addresses_per_peer=4))
    store.record_peer(peer("good"), now=1000)
    store.record_addresses([NetworkAddress("11.0.0.9", 16611)], now=1000)
    odd: list[tuple[object, object]] = [
        ("not-an-ip\x1b[2J", 5),
        ("11.0.0.1", 99_999_999),
        ("11.0.0.2", -1),
        ("11.0.0.3", "x"),
        ("11.0.0.4", 1.5),
        (b"\x0b\x00\x00\x05", 5),
    ]
    db = store._db
    db.executemany("INSERT INTO network_address VALUES (?,?,1001,9e9)", odd)
    db.executemany(
        "INSERT INTO network_address VALUES (?,7,999,9e9)", [(f"12.0.{n >> 8}.{n & 255}",) for n in range(500)]
    )
    peers: list[tuple[object, ...]] = [
        ("esc\x1b[2J", None, "/a/", 10),
        ("blob", b"\x00", "/a/", 10),
        ("big", None, "x" * 513, 10),
        ("version", None, "/a/", "ten"),
        ("version2", None, "/a/", -1),
    ]
    db.executemany("INSERT INTO peer VALUES (?,?,?,?,1001,9e9)", peers)
    db.executemany("INSERT INTO peer VALUES (?,NULL,'/a/',10,999,9e9)", [(f"more-{n}",) for n in range(500)])
    db.executemany("INSERT INTO peer_address VALUES ('good','observed',?,1001,9e9)", [("/x\n",), ("/y\x00",)])
    found = store.addresses(now=1000)
    assert len(found) == 50 - len(odd)
    assert found[-1] == NetworkAddress("11.0.0.9", 16611)
    assert store.passed_over == len(odd)
    known = store.peers(now=1000)
    assert len(known) == 20 - len(peers)
    assert known[0] == peer("good", last_seen=1000.0)
    assert store.passed_over == len(odd) + len(peers) + 2

    events: list[Event] = []
    asyncio.run(StoreKeeper(store, clock=lambda: 1000.0).load(events.append))
    assert [event.as_dict()["code"] for event in events] == ["PEER_STORE_ENTRY"]
    store.close()


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_no_regular_file_is_refused_by_that_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "peers.db"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    with pytest.raises(PeerStoreUnavailable, match="no regular file" if kind == "pipe" else str(path)):
        PeerStore(path)


def test_a_folder_that_others_can_write_in_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(PeerStoreUnavailable, match="chmod go-w"):
        PeerStore(tmp_path / "peers.db")
    tmp_path.chmod(0o1777)
    PeerStore(tmp_path / "peers.db").close()


@pytest.mark.parametrize("make", ["missing/peers.db", "a-directory", "a-link"])
def test_what_cannot_be_opened_is_unavailable(tmp_path: Path, make: str) -> None:
    (tmp_path / "a-directory").mkdir()
    (tmp_path / "a-link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PeerStoreUnavailable, match=str(tmp_path)):
        PeerStore(tmp_path / make)
    assert not (tmp_path / "elsewhere").exists()


def test_a_store_locked_by_another_process_is_unavailable(tmp_path: Path) -> None:
    store = PeerStore(tmp_path / "peers.db", StoreLimits(busy_timeout=0.05))
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(PeerStoreUnavailable, match="locked"):
        store.record_peer(peer(), now=1)
    other.execute("ROLLBACK")
    other.close()
    store.record_peer(peer(), now=1)
    store.close()


# --- a kill at any moment ---

WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from punchbridge_node.peerstore import PeerStore, StoredPeer
    store = PeerStore(Path(sys.argv[1]))
    number = int(sys.argv[2])
    while True:
        addresses = tuple(f"/ip4/11.0.{n}.{number % 250}/tcp/{number % 60000 + 1}" for n in range(8))
        store.record_peer(StoredPeer(f"peer-{number}", None, str(number), 10, 0.0, addresses), now=1000.0 + number)
        print(number, flush=True)
        number += 1
    """
)


def test_a_kill_at_any_moment_loses_no_finished_write_and_leaves_no_half_one(tmp_path: Path) -> None:
    path = tmp_path / "peers.db"
    chance = random.Random(7)
    number = 0
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, path, str(number)], stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        assert writer.stdout is not None
        with writer.stdout:
            wanted = number + chance.randrange(1, 60)
            for line in writer.stdout:
                number = int(line)
                if number >= wanted:
                    break
            # Somewhere inside the writes that follow, which nobody waits for.
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout:
                number = int(line)
        assert writer.wait() == -signal.SIGKILL
        store = PeerStore(path)
        found = {item.key: item for item in store.peers(now=0)}
        assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store.close()
        assert f"peer-{number}" in found
        for key, item in found.items():
            assert len(item.multiaddrs) == 8, f"{key} was written by half"
            assert item.user_agent == key.removeprefix("peer-")
        number += 1
    assert number > 8


# --- a disk that is full ---

GROWER = textwrap.dedent(
    """
    import resource, sys
    from pathlib import Path
    from punchbridge_node.errors import PeerStoreFull
    from punchbridge_node.peerstore import PeerStore, StoredPeer
    store = PeerStore(Path(sys.argv[1]))
    store.record_peer(StoredPeer("first", None, "", 10, 0.0), now=1.0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    failed = 0
    for number in range(3000):
        try:
            store.record_peer(StoredPeer(f"peer-{number}", None, "x" * 400, 10, 0.0), now=2.0)
        except PeerStoreFull as error:
            failed += 1
            print(error)
            if failed == 3:
                break
    assert failed == 3
    before = {peer.key for peer in store.peers(now=2.0)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.record_peer(StoredPeer("after", None, "", 10, 0.0), now=3.0)
    assert {peer.key for peer in store.peers(now=3.0)} == before | {"after"}
    store.close()
    """
)


def test_a_full_disk_is_a_typed_error_and_the_store_goes_on_when_there_is_room(tmp_path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", GROWER, tmp_path / "peers.db"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "free space" in done.stdout
    store = PeerStore(tmp_path / "peers.db")
    assert {"first", "after"} <= {item.key for item in store.peers(now=0)}
    store.close()


class Failing(PeerStore):
    """A real store whose writes meet a full disk for a while."""

    full = True

    def record_peer(self, peer: StoredPeer, now: float) -> None:
        if self.full:
            raise PeerStoreFull("no room")
        super().record_peer(peer, now)


def record(key: str, **info: object) -> PeerRecord:
    return PeerRecord(key, PeerInfo(**info), bytes(16), NodeLimits())  # type: ignore[arg-type]


def test_the_keeper_tells_a_failure_once_and_writes_again_when_it_can(tmp_path: Path) -> None:
    events: list[Event] = []

    async def main() -> None:
        store = Failing(tmp_path / "peers.db")
        keeper = StoreKeeper(store, clock=lambda: 5.0)
        assert await keeper.load(events.append) == []
        for index in range(3):
            keeper.seen(record(f"P{index}", peer_id=f"P{index}"))
        await keeper.flush()
        assert [event.as_dict()["code"] for event in events] == ["PEER_STORE_FULL"]
        store.full = False
        keeper.seen(record("P9", peer_id="P9", observed="/ip4/12.0.0.1/tcp/2"))
        await keeper.flush()
        assert [item.key for item in store.peers(now=5)] == ["P9"]
        assert store.peers(now=5)[0].observed == ("/ip4/12.0.0.1/tcp/2",)
        store.full = True
        keeper.seen(record("P1", peer_id="P1"))
        await keeper.flush()
        assert len(events) == 2
        store.close()

    asyncio.run(main())
    assert all(isinstance(event, ErrorEvent) for event in events)


def test_the_keeper_drops_the_oldest_when_the_disk_is_slower_than_the_network(tmp_path: Path) -> None:
    async def main() -> None:
        store = PeerStore(tmp_path / "peers.db", StoreLimits(queue=20))
        keeper = StoreKeeper(store, clock=lambda: 5.0)
        for index in range(25):
            keeper.learned([NetworkAddress("11.0.0.1", index + 1)])
        await keeper.flush()
        ports = sorted(item.port for item in store.addresses(now=5))
        assert ports == list(range(6, 26))
        store.close()

    asyncio.run(main())


def test_a_failure_of_every_kind_has_its_own_type() -> None:
    for kind in (PeerStoreFull, PeerStoreCorrupt, PeerStoreUnavailable):
        assert issubclass(kind, PeerStoreError)
    assert tcp_multiaddr("11.0.0.1", 5) == "/ip4/11.0.0.1/tcp/5"
    assert tcp_multiaddr("2001:db8::1", 5) == "/ip6/2001:db8::1/tcp/5"
    assert tcp_multiaddr("host.example", 5) is None


def test_the_documented_schema_is_the_real_one() -> None:
    page = (ROOT / "docs" / "policy.md").read_text()
    assert SCHEMA.strip() in page
