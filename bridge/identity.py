"""Who we are: the identity key, its file, and peer ids in both text forms.

Keys and peer ids are py-libp2p's. A key file holds the libp2p PrivateKey protobuf (specs/peer-ids), is made with
mode 0600 and refused when group or others can read it. Nothing here knows a connection.
"""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import PrivateKey, PublicKey
from libp2p.crypto.serialization import deserialize_private_key
from libp2p.peer.id import ID as PeerId

from punchbridge.errors import AddressError, IdentityError

__all__ = ["Identity", "PeerId", "load_or_create", "parse_peer_id", "peer_id_forms", "peer_text"]

_MAX_KEY_FILE = 16 * 1024
_LIBP2P_KEY_CODEC = 0x72
_CID_V1 = 1


@dataclass(frozen=True)
class Identity:
    """An identity key pair and the peer id made from it."""

    private_key: PrivateKey
    public_key: PublicKey
    peer_id: PeerId

    @classmethod
    def generate(cls) -> Identity:
        """A fresh Ed25519 identity, kept nowhere."""
        return cls.from_private_key(create_new_key_pair().private_key)

    @classmethod
    def from_private_key(cls, key: PrivateKey) -> Identity:
        public = key.get_public_key()
        return cls(key, public, PeerId.from_pubkey(public))

    def sign(self, data: bytes) -> bytes:
        return self.private_key.sign(data)

    def __str__(self) -> str:
        return peer_text(self.peer_id)


def peer_text(peer: PeerId) -> str:
    """The peer id as base58btc, the form that is printed (specs/peer-ids: SHOULD)."""
    return peer.to_base58()


def peer_id_forms(peer: PeerId) -> tuple[str, str]:
    """Both text forms: base58btc, and CIDv1 in base32 with codec libp2p-key."""
    import multibase

    raw = bytes([_CID_V1, _LIBP2P_KEY_CODEC]) + peer.to_bytes()
    return peer_text(peer), multibase.encode("base32", raw).decode()


def parse_peer_id(text: str) -> PeerId:
    """Reads either text form. Raises AddressError with the reason."""
    import base58
    import multibase

    text = text.strip()
    try:
        if text.startswith(("1", "Qm")):
            raw = base58.b58decode(text)
        else:
            raw = multibase.decode(text)
            if raw[:2] != bytes([_CID_V1, _LIBP2P_KEY_CODEC]):
                raise ValueError("the CID is not of codec libp2p-key (0x72)")
            raw = raw[2:]
        _check_multihash(raw)
    except (ValueError, multibase.InvalidMultibaseStringError, multibase.DecodingError) as problem:
        raise AddressError(f"not a peer id: {text!r} ({problem}); expected 12D3KooW… or bafz…") from None
    return PeerId(raw)


def _check_multihash(raw: bytes) -> None:
    if len(raw) < 2 or raw[0] not in (0x00, 0x12) or raw[1] != len(raw) - 2:
        raise ValueError("not an identity or SHA2-256 multihash")
    if raw[0] == 0x12 and raw[1] != 32:
        raise ValueError("a SHA2-256 digest has 32 bytes")


def load_or_create(path: Path) -> Identity:
    """Reads the key file, or makes one with a fresh Ed25519 key (mode 0600, parent folders 0700).

    Raises IdentityError, with what to do, when the file cannot be read, is malformed, belongs to somebody else, or
    can be read by group or others. The file is written whole or not at all.
    """
    try:
        return load(path)
    except FileNotFoundError:
        pass
    identity = Identity.generate()
    try:
        _write(path, identity)
    except FileExistsError:  # another program made one in the meantime
        return load(path)
    return identity


def load(path: Path) -> Identity:
    """Reads the key file. Raises FileNotFoundError when there is none, IdentityError when it is unusable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise IdentityError(f"cannot read the key file {path}: {problem.strerror}; check its owner and mode") from None
    try:
        _check_file(os.fstat(descriptor), path)
        data = os.read(descriptor, _MAX_KEY_FILE + 1)
    finally:
        os.close(descriptor)
    return Identity.from_private_key(_decode(data, path))


def _check_file(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise IdentityError(f"{path} is not a regular file; name a key file")
    if status.st_uid not in (os.geteuid(), 0):
        raise IdentityError(f"the key file {path} belongs to uid {status.st_uid}; chown it or use another file")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise IdentityError(f"the key file {path} is open to other users (mode {mode:04o}); run: chmod 600 {path}")


def _decode(data: bytes, path: Path) -> PrivateKey:
    from google.protobuf.message import DecodeError, EncodeError
    from libp2p.crypto.exceptions import CryptographyError
    from libp2p.crypto.pb import crypto_pb2

    hint = f"{path} holds no libp2p private key; move it away and a fresh one will be made"
    if not data or len(data) > _MAX_KEY_FILE:
        raise IdentityError(hint)
    try:
        message = crypto_pb2.PrivateKey.FromString(data)
        if message.key_type == crypto_pb2.KeyType.Ed25519:
            message.data = _ed25519_seed(message.data)
        return deserialize_private_key(message.SerializeToString())
    except (DecodeError, EncodeError, CryptographyError, ValueError, TypeError, KeyError) as problem:
        raise IdentityError(f"{hint} ({problem})") from None


def _ed25519_seed(data: bytes) -> bytes:
    """specs/peer-ids: 64 bytes (seed, public), or 96 with the public half twice; py-libp2p wants the 32-byte seed."""
    if len(data) == 96 and data[32:64] == data[64:96]:
        return data[:32]
    if len(data) in (32, 64):
        return data[:32]
    raise ValueError(f"an Ed25519 key of {len(data)} bytes")


def _write(path: Path, identity: Identity) -> None:
    from libp2p.crypto.pb import crypto_pb2

    message = crypto_pb2.PrivateKey(
        key_type=crypto_pb2.KeyType.Ed25519,
        data=identity.private_key.to_bytes()[:32] + identity.public_key.to_bytes(),
    )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(message.SerializeToString())
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)
        finally:
            os.unlink(temporary)
    except FileExistsError:
        raise
    except OSError as problem:
        raise IdentityError(f"cannot write the key file {path}: {problem.strerror}; choose a writable place") from None
