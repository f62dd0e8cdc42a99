"""TCP sockets: listening and dialling from one port, socket options, names, and the stream over a socket.

Both sides set SO_REUSEADDR and SO_REUSEPORT, so that a dial can leave from the listening port and a punch keeps the
mapping that peers observed. Knows no peer and no security.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket as stdlib
import struct
from collections.abc import Callable, Iterator
from operator import index

import trio

from punchbridge.addresses import Endpoint, Multiaddr, spoken_endpoint, tcp_addr
from punchbridge.config import TcpLimits
from punchbridge.errors import AddressError, DialTimeout, PortInUse, Unreachable
from punchbridge.reach.gauge import PathCounts
from punchbridge.tasks.descriptors import room_above
from punchbridge.transport.raw import BrokenConnection, BrokenStream, Buffer
from punchbridge.transport.turn import Turn

_KEEPALIVE_IDLE = 30
_KEEPALIVE_INTERVAL = 10
_KEEPALIVE_COUNT = 3
_BYTES_RECEIVED = 128
_TCP_INFO_SIZE = _BYTES_RECEIVED + 8
"""`tcpi_bytes_received`, 8 bytes of struct tcp_info (linux/tcp.h, since Linux 4.1)."""
_SENT_AGAIN, _ACKNOWLEDGED, _DATA_SENT, _SENT_TWICE = 100, 120, 156, 216
_COUNTS_SIZE = _SENT_TWICE + 4
"""`tcpi_total_retrans`, `tcpi_bytes_acked`, `tcpi_data_segs_out` and `tcpi_dsack_dups`: 8 bytes of the second, 4 of the
others, in the same struct, all of them since Linux 4.19."""
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
_RESETS = {errno.ECONNRESET, errno.EPIPE}


def numeric(addr: Multiaddr) -> Endpoint:
    """The TCP endpoint of an ip4 or ip6 address. Raises AddressError for any other."""
    endpoint = spoken_endpoint(addr)
    if endpoint.kind not in ("ip4", "ip6") or endpoint.proto != "tcp":
        raise AddressError(f"{addr} is not an IP and TCP address, such as /ip4/192.0.2.1/tcp/4001")
    return endpoint


def _family(endpoint: Endpoint) -> int:
    return stdlib.AF_INET if endpoint.kind == "ip4" else stdlib.AF_INET6


def _shared_socket(family: int, host: str, port: int) -> trio.socket.SocketType:
    """A socket bound to a port that our other sockets use too. Raises OSError."""
    sock = stdlib.socket(family, stdlib.SOCK_STREAM)
    try:
        sock.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 1)
        sock.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEPORT, 1)
        if family == stdlib.AF_INET6:
            sock.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        return trio.socket.from_stdlib_socket(sock)
    except BaseException:  # whatever it was, nobody else knows the socket
        sock.close()
        raise


def listen_socket(addr: Multiaddr, limits: TcpLimits = TcpLimits()) -> trio.socket.SocketType:
    """A listening socket on an ip4 or ip6 TCP address; port 0 picks one.

    IPv6 sockets take no IPv4. Raises PortInUse when another user's program holds the port, AddressError for an address
    that is not ours.
    """
    endpoint = numeric(addr)
    family = _family(endpoint)
    try:
        if endpoint.port:
            # With SO_REUSEPORT a second program of ours would share the port in silence: ask without it first.
            with contextlib.closing(stdlib.socket(family, stdlib.SOCK_STREAM)) as probe:
                probe.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 1)
                if family == stdlib.AF_INET6:
                    probe.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY, 1)
                probe.bind((endpoint.host, endpoint.port))
        sock = _shared_socket(family, endpoint.host, endpoint.port)
    except OSError as problem:
        raise _bind_error(addr, problem) from None
    try:
        sock.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_SYNCNT, limits.syn_ack_retries)
        sock.listen(limits.backlog)
    except OSError as problem:
        sock.close()
        raise _bind_error(addr, problem) from None
    return sock


def _bind_error(addr: Multiaddr, problem: OSError) -> PortInUse | AddressError:
    if problem.errno == errno.EADDRINUSE:
        return PortInUse(f"{addr}: another program holds this port; stop it, or choose another port")
    denied = problem.errno in (errno.EACCES, errno.EPERM)
    advice = "this user may bind higher ports only, above 1023" if denied else "use an address of this machine"
    return AddressError(f"cannot listen on {addr}: {problem.strerror}; {advice}")


def bound_socket(family: int, local_ip: str, local_port: int) -> trio.socket.SocketType:
    """A socket ready to dial from the listening port. Raises OSError; the caller closes the socket."""
    return _shared_socket(family, local_ip, local_port)


class CannotBind(OSError):
    """A dial that got no socket at the port it was to leave from."""


async def connect(
    endpoint_addr: Multiaddr, limits: TcpLimits = TcpLimits(), *, source: tuple[str, int] | None = None
) -> TcpStream:
    """As `open_stream`, for an address. Raises Unreachable with the system's reason, DialTimeout, or AddressError."""
    try:
        return await open_stream(numeric(endpoint_addr), limits, source=source)
    except OSError as problem:
        raise unreachable(endpoint_addr, problem) from None


def unreachable(addr: Multiaddr, problem: OSError) -> Unreachable:
    """What a failed connect is to the rooms above."""
    if isinstance(problem, CannotBind) or not problem.errno:
        return Unreachable(f"{addr}: {problem.strerror or problem}")
    return Unreachable(f"{addr}: {os.strerror(problem.errno)}")  # trio's own text repeats the address


async def open_stream(
    endpoint: Endpoint, limits: TcpLimits = TcpLimits(), *, source: tuple[str, int] | None
) -> TcpStream:
    """One TCP connection to a numeric endpoint within `connect_timeout`, from `source` (IP, port) when given.

    Raises OSError as the system does (CannotBind before anything was sent), or DialTimeout. Cancelling leaves no socket
    behind.
    """
    family = _family(endpoint)
    try:
        sock = _shared_socket(family, *source) if source else trio.socket.socket(family, stdlib.SOCK_STREAM)
    except OSError as problem:
        raise CannotBind(problem.errno, f"cannot dial from port {source}: {problem.strerror}") from None
    with _closing_on_failure(sock):
        try:
            with trio.fail_after(limits.connect_timeout):
                await sock.connect((endpoint.host, endpoint.port))
            return TcpStream(sock, limits)
        except trio.TooSlowError:
            addr = tcp_addr(endpoint.host, endpoint.port)
            raise DialTimeout(f"{addr}: no answer within {limits.connect_timeout:g} s") from None


@contextlib.contextmanager
def _closing_on_failure(sock: trio.socket.SocketType) -> Iterator[None]:
    try:
        yield
    except BaseException:  # cancellation too: nobody else knows the socket
        sock.close()
        raise


def tune(sock: trio.socket.SocketType, limits: TcpLimits) -> None:
    """NODELAY, keepalive, an end for data nobody acknowledges (RFC 5482), and little in the kernel that waits."""
    sock.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY, 1)
    sock.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NOTSENT_LOWAT, limits.unsent)
    sock.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE, 1)
    sock.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_KEEPIDLE, _KEEPALIVE_IDLE)
    sock.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL)
    sock.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_KEEPCNT, _KEEPALIVE_COUNT)
    sock.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_USER_TIMEOUT, round(limits.user_timeout * 1000))


class TcpStream(trio.abc.HalfCloseableStream):
    """A connected TCP socket as a `RawStream`, and as a trio stream.

    Takes over the socket: use `.socket` from then on. Raises BrokenStream on a reset, BrokenConnection when the
    connection died otherwise.
    """

    reads_to_end = True

    def __init__(self, sock: trio.socket.SocketType, limits: TcpLimits = TcpLimits()) -> None:
        try:
            self.local = tcp_addr(*sock.getsockname()[:2])
            self.remote = tcp_addr(*sock.getpeername()[:2])
            tune(sock, limits)
        except OSError as problem:
            sock.close()
            raise _broken(problem) from None
        # The standard socket serves the non-blocking calls, trio's view of the same one everything else.
        self._raw = stdlib.socket(fileno=sock.detach())
        self._fd = self._raw.fileno()
        self.socket = trio.socket.from_stdlib_socket(self._raw)
        self.unproven = False
        """Nothing was heard on it yet: it may be half of a connection only (a punch), and closing it drops it."""
        self._closed = False
        self._eof_sent = False
        self._sending = Turn("another task is sending on this socket")
        self._receiving = Turn("another task is reading this socket")
        self._drained = False

    async def receive_some(self, max_bytes: int | None = 262144) -> bytes:
        """See RawStream."""
        size = 262144 if max_bytes is None else index(max_bytes)
        if size < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving:
            if self._drained:
                data = None
            else:
                await trio.lowlevel.checkpoint_if_cancelled()
                data = self.receive_nowait(size)
                if data is not None:
                    await trio.lowlevel.cancel_shielded_checkpoint()
            while data is None:
                self._check_open()
                await trio.lowlevel.wait_readable(self._fd)
                data = self.receive_nowait(size)
        return data

    def notify(self, arrived: Callable[[], None] | None) -> bool:
        """See RawStream: whoever reads a socket waits for it."""
        return False

    def receive_nowait(self, max_bytes: int = 262144) -> bytes | None:
        """See RawStream."""
        self._check_open()
        try:
            data = self._raw.recv(max_bytes)
        except BlockingIOError:
            self._drained = True
            return None
        except OSError as problem:
            raise _broken(problem) from None
        # A short read emptied the socket: the next one may wait first and spare a failing system call.
        self._drained = 0 < len(data) < max_bytes
        return data

    def send_nowait(self, data: Buffer) -> int:
        """See RawStream."""
        self._check_open()
        if self._eof_sent:
            raise trio.ClosedResourceError("our half was ended")
        try:
            return self._raw.send(data)
        except BlockingIOError:
            return 0
        except OSError as problem:
            raise _broken(problem) from None

    async def send_all(self, data: Buffer) -> None:
        """See RawStream."""
        with self._sending:
            await trio.lowlevel.checkpoint_if_cancelled()
            with memoryview(data) as view:
                sent = self.send_nowait(view) if view else 0
                if sent == len(view):
                    self._check_open()
                    await trio.lowlevel.cancel_shielded_checkpoint()
                while sent < len(view):
                    self._check_open()
                    await trio.lowlevel.wait_writable(self._fd)
                    with view[sent:] as rest:
                        sent += self.send_nowait(rest)

    async def wait_send_all_might_not_block(self) -> None:
        """Returns once the socket takes more bytes."""
        with self._sending:
            self._check_open()
            await trio.lowlevel.wait_writable(self._fd)

    async def send_eof(self) -> None:
        """See RawStream."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_open()
            if not self._eof_sent:
                self._eof_sent = True
                try:
                    self._raw.shutdown(stdlib.SHUT_WR)
                except OSError as problem:
                    raise _broken(problem) from None

    async def aclose(self) -> None:
        """See RawStream."""
        self.abort()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """See RawStream. What the kernel has queued still leaves, unless the stream is `unproven`."""
        if not self._closed:
            self._closed = True
            if self.unproven:
                self.socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, _RESET_AT_CLOSE)
            self.socket.close()

    def prove(self) -> None:
        """See RawStream."""
        self.unproven = False

    def counts(self) -> PathCounts | None:
        """See RawStream. A segment that was sent again although the first one had arrived was not lost."""
        try:
            info = self._raw.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_INFO, _COUNTS_SIZE)
        except OSError:
            return None
        if len(info) < _COUNTS_SIZE:
            return None
        again, packets, twice = (struct.unpack_from("=I", info, at)[0] for at in (_SENT_AGAIN, _DATA_SENT, _SENT_TWICE))
        (delivered,) = struct.unpack_from("=Q", info, _ACKNOWLEDGED)
        return PathCounts(packets, max(0, again - twice), delivered)

    def discard(self) -> None:
        """Closes a connection whose peer is silent: what is queued is dropped, and the kernel keeps nothing.

        Without it the kernel would go on resending to nobody for minutes and hold the 4-tuple, so that a punch to the
        same endpoint fails with EADDRNOTAVAIL.
        """
        self.unproven = True
        self.abort()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this socket was closed here")


class AcceptedSocket:
    """A socket as accept(2) gave it, of which nothing was made yet: turning it away costs no more than closing it.

    `host`: the IP that it comes from. `take` gives its stream; until then the socket is this object's to close.
    """

    def __init__(self, sock: trio.socket.SocketType, host: str, limits: TcpLimits) -> None:
        self.host = host
        self._socket = sock
        self._limits = limits
        self._stream: TcpStream | None = None

    def take(self) -> TcpStream:
        """The stream over the socket, the same one each time. Raises as `TcpStream`; the socket is closed then."""
        if self._stream is None:
            self._stream = TcpStream(self._socket, self._limits)
            self._socket = self._stream.socket
        return self._stream

    @property
    def room(self) -> int | None:
        """See `base.Incoming`."""
        return room_above(self._socket.fileno())

    @property
    def silent(self) -> bool:
        """Whether the kernel has never had a byte of the peer's for this socket; False where it does not tell."""
        try:
            info = self._socket.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_INFO, _TCP_INFO_SIZE)
        except OSError:
            return False
        return len(info) == _TCP_INFO_SIZE and not any(info[_BYTES_RECEIVED:])

    def discard(self) -> None:
        """Turns it away by a reset. The kernel keeps nothing of it, as it would of a close in good order."""
        if self._stream is not None:
            self._stream.discard()
            return
        with contextlib.suppress(OSError):
            self._socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, _RESET_AT_CLOSE)
        self._socket.close()


def _broken(problem: OSError) -> BrokenStream | BrokenConnection:
    if problem.errno in _RESETS:
        return BrokenStream(f"the TCP connection was reset ({problem.strerror})")
    return BrokenConnection(f"the TCP connection died ({problem.strerror})")
