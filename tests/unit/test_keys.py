"""Identity keys of all four kinds: the specification's vectors, what is refused, and any bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.identity import load
from punchbridge.keys import (
    _SECP256K1_ORDER,
    MAX_IDENTITY_KEY,
    InvalidSignature,
    KeyKind,
    KeyRefused,
    PrivateKey,
    PublicKey,
)
from tests.support.identities import KINDS, identity_of

VECTORS = {
    KeyKind[kind]: (bytes.fromhex(private), bytes.fromhex(public))
    for kind, private, public in (
        line.split()
        for line in (Path(__file__).parent / "vectors" / "peer-ids.txt").read_text().splitlines()
        if not line.startswith("#")
    )
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_vectors_of_the_specification(kind: KeyKind) -> None:
    private, public = VECTORS[kind]
    key = PrivateKey.parse(private)
    assert key.kind is kind
    assert key.public.serialize() == public
    assert key.serialize() == private
    PublicKey.parse(public).verify(b"data", key.sign(b"data"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_file_of_any_kind_is_read(kind: KeyKind, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(VECTORS[kind][0])
    path.chmod(0o600)
    assert load(path).public_key.serialize() == VECTORS[kind][1]


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_owner_signs_and_only_what_was_signed(kind: KeyKind) -> None:
    mine, other = identity_of(kind), identity_of(kind, 1)
    signature = mine.sign(b"data")
    mine.public_key.verify(b"data", signature)
    for key, data, signed in (
        (mine.public_key, b"date", signature),
        (other.public_key, b"data", signature),
        (mine.public_key, b"data", b""),
        (mine.public_key, b"data", signature[:-1]),
    ):
        with pytest.raises(InvalidSignature):
            key.verify(data, signed)


def _field(data: bytes) -> bytes:
    """Field 2 of the message with `data`."""
    size = len(data)
    return b"\x12" + (bytes((size,)) if size < 128 else bytes((size & 0x7F | 0x80, size >> 7))) + data


def test_secp256k1_signatures_have_the_small_s_and_both_are_read() -> None:
    """BIP 62, which the specification names: libsecp256k1 refuses the other of the two."""
    identity = identity_of(KeyKind.SECP256K1)
    for number in range(16):
        signature = identity.sign(bytes((number,)))
        r, s = decode_dss_signature(signature)
        assert s <= _SECP256K1_ORDER // 2
        identity.public_key.verify(bytes((number,)), encode_dss_signature(r, _SECP256K1_ORDER - s))


def test_a_private_key_shows_its_peer_and_no_secret() -> None:
    key = identity_of(KeyKind.ED25519).private_key
    assert repr(key) == f"PrivateKey(ED25519, {key.public.peer_id})"


@pytest.mark.parametrize(
    ("serialized", "phrase"),
    [
        (b"", "not"),
        (b"\x08\x04\x12\x01x", "unknown key type 4"),
        (b"\x08\x01\x12\x1f" + bytes(31), "32"),
        (b"\xff", "no PublicKey message"),
        (VECTORS[KeyKind.ECDSA][1].replace(b"\x08\x03", b"\x08\x00", 1), "not an RSA key"),
        (VECTORS[KeyKind.RSA][1].replace(b"\x08\x00", b"\x08\x03", 1), "not an ECDSA key"),
        (bytes(MAX_IDENTITY_KEY + 1), "the limit is"),
    ],
    ids=["empty", "type", "length", "garbage", "not RSA", "not ECDSA", "size"],
)
def test_a_public_key_is_refused_with_the_reason(serialized: bytes, phrase: str) -> None:
    with pytest.raises(KeyRefused, match=phrase):
        PublicKey.parse(serialized)


@pytest.mark.parametrize(
    ("kind", "data", "phrase"),
    [
        (KeyKind.ED25519, bytes(33), "33 bytes"),
        (KeyKind.ED25519, bytes(95) + b"x", "96 bytes"),
        (KeyKind.SECP256K1, bytes(31), "31 bytes"),
        (KeyKind.SECP256K1, bytes(32), "outside of its group"),
        (KeyKind.SECP256K1, b"\xff" * 32, "outside of its group"),
        (KeyKind.ECDSA, PrivateKey.parse(VECTORS[KeyKind.RSA][0]).data, "not an ECDSA key"),
        (KeyKind.RSA, PrivateKey.parse(VECTORS[KeyKind.ECDSA][0]).data, "not an RSA key"),
        (4, b"", "unknown key type 4"),
    ],
)
def test_a_private_key_is_refused_with_the_reason(kind: int, data: bytes, phrase: str) -> None:
    with pytest.raises(KeyRefused, match=phrase):
        PrivateKey(kind, data)


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes((tag, 0x82)) + len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize("kind", [KeyKind.RSA, KeyKind.ECDSA])
@pytest.mark.parametrize("wrapped", [False, True], ids=["PKCS 1", "PKCS 8"])
def test_large_numbers_are_refused_before_anything_is_computed_with_them(kind: KeyKind, wrapped: bool) -> None:
    """Whether they belong to a key would take up to a second to find out."""
    large = [der(0x02, b"\x7f" * 1026)] * 8
    data = der(0x30, der(0x02, b"\0"), *large)
    if wrapped:
        algorithm = der(0x30, bytes.fromhex("06092a864886f70d0101010500"))
        data = der(0x30, der(0x02, b"\0"), algorithm, der(0x04, data))
    with pytest.raises(KeyRefused, match="a number of 8208 bits, the limit is 8192"):
        PrivateKey(kind, data)


@given(st.integers(0, 5), st.binary(max_size=150), st.booleans())
def test_any_bytes_are_a_key_or_refused(kind: int, data: bytes, private: bool) -> None:
    message = bytes((0x08, kind)) + _field(data)
    try:
        key: PrivateKey | PublicKey = PrivateKey.parse(message) if private else PublicKey.parse(message)
    except KeyRefused:
        return
    assert type(key).parse(key.serialize()).serialize() == key.serialize()
