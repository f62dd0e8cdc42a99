"""Who we are: the identity key and its file.

A key file holds the PrivateKey message of libp2p's peer-ids specification, so that other implementations read it; it is
made with mode 0600 and refused when group or others can read it. Nothing here knows a connection.
"""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from punchbridge.errors import IdentityError
from punchbridge.keys import KeyRefused, PrivateKey, PublicKey
from punchbridge.peer_id import PeerId, parse_peer_id, peer_id_forms, peer_text

__all__ = ["Identity", "PeerId", "load_or_create", "parse_peer_id", "peer_id_forms", "peer_text"]

_MAX_KEY_FILE = 16 * 1024


@dataclass(frozen=True)
class Identity:
    """An identity key pair and the peer id made from it."""

    private_key: PrivateKey
    public_key: PublicKey
    peer_id: PeerId

    @classmethod
    def generate(cls) -> Identity:
        """A fresh Ed25519 identity, kept nowhere."""
        return cls.from_private_key(PrivateKey.generate())

    @classmethod
    def from_private_key(cls, key: PrivateKey) -> Identity:
        return cls(key, key.public, key.public.peer_id)

    def sign(self, data: bytes) -> bytes:
        return self.private_key.sign(data)

    def __str__(self) -> str:
        return peer_text(self.peer_id)


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
    hint = f"{path} holds no libp2p private key; move it away and a fresh one will be made"
    if not data or len(data) > _MAX_KEY_FILE:
        raise IdentityError(hint)
    try:
        return PrivateKey.parse(data)
    except KeyRefused as problem:
        raise IdentityError(f"{hint} ({problem})") from None


def _write(path: Path, identity: Identity) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(identity.private_key.serialize())
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)
        finally:
            os.unlink(temporary)
    except FileExistsError:
        raise
    except OSError as problem:
        raise IdentityError(f"cannot write the key file {path}: {problem.strerror}; choose a writable place") from None
