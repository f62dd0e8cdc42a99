"""Who we are: the identity key and its file.

A key file holds the PrivateKey message of libp2p's peer-ids specification, so that other implementations read it; it is
made with mode 0600 and refused when group or others can read it, or replace it. Nothing here knows a connection.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from punchbridge.errors import IdentityError
from punchbridge.files import add_file, folder_fault, make_folder, read_private
from punchbridge.keys import KeyRefused, PrivateKey, PublicKey
from punchbridge.peer_id import PeerId, parse_peer_id, peer_id_forms, peer_text

__all__ = ["Identity", "PeerId", "load_named", "load_or_create", "parse_peer_id", "peer_id_forms", "peer_text"]

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


def load_named(path: Path, *, new: bool) -> Identity:
    """The identity of a key file that somebody has named. `new`: it may be made when it is absent.

    Without that a missing file is an IdentityError: a typing error must not make another peer of a program in silence.
    Raises as `load_or_create`.
    """
    if new:
        return load_or_create(path)
    try:
        return load(path)
    except FileNotFoundError:
        raise IdentityError(
            f"there is no key file {path}; check the path, or make one there: --new-key (in Python new_key=True)"
        ) from None


def load_or_create(path: Path) -> Identity:
    """Reads the key file, or makes one with a fresh Ed25519 key (mode 0600, folders that are missing 0700).

    Raises IdentityError, with what to do, when the file cannot be read, is malformed, belongs to somebody else, can be
    read by group or others, or stands in a folder where others can put another one in its place. The file is written
    whole or not at all.
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
        data, fault = read_private(path, _MAX_KEY_FILE, secret=True)
        fault = fault or _folder_fault(path)
    except FileNotFoundError:
        if path.is_symlink():
            raise IdentityError(
                f"the key file {path} is a symbolic link to {os.readlink(path)}, which is not there"
            ) from None
        raise
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise IdentityError(f"cannot read the key file {path}: {reason}; check its path, owner and mode") from None
    if fault:
        raise IdentityError(f"the key file {path} is not used: {fault}")
    return Identity.from_private_key(_decode(data, path))


def _folder_fault(path: Path) -> str | None:
    """Who could put another file in the place of this one, or of the one that it is a link to."""
    folders = dict.fromkeys((path.parent, Path(os.path.realpath(path)).parent))
    return next(filter(None, map(folder_fault, folders)), None)


def _decode(data: bytes, path: Path) -> PrivateKey:
    hint = f"{path} holds no libp2p private key; move it away and a fresh one can be made"
    if not data or len(data) > _MAX_KEY_FILE:
        raise IdentityError(hint)
    try:
        return PrivateKey.parse(data)
    except KeyRefused as problem:
        raise IdentityError(f"{hint} ({problem})") from None


def _write(path: Path, identity: Identity) -> None:
    try:
        make_folder(path.parent)
        fault = _folder_fault(path)
        if fault:
            raise IdentityError(f"no key file {path} is made: {fault}")
        add_file(path, identity.private_key.serialize())
    except FileExistsError:
        if not path.parent.is_dir():
            raise IdentityError(f"cannot write the key file {path}: {path.parent} is not a folder") from None
        raise
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise IdentityError(f"cannot write the key file {path}: {reason}; choose a writable place") from None
