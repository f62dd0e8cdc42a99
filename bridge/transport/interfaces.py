"""The addresses of this machine's interfaces, to expand a wildcard and to recognise ourselves.

It reads them afresh at each call, since interfaces come and go. It knows nothing of ports and listeners.
"""

from __future__ import annotations

import logging
from ipaddress import ip_address

import ifaddr

from punchbridge.iana import IP, kind_of

__all__ = ["expand", "interface_addresses", "is_local"]

_log = logging.getLogger(__name__)
_last: tuple[IP, ...] = ()


def interface_addresses(version: int | None = None) -> tuple[IP, ...]:
    """All unicast addresses of the interfaces that are up, loopback last, link-local ones left out (no zone ids).

    `version`: 4, 6 or None for both. Asking takes a descriptor: when none is left, what was read last is told again.
    """
    global _last
    try:
        adapters = ifaddr.get_adapters()
    except OSError:
        _log.debug("the interfaces cannot be read; going on with what was read last", exc_info=True)
    else:
        found: dict[IP, None] = {}
        for adapter in adapters:
            for entry in adapter.ips:
                host = entry.ip if isinstance(entry.ip, str) else entry.ip[0]
                ip = ip_address(host.partition("%")[0])
                if kind_of(ip) != "link-local":
                    found[ip] = None
        _last = tuple(sorted(found, key=lambda ip: (kind_of(ip) == "loopback", ip.version)))
    return tuple(ip for ip in _last if version in (None, ip.version))


def expand(ip: IP) -> tuple[IP, ...]:
    """The interface addresses that a listener bound to `ip` answers on: all of its version for 0.0.0.0 and ::."""
    return interface_addresses(ip.version) if kind_of(ip) == "unspecified" else (ip,)


def is_local(ip: IP) -> bool:
    """True when a packet to `ip` does not leave this machine."""
    return kind_of(ip) == "loopback" or ip in interface_addresses(ip.version)
