"""Every error the library raises, sorted by whose fault it is.

`LocalError` is the caller's fault (a bad argument, a closed swarm, a full local table), `RemoteError` is the
other side's fault (a protocol violation, a refusal, a reset). Each carries a `code`: the same word appears in
the event, the log line, the exit text and the docs. This module knows no protocol and no socket.
"""

from __future__ import annotations

from typing import ClassVar

from punchbridge.verdict import Verdict


class BridgeError(Exception):
    """Base of all our errors. `code` is stable API; the text says what was seen and what to do."""

    code: ClassVar[str] = "ERROR"


class LocalError(BridgeError):
    """The caller asked for something that cannot be done here."""

    code = "LOCAL"


class RemoteError(BridgeError):
    """The other side broke a rule, refused or vanished."""

    code = "REMOTE"


class ConfigError(LocalError):
    """An option or a configuration value is unusable."""

    code = "CONFIG"


class AddressError(ConfigError):
    """A multiaddr or peer id is malformed, or of a kind that this call cannot use."""

    code = "BAD_ADDRESS"


class TicketError(AddressError):
    """A ticket cannot be read or made; the text says why, and never what the ticket holds."""

    code = "BAD_TICKET"


class AccessFileError(ConfigError):
    """The file of those who may call cannot be read or written: malformed, not private, or locked."""

    code = "BAD_ACCESS_FILE"


class IdentityError(LocalError):
    """The identity key file cannot be used: unreadable, malformed, or open to other users."""

    code = "BAD_KEY"


class PortInUse(LocalError):
    """Another program holds the port that was asked for."""

    code = "PORT_IN_USE"


class LimitExceeded(LocalError):
    """A local bound of the configuration was reached; retry later or raise the bound."""

    code = "LIMIT"


class SwarmStopped(LocalError):
    """The swarm stopped before the command ended."""

    code = "STOPPED"


class ReplacedBySameKey(LocalError):
    """Another program runs with the same key, and has the reservation at this relay now; that one is told
    `SAME_KEY_ELSEWHERE` (`key.shared`). This one keeps none there until it is started again or its network changes.
    Give each program a key of its own (`--key`), or stop one of the two.
    """

    code = "REPLACED_BY_SAME_KEY"


class NotBridged(LocalError):
    """The RPC did not come through the bridge, so no peer id stands behind it."""

    code = "NOT_BRIDGED"


class ServerDown(LocalError):
    """The program behind `expose` or `serve` takes no connection; the peer's stream was reset."""

    code = "SERVER_DOWN"


class NotAllowed(BridgeError):
    """The side that was called does not admit the caller: it is on no list there, or was struck out."""

    code = "NOT_ALLOWED"


class Unreachable(BridgeError):
    """No address of the peer answered. `attempts` holds one line for each address tried."""

    code = "UNREACHABLE"

    def __init__(self, message: str, attempts: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.attempts = attempts


class DialTimeout(Unreachable):
    """The deadline passed before the connection stood."""

    code = "TIMEOUT"


class DirectRequired(BridgeError):
    """Only a relayed path exists although a direct one was required. `verdict` says why: `verdict.code`, `.seen`, …

    The verdict is the value that was made where the failure was seen. `what` is the clause that the text begins with;
    the verdict's code and message follow it.
    """

    code = "RELAYED"

    def __init__(self, what: str, verdict: Verdict) -> None:
        super().__init__(f"{what}: {verdict.code.value}: {verdict.message}")
        self.verdict = verdict


class ProtocolViolation(RemoteError):
    """The bytes received break the protocol; the connection or stream they came on is closed."""

    code = "PROTOCOL"


class AuthenticationFailed(RemoteError):
    """The Noise handshake failed: bad signature, bad key, or a decryption error."""

    code = "AUTHENTICATION"


class WrongPeer(AuthenticationFailed):
    """The peer proved another identity than the one that was dialled."""

    code = "WRONG_PEER"


class NegotiationFailed(RemoteError):
    """The other side supports none of the protocols proposed."""

    code = "UNSUPPORTED"


class StreamReset(RemoteError):
    """The stream was reset: by the peer, or because its connection died. Never a clean end of stream."""

    code = "RESET"


class ConnectionLost(StreamReset):
    """The whole connection below the stream is gone."""

    code = "CONNECTION_LOST"


class RelayRefused(RemoteError):
    """A relay answered with a status other than OK. `status` is the name in the circuit v2 status table."""

    code = "RELAY_REFUSED"

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status
