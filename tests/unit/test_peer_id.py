"""Peer ids: the specification's examples, every text form, what is refused."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.errors import AddressError
from punchbridge.peer_id import PeerId

HASHED = PeerId.parse("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")
INLINED = PeerId.parse("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")


def test_the_examples_of_the_specification() -> None:
    assert HASHED.to_bytes()[:2] == b"\x12\x20"
    assert INLINED.to_bytes()[:6] == b"\x00\x24\x08\x01\x12\x20"
    cid = PeerId.parse("bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe")
    assert cid == HASHED
    assert HASHED.to_cid() == "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe"


def test_up_to_42_bytes_are_the_peer_id_themselves() -> None:
    key = bytes(range(42))
    assert PeerId.of_key(key).to_bytes() == b"\x00\x2a" + key
    assert PeerId.of_key(key + b"x").to_bytes() == b"\x12\x20" + hashlib.sha256(key + b"x").digest()


def test_base16_and_base32_are_read_in_both_cases() -> None:
    for text in ("f0172" + HASHED.to_bytes().hex(), HASHED.to_cid()):
        assert PeerId.parse(text) == PeerId.parse(text.upper()) == HASHED


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("", "neither base58btc nor a multibase"),
        ("12D3KooW0", "'0' is no digit of base 58"),
        ("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5", "not an identity or SHA2-256 multihash"),
        ("bafybeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe", "not of codec libp2p-key"),
        ("f0172", "not an identity or SHA2-256 multihash"),
        ("f01721240" + "00" * 64, "32 bytes"),
        ("f0172002b" + "00" * 43, "hashed, not inlined"),
        ("f01 72f", "[Hh]exadecimal"),
        ("bé", "ASCII"),
        ("1" * 201, "201 characters"),
    ],
)
def test_refused_with_the_reason_and_a_right_example(text: str, phrase: str) -> None:
    with pytest.raises(AddressError, match=f"{phrase}.*expected 12D3KooW"):
        PeerId.parse(text)


@pytest.mark.parametrize("raw", [b"", b"\x00\x00", b"\x00\x01", b"\x12\x20short", b"\x11\x14" + bytes(20)])
def test_bytes_that_no_key_has_are_refused(raw: bytes) -> None:
    with pytest.raises(AddressError, match="not a peer id"):
        PeerId(raw)


@given(st.text(max_size=80) | st.text("bfzkmu0123456789abcdef", max_size=80))
def test_any_text_is_a_peer_id_or_an_address_error(text: str) -> None:
    try:
        peer = PeerId.parse(text)
    except AddressError:
        return
    assert PeerId.parse(str(peer)) == peer


def test_a_peer_id_is_its_bytes() -> None:
    twin = PeerId(INLINED.to_bytes())
    assert twin == INLINED
    assert len({twin, INLINED, HASHED}) == 2
    assert INLINED.to_bytes() != INLINED
    assert repr(INLINED) == "PeerId(12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA)"
