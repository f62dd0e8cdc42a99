"""TLS certificates with an identity: TL2 to TL8 of docs/wire-rules.md, the specification's vectors, any bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from punchbridge.errors import AuthenticationFailed, BridgeError, WrongPeer
from punchbridge.identity import Identity, parse_peer_id
from punchbridge.keys import KeyKind
from punchbridge.wire.tls_credentials import PREFIX, encode_signed_key, make_credentials
from punchbridge.wire.tls_identity import EXTENSION, MAX_CERTIFICATE, decode_signed_key, verify_certificate
from tests.support.identities import KINDS, identity_of

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
VECTORS = [
    line.split()
    for line in (Path(__file__).parent / "vectors" / "tls.txt").read_text().splitlines()
    if not line.startswith("#")
]
NAME = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, "1")])

CertificateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@cache
def key_of(kind: str) -> CertificateKey:
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:]))
    return ec.generate_private_key({"p256": ec.SECP256R1, "p384": ec.SECP384R1}[kind]())


def signed_key(identity: Identity, key: CertificateKey, *, signer: Identity | None = None) -> bytes:
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encode_signed_key(identity.public_key.serialize(), (signer or identity).sign(PREFIX + spki))


def certificate(
    key: CertificateKey,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    *,
    algorithm: hashes.SHA256 | hashes.SHA384 | hashes.SHA224 | None = None,
    begin: datetime = NOW - timedelta(days=1),
    end: datetime = NOW + timedelta(days=1),
    signer: CertificateKey | None = None,
    pss: bool = False,
) -> bytes:
    """A certificate in DER, as `make_credentials` would not make it."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    with_hash = None if isinstance(key, ed25519.Ed25519PrivateKey) else algorithm or hashes.SHA256()
    rsa_padding = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if pss else None
    return builder.sign(signer or key, with_hash, rsa_padding=rsa_padding).public_bytes(Encoding.DER)


def libp2p(value: bytes, critical: bool = False) -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(EXTENSION, value), critical


# --- what is accepted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "peer", "der"), VECTORS[:3])
def test_the_valid_vectors_of_the_specification(kind: str, peer: str, der: str) -> None:
    assert verify_certificate(bytes.fromhex(der), NOW, parse_peer_id(peer)) == parse_peer_id(peer), kind


def test_tl6_the_vector_with_a_signature_of_another_key() -> None:
    with pytest.raises(AuthenticationFailed, match="signature"):
        verify_certificate(bytes.fromhex(VECTORS[3][2]), NOW)


@pytest.mark.parametrize("kind", KINDS)
def test_what_we_make_proves_who_we_are(kind: KeyKind) -> None:
    identity = identity_of(kind)
    made = make_credentials(identity, NOW)
    for moment in (NOW, NOW - timedelta(minutes=59), NOW + timedelta(days=36000)):
        assert verify_certificate(made.certificate, moment, identity.peer_id) == identity.peer_id


def test_tl8_what_we_make_is_one_small_certificate_on_p256_with_a_fresh_key() -> None:
    identity = identity_of(KeyKind.ED25519)
    first, second = make_credentials(identity, NOW), make_credentials(identity, NOW)
    assert first.certificate != second.certificate
    assert first.key.hex() not in repr(first)
    assert repr(first.key) not in repr(first)
    read = x509.load_der_x509_certificate(first.certificate)
    key, secret = read.public_key(), load_der_private_key(first.key, None)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(secret, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert secret.public_key() == key
    assert isinstance(read.signature_hash_algorithm, hashes.SHA256)
    assert len(first.certificate) < 500
    assert read.version == x509.Version.v3
    name = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, str(read.serial_number))])
    assert read.subject == read.issuer == name
    assert read.serial_number != x509.load_der_x509_certificate(second.certificate).serial_number
    (extension,) = read.extensions
    assert (extension.oid, extension.critical) == (EXTENSION, False)


@given(st.datetimes(datetime(2000, 1, 2), datetime(2200, 1, 1)))
def test_what_we_make_is_what_x509_would_write(moment: datetime) -> None:
    """The same certificate, written by a library of X.509 from what it has read."""
    made = make_credentials(identity_of(KeyKind.ED25519), moment.replace(tzinfo=UTC)).certificate
    read = x509.load_der_x509_certificate(made)
    (extension,) = read.extensions
    builder = x509.CertificateBuilder(
        read.issuer,
        read.subject,
        read.public_key(),
        read.serial_number,
        read.not_valid_before_utc.replace(tzinfo=None),
        read.not_valid_after_utc.replace(tzinfo=None),
    ).add_extension(extension.value, critical=False)
    again = builder.sign(key_of("p256"), hashes.SHA256())
    assert again.tbs_certificate_bytes == read.tbs_certificate_bytes
    assert read.signature_algorithm_oid == again.signature_algorithm_oid


@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "rsa2048"])
@pytest.mark.parametrize("critical", [False, True])
def test_tl3_certificates_that_others_make(kind: str, critical: bool) -> None:
    identity, key = identity_of(KeyKind.ED25519), key_of(kind)
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    usual = (x509.BasicConstraints(ca=False, path_length=None), True)
    der = certificate(key, [libp2p(signed_key(identity, key), critical), (unknown, False), usual])
    assert verify_certificate(der, NOW) == identity.peer_id


def test_an_rsa_certificate_with_pss() -> None:
    identity, key = identity_of(KeyKind.ED25519), key_of("rsa2048")
    der = certificate(key, [libp2p(signed_key(identity, key))], pss=True)
    assert verify_certificate(der, NOW) == identity.peer_id


# --- what is refused ----------------------------------------------------------------------------------------


def test_tl6_another_peer_than_the_one_dialled() -> None:
    made = make_credentials(identity_of(KeyKind.ED25519), NOW)
    with pytest.raises(WrongPeer, match="dialled"):
        verify_certificate(made.certificate, NOW, Identity.generate().peer_id)


def test_a_certificate_tells_no_time_of_day() -> None:
    made = make_credentials(identity_of(KeyKind.ED25519), datetime(2026, 7, 1, 15, 43, 21, tzinfo=UTC))
    certificate = x509.load_der_x509_certificate(made.certificate)
    assert certificate.not_valid_before_utc == datetime(2026, 7, 1, tzinfo=UTC)
    assert certificate.not_valid_after_utc.time() == certificate.not_valid_before_utc.time()


@pytest.mark.parametrize("days", [-2, 2])
def test_tl2_not_valid_now(days: int) -> None:
    identity, key = identity_of(KeyKind.ED25519), key_of("p256")
    der = certificate(key, [libp2p(signed_key(identity, key))])
    with pytest.raises(AuthenticationFailed, match="valid from"):
        verify_certificate(der, NOW + timedelta(days=days))


def test_tl2_not_signed_by_its_own_key() -> None:
    identity, key = identity_of(KeyKind.ED25519), key_of("p256")
    other = ec.generate_private_key(ec.SECP256R1())
    der = certificate(key, [libp2p(signed_key(identity, key))], signer=other)
    with pytest.raises(AuthenticationFailed, match="own signature"):
        verify_certificate(der, NOW)


def test_tl3_a_certificate_without_the_extension() -> None:
    with pytest.raises(AuthenticationFailed, match="lacks the libp2p extension"):
        verify_certificate(certificate(key_of("p256"), []), NOW)


@pytest.mark.parametrize(
    "extension",
    [
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
        x509.NameConstraints([x509.DNSName("example.org")], None),
    ],
)
def test_tl3_a_critical_extension_that_is_not_understood(extension: x509.ExtensionType) -> None:
    identity, key = identity_of(KeyKind.ED25519), key_of("p256")
    der = certificate(key, [libp2p(signed_key(identity, key)), (extension, True)])
    with pytest.raises(AuthenticationFailed, match="critical extension"):
        verify_certificate(der, NOW)


def test_tl5_the_signature_is_over_this_certificates_key() -> None:
    """Whoever copies an extension into a certificate of his own has not the identity."""
    identity, key, other = identity_of(KeyKind.ED25519), key_of("p256"), key_of("p384")
    with pytest.raises(AuthenticationFailed, match="identity signature is wrong"):
        verify_certificate(certificate(other, [libp2p(signed_key(identity, key))]), NOW)


@pytest.mark.parametrize("kind", KINDS)
def test_tl6_somebody_else_signed(kind: KeyKind) -> None:
    identity, eve, key = identity_of(kind), identity_of(kind, 1), key_of("p256")
    with pytest.raises(AuthenticationFailed, match="identity signature is wrong"):
        verify_certificate(certificate(key, [libp2p(signed_key(identity, key, signer=eve))]), NOW)


def test_tl8_a_weak_hash_or_key() -> None:
    identity, key, small = identity_of(KeyKind.ED25519), key_of("p256"), key_of("rsa1024")
    with pytest.raises(AuthenticationFailed, match="sha224"):
        verify_certificate(certificate(key, [libp2p(signed_key(identity, key))], algorithm=hashes.SHA224()), NOW)
    with pytest.raises(AuthenticationFailed, match="1024 bits"):
        verify_certificate(certificate(small, [libp2p(signed_key(identity, small))]), NOW)


def test_a_key_of_a_kind_that_tls_does_not_have() -> None:
    key = dsa.generate_private_key(2048)
    der = (
        x509.CertificateBuilder().subject_name(NAME).issuer_name(NAME).public_key(key.public_key()).serial_number(1)
        .not_valid_before(NOW - timedelta(days=1)).not_valid_after(NOW + timedelta(days=1)).sign(key, hashes.SHA256())
    ).public_bytes(Encoding.DER)  # fmt: skip
    with pytest.raises(AuthenticationFailed, match="another kind"):
        verify_certificate(der, NOW)


def test_a_certificate_beyond_the_bound_is_not_read() -> None:
    with pytest.raises(AuthenticationFailed, match="limit"):
        verify_certificate(bytes(MAX_CERTIFICATE + 1), NOW)


# --- SignedKey ----------------------------------------------------------------------------------------------


@given(st.binary(max_size=700), st.binary(max_size=700))
def test_tl4_a_signed_key_reads_back(public: bytes, signature: bytes) -> None:
    assert decode_signed_key(encode_signed_key(public, signature)) == (public, signature)


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda data: b"\x30" + bytes((len(data),)) + data))
def test_tl4_any_bytes_are_a_signed_key_in_der_or_refused(data: bytes) -> None:
    try:
        public, signature = decode_signed_key(data)
    except AuthenticationFailed:
        return
    assert encode_signed_key(public, signature) == data


@pytest.mark.parametrize(
    "value",
    [
        "",
        "30",
        "3003040100",  # one string
        "300404000400ff",  # behind the end
        "30060400040004 00",  # three strings
        "3080040004000000",  # BER: no length
        "30810404000400",  # BER: a length in two bytes that fits one
        "308200040400 0400",
        "3004040004",  # too short
        "31040400 0400",  # a set
        "30040300 0400",  # a bit string
        "30830000040400 0400",
    ],
)
def test_tl4_what_is_no_der(value: str) -> None:
    with pytest.raises(AuthenticationFailed, match="libp2p extension"):
        decode_signed_key(bytes.fromhex(value))


# --- any bytes ----------------------------------------------------------------------------------------------


@given(st.binary(max_size=600))
def test_any_bytes_are_refused_with_our_error(data: bytes) -> None:
    with pytest.raises(AuthenticationFailed):
        verify_certificate(data, NOW)


@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(1, 255)), min_size=1, max_size=3),
)
def test_a_changed_certificate_never_proves_anybody_else(kind: KeyKind, changes: list[tuple[int, int]]) -> None:
    """A changed signature may still be one (ECDSA has two for each), so what remains true may be accepted."""
    identity = identity_of(kind)
    data = bytearray(_made(kind))
    for place, change in changes:
        data[place % len(data)] ^= change
    try:
        assert verify_certificate(bytes(data), NOW) == identity.peer_id
    except BridgeError as problem:
        assert isinstance(problem, AuthenticationFailed)  # noqa: PT017 - anything else is the failure


@given(st.sampled_from(KINDS), st.integers(0, 4000), st.binary(max_size=8))
def test_a_cut_or_longer_certificate_is_refused(kind: KeyKind, end: int, more: bytes) -> None:
    whole = _made(kind)
    changed = whole[: end % len(whole)] + more
    for data in (changed, whole + (more or b"\0")):
        with pytest.raises(AuthenticationFailed):
            verify_certificate(data, NOW)


@cache
def _made(kind: KeyKind) -> bytes:
    return make_credentials(identity_of(kind), NOW).certificate
