"""Parsers of what comes before a peer is known, and of frames: multistream, Noise, TLS identities, Yamux, sessions."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from punchbridge.config import SessionLimits, YamuxLimits
from punchbridge.errors import ProtocolViolation
from punchbridge.sessions import Attach, Session
from punchbridge.sessions.frames import HEADER, MAX_PAYLOAD, AttachedFrame, FrameReader, Kind, encode, refuse
from punchbridge.sessions.frames import SessionRefusal as SessionRefusal
from punchbridge.wire import varint
from punchbridge.wire.messages import NoiseExtensions, NoiseHandshakePayload
from punchbridge.wire.multistream import HEADER as GREETING
from punchbridge.wire.multistream import Initiator, Responder, line
from punchbridge.wire.noise import Handshake, Opener, Sealer
from punchbridge.wire.tls_credentials import encode_signed_key
from punchbridge.wire.tls_identity import decode_signed_key, verify_certificate
from punchbridge.yamux import Yamux
from punchbridge.yamux.frames import ACK, DATA, FIN, GO_AWAY, INITIAL_WINDOW, PING, RST, SYN, WINDOW_UPDATE, header
from tests.fuzz.identities import numbered
from tests.fuzz.parser import Parser, Script, pieces

_US: Final = numbered(0)
_THEM: Final = numbered(1)
_YAMUX: Final = "/yamux/1.0.0"
_CERTIFICATES: Final = Path(__file__).resolve().parents[1] / "protocol" / "vectors" / "tls.txt"
_NOW: Final = datetime(2026, 7, 1, tzinfo=UTC)


# --- varint and multistream -------------------------------------------------------------------------------


def _varint(data: bytes) -> bool:
    found = varint.decode(data)
    taken = varint.split(data, 4096)
    if found is not None:
        assert varint.encode(found[0]) == data[: found[1]]
    if taken is not None:
        assert varint.prefixed(taken[0]) == data[: taken[1]]
    return found is not None


def _multistream(side: Initiator | Responder, data: bytes) -> tuple[str | None, bytes, bytes]:
    out = side.start() if isinstance(side, Initiator) else b""
    for piece in pieces(data):
        out += side.receive(piece)
    return side.protocol, out, side.leftover


def _responder(data: bytes) -> bool:
    supported = ("/ipfs/ping/1.0.0", "/noise", _YAMUX)
    whole, parted = Responder(lambda: supported), Responder(lambda: supported)
    out = whole.receive(data)
    assert _multistream(parted, data) == (whole.protocol, out, whole.leftover)
    assert whole.protocol is None or whole.protocol in supported
    return whole.done


def _initiator(data: bytes) -> bool:
    side = Initiator(["/noise", "/tls/1.0.0"])
    protocol, _, _ = _multistream(side, data)
    assert protocol in (None, "/noise", "/tls/1.0.0")
    return side.done


# --- Noise ------------------------------------------------------------------------------------------------


def _noise_responder(data: bytes) -> bool:
    """Any bytes as messages 1 and 3."""
    side = Handshake(_US, "responder", muxers=(_YAMUX,))
    for piece in pieces(data):
        side.receive(piece)
    assert side.secured is None
    return side._messages > 0


def _noise_initiator(data: bytes) -> bool:
    """Any bytes as message 2."""
    side = Handshake(_US, "initiator", expected=_THEM.peer_id, muxers=(_YAMUX,))
    side.start()
    side.receive(data)
    assert side.secured is None
    return False


class _Says(Handshake):
    """A peer whose signed payload is any bytes, encrypted as the handshake wants it."""

    said: bytes = b""

    def _payload(self, muxers: tuple[str, ...]) -> bytes:
        return self.said


def _noise_payload(data: bytes) -> bool:
    """Any bytes as the payload of the other end's message, told by a peer that keeps to the handshake itself."""
    ours = Handshake(_US, "initiator", muxers=(_YAMUX,))
    theirs = _Says(_THEM, "responder", muxers=(_YAMUX,))
    theirs.said = data if data[:1] != b"\0" else _signed(theirs, data[1:])
    ours.receive(theirs.receive(ours.start()))
    assert ours.secured is not None
    return True


def _signed(side: Handshake, extensions: bytes) -> bytes:
    """A payload whose signature is right, and any bytes behind it."""
    payload = NoiseHandshakePayload(
        identity_key=side._identity.public_key.serialize(),
        identity_sig=side._identity.sign(b"noise-libp2p-static-key:" + side._static_public),
    )
    return bytes(payload.SerializeToString()) + extensions


_KEY: Final = bytes(range(32))


def _noise_transport(data: bytes) -> bool:
    """Any bytes behind three messages that are right."""
    sealer = Sealer(_KEY)
    good = b"".join(sealer.seal(text) for text in (b"", b"one", bytes(70)))
    whole, parted = Opener(_KEY), Opener(_KEY)
    assert [text for piece in pieces(good) for text in parted.receive(piece)] == [b"", b"one", bytes(70)]
    assert whole.receive(good + data)[:2] == [b"", b"one"]
    return len(whole._pending) <= 65537


def _sealed() -> list[bytes]:
    sealer = Sealer(_KEY, sealed=3)
    return [sealer.seal(b"four"), Sealer(_KEY, sealed=3).seal(bytes(300)), b"\0\x10" + bytes(16), b"\xff\xff"]


# --- Yamux ------------------------------------------------------------------------------------------------

_YAMUX_LIMITS: Final = YamuxLimits()


def _yamux(data: bytes, *, client: bool) -> bool:
    """Frames between which the application reads, writes, ends and opens; the input says both."""
    script, now = Script(data), 0.0
    session = Yamux(_YAMUX_LIMITS, client=client, now=now)
    own = [session.open(now) for _ in range(2)] if client else []
    for stream in own:
        session.data(stream, b"")
    while script:
        now += 0.01
        what = script.byte()
        if what < 192:
            session.receive(script.take(1 + what), now)
        else:
            _yamux_application(session, what, now)
        _yamux_bounded(session)
    return True


def _yamux_application(session: Yamux, what: int, now: float) -> None:
    streams = [stream for stream in session.streams.values() if not stream.closed]
    stream = streams[what % len(streams)] if streams else None
    if what >= 250:
        session.on_timer(now + 60 * (what - 250))
    elif what >= 245:
        if session.can_open and not session.remote_gone and not session.local_gone:
            session.data(session.open(now), b"")
    elif stream is None:
        return
    elif what < 210:
        stream.take(1 << (what - 192))
        session.consumed(stream, now)
    elif what < 225:
        session.take(stream)
        if not stream.fin_sent and stream.send_window:
            session.data(stream, bytes(min(stream.send_window, 3)))
    elif what < 235:
        session.finish(stream)
    elif what < 240:
        session.close(stream, now)
    else:
        session.reset(stream)


def _yamux_bounded(session: Yamux) -> None:
    held = sum(stream.buffered for stream in session.streams.values())
    assert held <= len(session.streams) * max(INITIAL_WINDOW, _YAMUX_LIMITS.window_most)
    assert all(stream.buffered == sum(map(len, stream.inbox)) for stream in session.streams.values())
    assert all(stream.receive_window >= 0 <= stream.send_window <= 2**32 - 1 for stream in session.streams.values())
    session.take_outgoing()


def _in_frames(*frames: bytes) -> bytes:
    """Frames as the script of `_yamux` holds them."""
    out = b""
    for frame in frames:
        for start in range(0, len(frame), 192):
            piece = frame[start : start + 192]
            out += bytes((len(piece) - 1,)) + piece
    return out


def _yamux_seeds(number: int) -> list[bytes]:
    return [
        _in_frames(header(DATA, SYN, number, 5) + b"hello", header(DATA, FIN, number, 3) + b"end"),
        _in_frames(header(WINDOW_UPDATE, SYN, number, 0), header(WINDOW_UPDATE, 0, number, 70000)),
        _in_frames(header(PING, SYN, 0, 7), header(PING, ACK, 0, 1), header(GO_AWAY, 0, 0, 0)),
        _in_frames(header(DATA, SYN, number, 400) + bytes(400), header(WINDOW_UPDATE, RST, number, 0)) + b"\xc1\xd2",
        _in_frames(header(WINDOW_UPDATE, ACK, 1, 0), header(DATA, 0, 1, 9) + bytes(9)) + b"\xe8\xea\xf5\xfb\xff",
        bytes((250, 251, 255)) + _in_frames(header(PING, ACK, 0, 0)),
    ]


# --- sessions ---------------------------------------------------------------------------------------------

_ID: Final = b"0123456789abcdef"
_SESSION: Final = SessionLimits()
_KINDS: Final = tuple(Kind)


def _frames(data: bytes) -> bool:
    whole, parted = FrameReader(), FrameReader()
    found = [(kind, value, bytes(body)) for kind, value, body in whole.feed(data)]
    again = [(kind, value, bytes(body)) for piece in pieces(data) for kind, value, body in parted.feed(piece)]
    assert found == again
    assert len(whole._kept) <= HEADER.size + MAX_PAYLOAD
    assert b"".join(encode(kind, value, body) for kind, value, body in found) + whole._kept == data
    return bool(found)


def _attach(data: bytes) -> bool:
    """The first frame of a carrier, from either end."""
    value, body = int.from_bytes(data[:8], "big"), data[8:]
    accepted = False
    for decode in (Attach.decode, AttachedFrame.decode):
        try:
            attach = decode(value, body)
        except ProtocolViolation:
            continue
        accepted = True
        assert len(attach.encode()) <= HEADER.size + len(body)
    return accepted


def _session(data: bytes, *, dialling: bool) -> bool:
    """A session whose carriers bring any frames, between which the application writes, reads and ends."""
    script, now = Script(data), 1.0
    session = Session(_ID, "/x", dialling=dialling, now=now)
    if dialling:
        session.received(session.attach(now), AttachedFrame(1, 0, 1 << 20, False).encode(), now)
    else:
        session.attached_by(Attach(_ID, 1, 0, 1 << 20, True, 0, "/x"), now)
    while script:
        now += 0.3
        what = script.byte()
        if what < 160:
            _session_frame(session, script, what, now)
        else:
            _session_application(session, script, what, now)
        _session_bounded(session)
    return session.over is None


def _session_frame(session: Session, script: Script, what: int, now: float) -> None:
    carrier = session.carriers[what % len(session.carriers)] if session.carriers else 0
    if what >= 150:
        session.received(carrier, script.take(20), now)
        return
    size = script.byte()
    value = script.number() if size & 1 else size
    body = script.take(size) if size < 200 else bytes(300 * (size - 199))
    session.received(carrier, encode(_KINDS[what % len(_KINDS)], value, body), now)


def _session_application(session: Session, script: Script, what: int, now: float) -> None:
    if what < 180 and not session.dialling:
        edge = script.number()
        session.attached_by(Attach(_ID, script.byte(), script.byte(), edge, bool(what & 1), script.byte(), "/x"), now)
    elif what < 180 and not session.crowded:
        session.attach(now)
    elif what < 200:
        session.write(bytes(_SESSION.replay_least // 3), now)
    elif what < 215:
        session.read(1 << 16, now)
    elif what < 235:
        for carrier in session.carriers:
            session.output(carrier, 1 << 18, now)
            session.after_output(carrier)
    elif what < 240:
        session.finish()
    elif what < 250:
        session.lost(session.carriers[0] if session.carriers else 0, "LOST", now)
    else:
        session.tick(now + what - 250)


def _session_bounded(session: Session) -> None:
    incoming, outgoing = session.incoming, session.outgoing
    kept = sum(map(len, incoming._ahead.values()))
    assert kept == incoming._ahead_bytes <= 2 * incoming.window
    assert sorted(incoming._ahead) == sorted(incoming._ahead_order)
    assert len(incoming._ahead) <= _SESSION.ahead
    assert incoming.received <= incoming.edge
    assert 0 <= outgoing.acked <= outgoing.cursor <= outgoing.written
    assert outgoing.written - outgoing.acked <= outgoing.capacity
    assert sum(len(carrier.control) for carrier in session._carriers.values()) <= _SESSION.pongs + 100


def _session_seeds() -> list[bytes]:
    number = struct.Struct(">Q").pack
    data, ack, end, fin = (_KINDS.index(kind) for kind in (Kind.DATA, Kind.ACK, Kind.END, Kind.FIN))
    resume, ping, pong = (_KINDS.index(kind) for kind in (Kind.RESUME, Kind.PING, Kind.PONG))
    return [
        bytes((data, 4)) + b"abcd" + bytes((210, 220)),
        bytes((data, 5)) + number(0) + b"hello" + bytes((data, 5)) + number(5) + b"world" + bytes((210, 220)),
        bytes((185, 220, ack, 9)) + number(4) + number(1 << 20) + b"x",
        bytes((165, 170, end, 0, fin, 0, 220, 255)),
        bytes((162,)) + number(1 << 20) + bytes((2, 0, 1, 220, data, 201, 210)),
        bytes((165, resume, 0, ping, 1)) + number(7) + b"x" + bytes((pong, 1)) + number(1) + b"x",
        bytes((data, 5)) + number(90) + b"later" + bytes((data, 205, 210, 236, 220, 245, 252)),
    ]


def _frame_seeds() -> list[bytes]:
    return [
        encode(Kind.DATA, 0, b"hello"),
        encode(Kind.ACK, 5, bytes(8)) + encode(Kind.FIN, 9),
        Attach(_ID, 1, 0, 1 << 20, True, 0, "/punchbridge/grpc/1.0.0").encode(),
        AttachedFrame(1, 0, 1 << 20, False).encode() + encode(Kind.PING, 1) * 3,
        refuse(SessionRefusal.TOO_MANY, "too many"),
    ]


def _payload_seeds() -> list[bytes]:
    extensions = NoiseHandshakePayload(extensions=NoiseExtensions(stream_muxers=(_YAMUX, "/mplex/6.7.0")))
    key = NoiseHandshakePayload(identity_key=_THEM.public_key.serialize(), identity_sig=bytes(64))
    return [b"\0" + bytes(extensions.SerializeToString()), bytes(key.SerializeToString()), b"\0", b""]


def _message_seeds() -> list[bytes]:
    theirs = Handshake(_THEM, "initiator")
    first = theirs.start()
    second = Handshake(_US, "responder").receive(first)
    return [first, first + second, second]


def _certificate(data: bytes) -> bool:
    return bool(verify_certificate(data, _NOW))


def _signed_key(data: bytes) -> bool:
    assert encode_signed_key(*decode_signed_key(data)) == data
    return True


def _certificate_seeds() -> list[bytes]:
    """The test vectors of the specification."""
    lines = (line.split() for line in _CERTIFICATES.read_text().splitlines() if not line.startswith("#"))
    return [bytes.fromhex(certificate) for _, _, certificate in lines]


def parsers() -> list[Parser]:
    hello = GREETING + line("/noise")
    refusals = GREETING + line("na")
    return [
        Parser("varint", _varint, [b"\0", b"\x7f", b"\x80\x01", b"\xff" * 8 + b"\x7f", b"\x05hello"]),
        Parser("multistream-responder", _responder, [hello, GREETING + line("/a") + line(_YAMUX) + b"behind"]),
        Parser("multistream-initiator", _initiator, [hello + b"x", refusals, refusals + line("/tls/1.0.0")]),
        Parser("noise-responder", _noise_responder, _message_seeds()),
        Parser("noise-initiator", _noise_initiator, _message_seeds()),
        Parser("noise-payload", _noise_payload, _payload_seeds()),
        Parser("noise-transport", _noise_transport, _sealed()),
        Parser("tls-certificate", _certificate, _certificate_seeds()),
        Parser("tls-signed-key", _signed_key, [encode_signed_key(bytes(36), bytes(64)), encode_signed_key(b"", b"")]),
        Parser("yamux-server", lambda data: _yamux(data, client=False), _yamux_seeds(1)),
        Parser("yamux-client", lambda data: _yamux(data, client=True), _yamux_seeds(2)),
        Parser("session-frames", _frames, _frame_seeds()),
        Parser("session-attach", _attach, [frame[HEADER.size - 8 :] for frame in _frame_seeds()]),
        Parser("session-accepting", lambda data: _session(data, dialling=False), _session_seeds()),
        Parser("session-dialling", lambda data: _session(data, dialling=True), _session_seeds()),
    ]
