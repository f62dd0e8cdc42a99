"""The protobuf messages of the libp2p specifications, under short names.

The messages are generated from `proto/punchbridge/wire`; a protobuf package name is not on the wire. Nothing here
encodes, decodes or decides; that is the work of each protocol's codec.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from punchbridge._pb.punchbridge.wire.circuit_pb2 import (
    HopMessage,
    Limit,
    PeerId,
    Reservation,
    Status,
    StopMessage,
    Voucher,
)
from punchbridge._pb.punchbridge.wire.dcutr_pb2 import HolePunch
from punchbridge._pb.punchbridge.wire.envelope_pb2 import Envelope
from punchbridge._pb.punchbridge.wire.identify_pb2 import Identify
from punchbridge._pb.punchbridge.wire.invite_pb2 import InviteAnswer, InviteRequest
from punchbridge._pb.punchbridge.wire.keys_pb2 import KeyType
from punchbridge._pb.punchbridge.wire.keys_pb2 import PublicKey as PublicKeyMessage
from punchbridge._pb.punchbridge.wire.noise_pb2 import NoiseExtensions, NoiseHandshakePayload
from punchbridge._pb.punchbridge.wire.notice_pb2 import Notice
from punchbridge._pb.punchbridge.wire.peer_record_pb2 import PeerRecord

__all__ = [
    "MAX_MESSAGE",
    "DecodeError",
    "Envelope",
    "HolePunch",
    "HopMessage",
    "Identify",
    "InviteAnswer",
    "InviteRequest",
    "KeyType",
    "Limit",
    "NoiseExtensions",
    "NoiseHandshakePayload",
    "Notice",
    "PeerId",
    "PeerRecord",
    "PublicKeyMessage",
    "Reservation",
    "Status",
    "StopMessage",
    "Voucher",
]

MAX_MESSAGE: Final = 4096
"""circuit, DCUtR (MUST), identify (rust's limit): length prefix not counted."""
