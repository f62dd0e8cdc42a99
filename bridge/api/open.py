"""The public API for threads and asyncio: `punchbridge.open`, and the Bridge it yields.

Thin: each method checks its arguments here and does its work in the network thread. This is where grpc servers and
channels meet the gateway's sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Unpack

from punchbridge.addresses import Multiaddr
from punchbridge.api.configuration import configured
from punchbridge.api.runtime import NetworkThread
from punchbridge.api.snapshots import ConnectionInfo, Control, Status, open_control
from punchbridge.config import Config, Fields
from punchbridge.errors import BridgeError, ConfigError, DialTimeout
from punchbridge.events import Event
from punchbridge.identity import PeerId, peer_text
from punchbridge.local.gateway import EndpointKey, EndpointUse
from punchbridge.local.sockets import ServerDoor
from punchbridge.local.target import GRPC_PROTOCOL, PathPolicy, check_policy, check_protocol, parse_target
from punchbridge.rpc.channel import ReasonedChannel, open_channel
from punchbridge.rpc.options import Options, channel_options

if TYPE_CHECKING:
    import grpc
    import grpc.aio

    from punchbridge.access.policy import Allow
    from punchbridge.rpc.aio_channel import ReasonedAioChannel

__all__ = ["Bridge", "open_bridge"]


class Bridge:
    """A running bridge, made by `punchbridge.open`. Every method may be called from any thread.

    After the bridge is closed each call raises SwarmStopped, and RPCs on its channels end with UNAVAILABLE.
    """

    def __init__(self, thread: NetworkThread[Control], control: Control) -> None:
        self._thread = thread
        self._control = control
        self._times = control.host.times
        self.peer_id: str = control.peer_id
        """Our peer id, base58."""

    @property
    def addrs(self) -> tuple[str, ...]:
        """Our addresses as of now, circuits included, each ending in /p2p/ID."""
        return self._thread.ask(self._control.addrs)

    # --- servers ------------------------------------------------------------------------------------------

    def serve(
        self,
        server: grpc.Server | grpc.aio.Server,
        protocol: str = GRPC_PROTOCOL,
        *,
        path: PathPolicy = "any",
        allow: Allow | None = None,
    ) -> None:
        """Lets peers reach a grpc server (sync or aio) by streams of `protocol`. Call it before `server.start()`.

        The server needs no change; inside its handlers `punchbridge.peer(context)` tells who calls. It gets a unix
        socket that no other process can open, see `punchbridge.guard` for the strictest form. path: peers on another
        path are refused, and a session of theirs waits for an allowed path when it loses its own. allow: who may call
        beside the peers on this bridge's lists: peer ids and networks, or punchbridge.ANYONE. Raises ConfigError
        when the protocol is served already, when grpc cannot bind, and when a sync server was started before.
        """
        check_protocol(protocol)
        allowed = check_policy(path)
        if _runs(server):
            raise ConfigError(
                "the grpc server runs already and would never take a call of ours; serve() before start()"
            )
        name = self._control.gateway.directory.name("s")
        try:
            bound = server.add_insecure_port(f"unix:{name}")
        except RuntimeError as problem:
            raise ConfigError(f"the grpc server takes no unix socket: {problem}") from None
        if not bound:
            raise ConfigError("the grpc server takes no unix socket; call serve() before server.start()")
        door = ServerDoor(name)
        try:
            self._thread.call(lambda: self._control.gateway.serve(door, protocol, allowed, allow))
        except BaseException:  # refused or interrupted: the door is nobody's yet
            door.close()
            raise

    def unserve(self, protocol: str = GRPC_PROTOCOL) -> None:
        """Takes no more streams of the protocol; RPCs under way go on. Idempotent."""
        self._thread.call(lambda: self._control.gateway.unserve(protocol))

    def invite(self, *, uses: int = 1, expires: float | None = None, label: str = "") -> str:
        """A ticket: a TARGET of this bridge that lets in `uses` peers, each for good. It is a secret until then.

        expires: seconds from now after which it lets in nobody else; None: never. label: a name for whom it lets in.
        Invitations are kept beside the key file: raises ConfigError without one. Call it once the relays have accepted.
        """
        return self._thread.call(lambda: self._control.invite(uses, expires, label))

    def reread_lists(self) -> None:
        """Has the lists of who may call read again now. A bridge follows their files by itself within 2 s."""
        self._thread.ask(self._control.host.admission.reread)

    def labels(self, peer: str | PeerId) -> frozenset[str]:
        """The labels under which a peer stands on the lists of who may call, as of now; by an invitation too.

        It waits for nothing: `punchbridge.authorize(rules, labels=b.labels)` asks it at each call. Raises AddressError.
        """
        return self._control.labels(peer)

    # --- channels -----------------------------------------------------------------------------------------

    def channel(
        self,
        target: str | Multiaddr,
        *,
        protocol: str = GRPC_PROTOCOL,
        path: PathPolicy = "any",
        fresh: bool = False,
        direct_wait: float | None = None,
        wait_direct: float = 0.0,
        options: Options = (),
        compression: grpc.Compression | None = None,
        call_credentials: grpc.CallCredentials | None = None,
    ) -> ReasonedChannel:
        """A grpc channel to a peer: its id (when connected), or its direct or circuit multiaddr ending in /p2p/ID.

        Returns at once; the peer is dialled at the first RPC. A failed dial ends RPCs with UNAVAILABLE and details
        that begin with the error's code; `last_error` has the error itself. The channel's `info` tells the peer and
        its live path.

        path: "any" starts on the best path there is and moves to a direct one that is no slower; with `wait_direct` it
        waits that many seconds for the punch before it starts on a relay. "direct" waits up to `direct_wait` seconds
        (by default `times.direct_wait`) for the punch, fails with its reason and never uses a relay; "relay" never goes
        direct. Channels to the same target with the same options share one stream, unless fresh=True. options: grpc
        channel arguments, over ours. call_credentials: go with each call of the channel, beside those that a call has
        of its own; they end at the peer, see `punchbridge.peer`. Raises AddressError, ConfigError, LimitExceeded.
        """
        endpoint = self._endpoint(target, protocol, path, direct_wait, wait_direct)
        arguments = channel_options(_authority(endpoint), private=fresh, override=options)
        return open_channel(endpoint, arguments, compression, call_credentials)

    def aio_channel(
        self,
        target: str | Multiaddr,
        *,
        protocol: str = GRPC_PROTOCOL,
        path: PathPolicy = "any",
        fresh: bool = False,
        direct_wait: float | None = None,
        wait_direct: float = 0.0,
        options: Options = (),
        compression: grpc.Compression | None = None,
        interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
        call_credentials: grpc.CallCredentials | None = None,
    ) -> ReasonedAioChannel:
        """As `channel`, for asyncio: call it in the event loop that will use the channel."""
        from punchbridge.rpc.aio_channel import open_aio_channel

        endpoint = self._endpoint(target, protocol, path, direct_wait, wait_direct)
        arguments = channel_options(_authority(endpoint), private=fresh, override=options)
        return open_aio_channel(endpoint, arguments, compression, interceptors, call_credentials)

    def _endpoint(
        self, target: str | Multiaddr, protocol: str, path: str, direct_wait: float | None, wait_direct: float
    ) -> EndpointUse:
        direct_wait = self._times.direct_wait if direct_wait is None else direct_wait
        most = self._times.open_path
        if not 0 < direct_wait < most:
            raise ConfigError(f"direct_wait={direct_wait} is not between 0 and {most:g} seconds")
        if not 0 <= wait_direct < most:
            raise ConfigError(f"wait_direct={wait_direct} is not between 0 and {most:g} seconds")
        key = EndpointKey(parse_target(target), check_protocol(protocol), check_policy(path), direct_wait, wait_direct)
        return self._thread.ask(lambda: self._control.gateway.endpoint(key))

    # --- peers --------------------------------------------------------------------------------------------

    def last_error(self, peer: str) -> BridgeError | None:
        """Why the last stream of a channel to this peer could not be opened; None when it could be."""
        target = parse_target(peer)
        return self._thread.ask(lambda: self._control.gateway.last_error(target.peer))

    def connections(self) -> tuple[ConnectionInfo, ...]:
        """All live connections, as of now."""
        return self._thread.ask(self._control.connections)

    def status(self) -> Status:
        """Our addresses, reservations, reachability and connections, as of now."""
        return self._thread.ask(self._control.status)

    def connect(self, target: str | Multiaddr, timeout: float | None = None) -> ConnectionInfo:
        """Dials a peer if it is not connected. timeout: seconds, by default `times.open_path`.

        Raises Unreachable, WrongPeer, RelayRefused, DialTimeout, …"""
        parsed = parse_target(target)
        seconds = self._times.open_path if timeout is None else timeout
        return self._thread.call(lambda: self._control.connect(parsed), seconds)

    def wait_direct(self, peer: str | Multiaddr, timeout: float | None = None) -> ConnectionInfo:
        """The direct connection to a connected peer. timeout: seconds, by default `times.direct_wait`.

        Raises DirectRequired with the verdict of the punch."""
        target, seconds = parse_target(peer), self._direct_wait(timeout)
        return self._thread.call(lambda: self._control.wait_direct(target, seconds))

    def wait_reservation(self, timeout: float = 30.0) -> tuple[str, ...]:
        """Our circuit addresses, as soon as a relay gave us a reservation. Raises DialTimeout."""
        return self._thread.call(lambda: self._control.wait_reservation(timeout))

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Calls back on every event, in the network thread: return fast, call no blocking method. Returns its end.

        What the callback raises is logged.
        """
        return self._thread.ask(lambda: self._control.events.subscribe(callback))

    async def aio_wait_direct(self, peer: str | Multiaddr, timeout: float | None = None) -> ConnectionInfo:  # noqa: ASYNC109
        """As `wait_direct`, without blocking the event loop; cancelling it cancels the wait."""
        target, seconds = parse_target(peer), self._direct_wait(timeout)
        return await asyncio.wrap_future(self._thread.submit(lambda: self._control.wait_direct(target, seconds)))

    async def aio_connect(self, target: str | Multiaddr, timeout: float | None = None) -> ConnectionInfo:  # noqa: ASYNC109
        """As `connect`, without blocking the event loop; cancelling it cancels the dial."""
        parsed = parse_target(target)
        seconds = self._times.open_path if timeout is None else timeout
        future = asyncio.wrap_future(self._thread.submit(lambda: self._control.connect(parsed)))
        try:
            return await asyncio.wait_for(future, seconds)
        except TimeoutError:
            raise DialTimeout(f"no connection to {parsed.text} within {seconds:g} s") from None

    def _direct_wait(self, seconds: float | None) -> float:
        return self._times.direct_wait if seconds is None else seconds

    def close(self) -> None:
        """Closes connections, sockets and the thread; idempotent. The context manager does it."""
        self._thread.stop()


def _runs(server: object) -> bool:
    """Whether a sync grpc server was started. It would bind our socket all the same and never accept there, so that
    every call would hang; nothing public tells. Of a grpc.aio server nothing at all does."""
    stage = getattr(getattr(server, "_state", None), "stage", None)
    return getattr(stage, "name", None) == "STARTED" or getattr(stage, "value", None) == "started"


def _authority(endpoint: EndpointUse) -> str:
    return peer_text(endpoint.key.target.peer)


@contextmanager
def open_bridge(
    config: Config | None = None,
    *,
    events: Callable[[Event], None] | None = None,
    **fields: Unpack[Fields],
) -> Iterator[Bridge]:
    """Opens a bridge, in a network thread of its own, for the length of the with block. Exported as `punchbridge.open`.

    config: a whole configuration, by default `punchbridge.Config()`. fields: fields of it, which win; those used most
    are `key` (path of the key file, made when missing, an Identity, or None for a fresh one), `listen` (multiaddrs; ()
    for none), `relays` (multiaddrs of relays to hold a reservation with), `punch` (False switches punching off) and
    `allow_private` (announce and dial private addresses). events: called on each event in the network thread; it must
    return fast.

    Raises what opening found: IdentityError, AddressError, PortInUse, ConfigError (an unknown field too). Start it
    after any fork.
    """
    given = configured(config, fields)
    thread = NetworkThread(lambda: open_control(given, events), given.times)
    control = thread.start()
    bridge = Bridge(thread, control)
    try:
        yield bridge
    finally:
        bridge.close()
