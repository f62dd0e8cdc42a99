"""Identity keys: the file's mode and content, and peer ids in both text forms."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.errors import AddressError, IdentityError
from punchbridge.identity import (
    Identity,
    PeerId,
    load,
    load_named,
    load_or_create,
    parse_peer_id,
    peer_id_forms,
    peer_text,
)
from punchbridge.keys import InvalidSignature


def test_first_use_makes_a_private_key_file_and_the_next_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "key"
    made = load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert load_or_create(path).peer_id == made.peer_id
    assert [p.name for p in path.parent.iterdir()] == ["key"]


def test_key_file_holds_seed_and_public_half(tmp_path: Path) -> None:
    path = tmp_path / "key"
    identity = load_or_create(path)
    content = path.read_bytes()
    assert content[:4] == b"\x08\x01\x12\x40"  # key type Ed25519, 64 bytes
    assert len(content) == 4 + 64
    assert content[36:] == identity.public_key.data


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_key_readable_by_others_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    load_or_create(path)
    path.chmod(mode)
    with pytest.raises(IdentityError, match="chmod 600"):
        load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_key_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    load_or_create(path)
    os.chown(path, 65534, 65534)
    with pytest.raises(IdentityError, match="belongs to uid 65534"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08\x00", b"\x08\x01\x12\x05short", b"\xff" * 20_000])
def test_malformed_key_is_refused_and_left_in_place(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(IdentityError, match="no libp2p private key"):
        load_or_create(path)
    assert path.read_bytes() == content


@given(st.binary(max_size=120) | st.binary(min_size=60, max_size=70).map(lambda raw: b"\x08\x01\x12\x40" + raw))
def test_any_content_is_a_key_or_an_identity_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "key")
        path.write_bytes(content)
        path.chmod(0o600)
        with contextlib.suppress(IdentityError):
            assert load(path).sign(b"x")
        assert path.read_bytes() == content


def test_a_named_key_is_made_only_when_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "typo.key"
    with pytest.raises(IdentityError, match=r"there is no key file .*typo\.key; .*--new-key .*new_key=True"):
        load_named(path, new=False)
    assert not path.exists()
    made = load_named(path, new=True)
    assert load_named(path, new=False).peer_id == load_named(path, new=True).peer_id == made.peer_id


def odd(path: Path, kind: str) -> Path:
    """Something that is no key file."""
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(str(path))
    elif kind == "link to nothing":
        path.symlink_to(path.parent / "nowhere")
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind == "below a file":
        path.write_text("")
        return path / "key"
    elif kind == "too long":
        return path.parent / ("k" * 300)
    elif kind == "zero byte":
        return Path("ke\0y")
    else:
        return Path(kind)
    return path


KINDS = [
    "folder", "pipe", "socket", "link to nothing", "link to itself", "below a file", "too long", "zero byte",
    "/dev/zero", "/dev/null", "/proc/self/mem", "/proc/self/environ", "/proc/self/no/such",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("new", [False, True])
def test_whatever_stands_in_the_place_of_a_key_is_an_identity_error(tmp_path: Path, kind: str, new: bool) -> None:
    path = odd(tmp_path / "key", kind)
    with pytest.raises(IdentityError, match="key"):
        load_named(path, new=new)
    with pytest.raises(IdentityError):
        load_or_create(path)


def test_a_link_to_nothing_is_named_so_and_not_written_through(tmp_path: Path) -> None:
    path = odd(tmp_path / "key", "link to nothing")
    with pytest.raises(IdentityError, match=r"symbolic link to .*nowhere, which is not there"):
        load_or_create(path)
    assert not (tmp_path / "nowhere").exists()


def test_a_link_to_a_key_is_followed(tmp_path: Path) -> None:
    made = load_or_create(tmp_path / "real" / "key")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "key")
    assert load(tmp_path / "link").peer_id == made.peer_id


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o722])
def test_a_folder_where_others_can_write_is_no_place_for_a_key(tmp_path: Path, mode: int) -> None:
    """They could take the key away, and put another one there or have a fresh one made."""
    path = tmp_path / "shared" / "key"
    made = load_or_create(path)
    path.parent.chmod(mode)
    with pytest.raises(IdentityError, match=rf"folder .*shared \(mode {mode:04o}\); run: chmod go-w"):
        load(path)
    with pytest.raises(IdentityError, match="chmod go-w"):
        load_or_create(path.parent / "other")
    assert [one.name for one in path.parent.iterdir()] == ["key"]
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(IdentityError, match="chmod go-w"):
        load(tmp_path / "link")
    path.parent.chmod(mode | 0o1000)
    assert load(path).peer_id == made.peer_id


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_no_place_for_a_key(tmp_path: Path) -> None:
    path = tmp_path / "theirs" / "key"
    load_or_create(path)
    os.chown(path.parent, 65534, 65534)
    with pytest.raises(IdentityError, match="belongs to uid 65534"):
        load(path)


def test_key_with_the_public_half_twice_is_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    identity = load_or_create(path)
    path.write_bytes(b"\x08\x01\x12\x60" + path.read_bytes()[4:] + identity.public_key.data)
    assert load(path).peer_id == identity.peer_id


def test_both_text_forms_name_the_same_peer() -> None:
    peer = Identity.generate().peer_id
    base58_form, cid_form = peer_id_forms(peer)
    assert base58_form.startswith("12D3KooW")
    assert cid_form.startswith("bafz")
    assert parse_peer_id(base58_form) == parse_peer_id(cid_form) == peer


@given(st.binary(min_size=32, max_size=32))
def test_sha256_peer_ids_are_read(digest: bytes) -> None:
    peer = PeerId(b"\x12\x20" + digest)
    assert all(parse_peer_id(form) == peer for form in peer_id_forms(peer))


@given(st.text(max_size=80))
def test_any_text_is_a_peer_id_or_an_address_error(text: str) -> None:
    try:
        peer = parse_peer_id(text)
    except AddressError:
        return
    assert parse_peer_id(peer_text(peer)) == peer


def test_signatures_verify_with_the_public_key() -> None:
    identity = Identity.generate()
    identity.public_key.verify(b"data", identity.sign(b"data"))
    with pytest.raises(InvalidSignature):
        identity.public_key.verify(b"other data", identity.sign(b"data"))
