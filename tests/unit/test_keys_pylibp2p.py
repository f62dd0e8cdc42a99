"""Keys and peer ids beside py-libp2p's: the same bytes and texts, and each verifies what the other signed."""

from __future__ import annotations

import multibase
import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.serialization import deserialize_private_key, deserialize_public_key
from libp2p.peer.id import ID

from punchbridge.keys import KeyKind, PrivateKey
from punchbridge.peer_id import PeerId
from tests.support.identities import identity_of

KNOWN_TO_PY_LIBP2P = (KeyKind.RSA, KeyKind.ED25519, KeyKind.SECP256K1)
MULTIHASHES = st.binary(min_size=1, max_size=42).map(lambda key: bytes((0, len(key))) + key) | st.binary(
    min_size=32, max_size=32
).map(lambda digest: b"\x12\x20" + digest)


@pytest.mark.parametrize("kind", KNOWN_TO_PY_LIBP2P)
def test_py_libp2p_reads_the_same_key_and_names_the_same_peer(kind: KeyKind) -> None:
    private = identity_of(kind).private_key
    theirs = deserialize_public_key(private.public.serialize())
    assert theirs.serialize() == private.public.serialize()
    assert ID.from_pubkey(theirs).to_bytes() == private.public.peer_id.to_bytes()
    assert str(ID.from_pubkey(theirs)) == str(private.public.peer_id)


@pytest.mark.parametrize("kind", KNOWN_TO_PY_LIBP2P)
def test_each_side_verifies_what_the_other_signed(kind: KeyKind) -> None:
    private = identity_of(kind).private_key
    theirs = deserialize_private_key(_seed_alone(private))
    assert theirs.get_public_key().verify(b"data", private.sign(b"data"))
    private.public.verify(b"data", theirs.sign(b"data"))


def _seed_alone(private: PrivateKey) -> bytes:
    """The message as py-libp2p wants it: of an Ed25519 key it reads the seed without the public half."""
    if private.kind is not KeyKind.ED25519:
        return private.serialize()
    return b"\x08\x01\x12\x20" + private.data[:32]


@given(MULTIHASHES)
def test_py_libp2p_writes_the_same_text(raw: bytes) -> None:
    assert PeerId(raw).to_base58() == ID(raw).to_base58()
    assert ID.from_base58(str(PeerId(raw))).to_bytes() == raw


@given(MULTIHASHES)
def test_every_multibase_in_use_is_read(raw: bytes) -> None:
    peer = PeerId(raw)
    assert PeerId.parse(peer.to_base58()) == PeerId.parse(f" {peer.to_cid()}\n") == peer
    for name in ("base16", "base32", "base32upper", "base36", "base58btc", "base64", "base64url", "base64pad"):
        assert PeerId.parse(multibase.encode(name, b"\x01\x72" + raw).decode()) == peer
