"""The PROXY v2 header: the bytes of one by hand, and what a reader by the specification takes from any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.identity import Identity
from punchbridge.local.expose import caller_header
from punchbridge.local.peer import synthesized_address
from punchbridge.wire.proxy import PP2_TYPE_PEER_ID, encode_proxy_header
from tests.support.proxy_header import read_proxy_header

ADDRESSES = st.tuples(st.ip_addresses(v=6).map(str), st.integers(0, 65535))
VALUES = st.dictionaries(st.integers(0, 255), st.binary(max_size=300), max_size=5)


def test_the_bytes() -> None:
    header = encode_proxy_header(("fd00::1", 4660), ("::2", 80), [(0xE7, b"id")])
    assert header == bytes.fromhex(
        "0d0a0d0a000d0a515549540a 21 21 0029"
        "fd000000000000000000000000000001 00000000000000000000000000000002 1234 0050 e7 0002 6964"
    )


@given(ADDRESSES, ADDRESSES, VALUES, st.binary(max_size=20))
def test_a_reader_takes_out_what_was_put_in(
    source: tuple[str, int], destination: tuple[str, int], values: dict[int, bytes], behind: bytes
) -> None:
    header = encode_proxy_header(source, destination, values.items())
    told = read_proxy_header(header + behind)
    assert told is not None
    assert (told.source, told.destination, told.values, told.rest) == (source, destination, values, behind)
    assert all(read_proxy_header(header[:cut]) is None for cut in range(len(header)))


def test_what_does_not_fit_is_refused() -> None:
    here = ("::1", 1)
    assert len(encode_proxy_header(here, here, [(1, bytes(65535 - 39))])) == 16 + 65535
    with pytest.raises(ValueError, match="65536"):
        encode_proxy_header(here, here, [(1, bytes(65536 - 39))])
    with pytest.raises(ValueError, match="65535"):
        encode_proxy_header(here, here, [(1, bytes(65536))])
    with pytest.raises(ValueError, match="192"):
        encode_proxy_header(("192.0.2.1", 1), here)


def test_the_header_of_a_caller() -> None:
    caller, own = Identity.generate(), Identity.generate()
    told = read_proxy_header(caller_header(caller.peer_id, own.peer_id))
    assert told is not None
    assert told.source == synthesized_address(str(caller))
    assert told.destination == synthesized_address(str(own))
    assert told.values == {PP2_TYPE_PEER_ID: str(caller).encode()}
    assert PP2_TYPE_PEER_ID == 0xE7  # docs/operations.md says so
