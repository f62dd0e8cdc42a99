"""Who signed: the identity key that a peer sends, its signature, and the peer id that both prove.

Which keys there are and their bounds is `punchbridge.keys`'s matter; what was signed is the caller's.
"""

from __future__ import annotations

from punchbridge.errors import AuthenticationFailed
from punchbridge.identity import PeerId
from punchbridge.keys import InvalidSignature, KeyRefused, PublicKey


def verify_identity(serialized: bytes, signature: bytes, signed: bytes) -> PeerId:
    """Checks the signature and returns the signer's peer id.

    Raises AuthenticationFailed when the key is malformed, of an unknown type, too large (RSA above 8192 bits), or when
    the signature is wrong.
    """
    try:
        key = PublicKey.parse(serialized)
        key.verify(signed, signature)
    except KeyRefused as problem:
        raise AuthenticationFailed(f"the identity key cannot be used ({problem})") from None
    except InvalidSignature:
        raise AuthenticationFailed("the identity signature is wrong") from None
    # Hashed in the deterministic encoding, so that one key has one peer id however it was sent.
    return key.peer_id
