"""Identity keys: the file's mode and content, and peer ids in both text forms."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.errors import AddressError, IdentityError
from punchbridge.identity import Identity, PeerId, load, load_or_create, parse_peer_id, peer_id_forms, peer_text
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


def test_directory_in_place_of_a_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IdentityError):
        load_or_create(tmp_path)


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
