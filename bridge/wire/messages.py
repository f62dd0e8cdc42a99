"""The protobuf messages of the libp2p specifications, under short names.

The only module that imports py-libp2p's generated classes: declaring the same messages again would collide in the
process-wide descriptor pool. Nothing here encodes, decodes or decides; that is the work of each protocol's codec.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError
from libp2p.crypto.pb.crypto_pb2 import KeyType
from libp2p.crypto.pb.crypto_pb2 import PublicKey as PublicKeyMessage
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.peer.pb.envelope_pb2 import Envelope
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Limit, PeerId, Reservation, Status, StopMessage, Voucher
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from libp2p.security.noise.pb.noise_pb2 import NoiseExtensions, NoiseHandshakePayload

__all__ = [
    "DecodeError",
    "Envelope",
    "HolePunch",
    "HopMessage",
    "Identify",
    "KeyType",
    "Limit",
    "NoiseExtensions",
    "NoiseHandshakePayload",
    "PeerId",
    "PublicKeyMessage",
    "Reservation",
    "Status",
    "StopMessage",
    "Voucher",
]
