"""Names to addresses, by the system's resolver. It knows no transport: what follows the name stays as it is."""

from __future__ import annotations

import socket as stdlib

import trio

from punchbridge.addresses import Multiaddr, endpoint_of, with_host
from punchbridge.config import TcpLimits
from punchbridge.errors import Unreachable

__all__ = ["resolve"]


async def resolve(addr: Multiaddr, limits: TcpLimits = TcpLimits()) -> tuple[Multiaddr, ...]:
    """The ip4 and ip6 addresses of a dns, dns4 or dns6 address, what follows it kept; others come back unchanged.

    Asks the system resolver in a thread (so /etc/hosts counts). Raises Unreachable when the name has no address or the
    lookup takes longer than `resolve_timeout`.
    """
    endpoint = endpoint_of(addr)
    if endpoint is None or not endpoint.kind.startswith("dns"):
        return (addr,)
    family = {"dns": stdlib.AF_UNSPEC, "dns4": stdlib.AF_INET, "dns6": stdlib.AF_INET6}[endpoint.kind]
    try:
        with trio.fail_after(limits.resolve_timeout):
            found = await trio.socket.getaddrinfo(endpoint.host, endpoint.port, family, stdlib.SOCK_STREAM)
    except trio.TooSlowError:
        raise Unreachable(f"{endpoint.host}: the name lookup took longer than {limits.resolve_timeout:g} s") from None
    except (OSError, UnicodeError) as problem:
        raise Unreachable(f"{endpoint.host}: {getattr(problem, 'strerror', None) or problem}") from None
    return tuple(dict.fromkeys(with_host(addr, str(name[0])) for _, _, _, _, name in found[: limits.resolved]))
