"""Sessions over libp2p streams: the I/O shell of `punchbridge.sessions`, and who finds the next carrier.

`SessionService` accepts and opens sessions, `SessionStream` is one as its user sees it, `carrier` joins one libp2p
stream to it, `keeper` moves the dialling end between connections.
"""

from punchbridge.session.service import SESSION_PROTOCOL, SessionService
from punchbridge.session.stream import SessionStream

__all__ = ["SESSION_PROTOCOL", "SessionService", "SessionStream"]
