"""What a peer's refusal of a session means to whoever wanted to open it. Pure: a session in, an error out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from punchbridge.errors import BridgeError, DirectRequired, LimitExceeded, NegotiationFailed, NotAllowed
from punchbridge.identity import PeerId, peer_text
from punchbridge.sessions import SessionRefusal
from punchbridge.verdict import Code, Verdict

if TYPE_CHECKING:
    from punchbridge.session.live import LiveSession

__all__ = ["why_not"]


def why_not(session: LiveSession, service: str, me: PeerId) -> BridgeError:
    """Why a session for `service` could not be opened, as the error that its opener gets. me: our own peer id."""
    over = session.machine.over
    if over is not None and over.code == SessionRefusal.PATH_NOT_ALLOWED.name:
        return DirectRequired(
            f"{peer_text(session.peer)} does not take {service} on this path", Verdict(Code.PATH_NOT_ALLOWED)
        )
    if over is not None and over.code == SessionRefusal.TOO_MANY.name:
        advice = "close some, or spread them: a second bridge (or `punchbridge forward`) is another peer"
        return LimitExceeded(f"{peer_text(session.peer)} holds as many sessions of ours as it takes; {advice}")
    if isinstance(session.problem, NotAllowed) or (over is not None and over.code == SessionRefusal.NOT_ALLOWED.name):
        return NotAllowed(
            f"{peer_text(session.peer)} does not let this peer in; its owner has to allow {peer_text(me)}, or to "
            "give an invitation"
        )
    if over is not None:
        text = over.text or over.code
        return NegotiationFailed(f"{peer_text(session.peer)} does not serve {service}: {text}")
    return session.problem or NegotiationFailed(f"{peer_text(session.peer)} did not answer for {service}")
