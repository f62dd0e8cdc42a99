"""Which addresses a dial tries, in which order, and how its failures become one error. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from punchbridge.addresses import (
    Endpoint,
    Multiaddr,
    Proto,
    endpoint_of,
    is_relayed,
    peer_of,
    spoken_endpoint,
    without_peer,
)
from punchbridge.errors import AddressError, BridgeError, DialTimeout, Unreachable
from punchbridge.iana import is_broadcast, kind_of
from punchbridge.identity import PeerId, peer_text

__all__ = ["DialPlan", "dial_endpoint", "expected_peer", "failure"]


class DialPlan:
    """A queue of distinct addresses: direct ones before circuits, IP versions alternating (RFC 8305 section 4), and the
    transports to one host behind each other."""

    def __init__(self, addrs: Iterable[Multiaddr] = (), *, most: int, first: Proto = "tcp") -> None:
        """`first`: the transport that is tried first where there are two."""
        self._most = most
        self._first: Proto = first
        self._seen: set[Multiaddr] = set()
        self._waiting: list[Multiaddr] = []
        self._last: Multiaddr | None = None
        self.skipped = 0
        self.add(addrs)

    def add(self, addrs: Iterable[Multiaddr]) -> None:
        """Queues addresses that were not in this dial yet; beyond `most` they are counted and skipped."""
        for addr in addrs:
            if addr in self._seen:
                continue
            if len(self._seen) >= self._most:
                self.skipped += 1
                continue
            self._seen.add(addr)
            self._waiting.append(addr)
        self._waiting = _ordered(self._waiting, self._first)

    @property
    def waiting(self) -> int:
        """Addresses not handed out yet."""
        return len(self._waiting)

    def next(self) -> Multiaddr | None:
        """The next address to try; None when there is none."""
        self._last = self._waiting.pop(0) if self._waiting else None
        return self._last

    @property
    def beside(self) -> bool:
        """Whether the next address leads to the host of the last one, by another transport."""
        if self._last is None or not self._waiting or is_relayed(self._last) or is_relayed(self._waiting[0]):
            return False
        last, coming = endpoint_of(self._last), endpoint_of(self._waiting[0])
        return last is not None and coming is not None and last.host == coming.host and last.proto != coming.proto


def _ordered(addrs: list[Multiaddr], first: Proto) -> list[Multiaddr]:
    circuits = _paired([addr for addr in addrs if is_relayed(addr)], first)
    direct = _paired([addr for addr in addrs if not is_relayed(addr)], first)
    six = [pair for pair in direct if (e := endpoint_of(pair[0])) is not None and e.kind == "ip6"]
    rest = [pair for pair in direct if pair not in six]
    mixed: list[list[Multiaddr]] = []
    while six or rest:
        mixed += six[:1] + rest[:1]
        del six[:1], rest[:1]
    return [addr for pair in mixed + circuits for addr in pair]


def _paired(addrs: list[Multiaddr], first: Proto) -> list[list[Multiaddr]]:
    """Each address with that of another transport to the same host, at the place of whichever came first."""
    pairs: dict[tuple[str, int], list[Multiaddr]] = {}
    times: Counter[tuple[str, Proto | None]] = Counter()
    for addr in addrs:
        endpoint = endpoint_of(addr)
        host, proto = (str(addr), None) if endpoint is None else (endpoint.host, endpoint.proto)
        pairs.setdefault((host, times[host, proto]), []).append(addr)
        times[host, proto] += 1
    return [sorted(pair, key=lambda addr: _proto(addr) != first) for pair in pairs.values()]


def _proto(addr: Multiaddr) -> Proto | None:
    endpoint = endpoint_of(addr)
    return None if endpoint is None else endpoint.proto


def expected_peer(addr: Multiaddr, expected: PeerId | None) -> PeerId | None:
    """Who must answer at the address. Raises AddressError when the address names another peer than `expected`."""
    named = peer_of(addr)
    if named is not None and expected is not None and named != expected:
        raise AddressError(f"{addr} names another peer than {peer_text(expected)}; use an address of that peer")
    return expected or named


def dial_endpoint(addr: Multiaddr) -> Endpoint:
    """The endpoint that a direct address leads to. Raises AddressError for what can never be dialled.

    Loopback and private IPs are the caller's own choice and allowed here.
    """
    endpoint = spoken_endpoint(addr)
    if endpoint.port == 0:
        raise AddressError(f"{addr} has port 0; name the port the peer listens on")
    if endpoint.kind in ("ip4", "ip6"):
        ip = endpoint.ip
        if kind_of(ip) in ("unspecified", "multicast") or is_broadcast(ip):
            raise AddressError(f"{addr}: {ip} is no host's address; use the peer's own")
    return endpoint


_ADVICE = "is it running, and is the address up to date?"


def failure(who: str, failures: list[tuple[Multiaddr, BridgeError]], skipped: int = 0) -> BridgeError:
    """One error for a whole dial: the only one there was, else one that lists them all.

    Failures that are all of one kind (a refused relay, a wrong peer) keep that kind, because its remedy differs.
    """
    if not failures:
        return Unreachable(f"no address is known for {who}; name one, for example its circuit address at a relay")
    attempts = tuple(_line(addr, error) for addr, error in failures)
    if skipped:
        attempts += (f"{skipped} more addresses were not tried",)
    errors = [error for _, error in failures]
    if not any(isinstance(error, Unreachable) for error in errors) and len({type(error) for error in errors}) == 1:
        return errors[0]
    kind = DialTimeout if all(isinstance(error, DialTimeout) for error in errors) else Unreachable
    return kind(f"{who} cannot be reached: {'; '.join(attempts)}; {_ADVICE}", attempts)


def _line(addr: Multiaddr, error: BridgeError) -> str:
    text = str(error).removeprefix(f"{addr}: ").removeprefix(f"{without_peer(addr)}: ")
    return f"{addr}: {text}" if type(error) is Unreachable else f"{addr}: {error.code}: {text}"
