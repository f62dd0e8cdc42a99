"""Which transports are not there, and why: switched off, or without their engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Final

from punchbridge.addresses import Multiaddr, transport_of
from punchbridge.config import Transports
from punchbridge.errors import AddressError

__all__ = ["absent", "check_present", "present"]

_OFF: Final = "QUIC is switched off here (--no-quic, transports.quic)"
_ENGINE: Final = "punchbridge_quic"
_ADVICE: Final = "install punchbridge[quic], or run scripts/setup-env in a checkout with cargo"


def absent(transports: Transports) -> Mapping[str, str]:
    """Why each transport that is not there is not, by the name that `transport_of` gives.

    Of those that are switched on the engine is loaded; of the others nothing is.
    """
    if not transports.quic:
        return {"quic-v1": _OFF}
    try:
        import_module(_ENGINE)
    except ModuleNotFoundError:
        return {"quic-v1": f"the QUIC engine (punchbridge-quic) is not installed; {_ADVICE}"}
    except ImportError as problem:
        return {"quic-v1": f"the QUIC engine (punchbridge-quic) cannot be loaded ({problem}); {_ADVICE}"}
    return {}


def check_present(addr: Multiaddr, missing: Mapping[str, str]) -> None:
    """Raises AddressError when the address leads first by a transport that is not there. `missing`: see `absent`."""
    why = missing.get(transport_of(addr) or "")
    if why is not None:
        raise AddressError(f"{addr}: {why}; or use a TCP address")


def present(addrs: Sequence[Multiaddr], missing: Mapping[str, str]) -> tuple[Multiaddr, ...]:
    """Those of the addresses whose transport is there."""
    return tuple(addr for addr in addrs if transport_of(addr) not in missing)
