"""The NAT and firewall behaviours the lab can build, in the words of RFC 4787, and what each must show.

A table of facts: it knows no rule syntax, no namespace and no program.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mapping(StrEnum):
    """How a box picks the external port. EIM: one for all destinations; APDM: one per destination."""

    NONE = "none"
    KEEP = "eim"
    HASH = "eim-hash"
    RANDOM = "apdm-random"
    SEQUENCE = "apdm-sequence"

    @property
    def independent(self) -> bool:
        return self in (Mapping.NONE, Mapping.KEEP, Mapping.HASH)


class Filtering(StrEnum):
    """Who may send in: anybody (EIF), contacted addresses (ADF), contacted address and port (APDF)."""

    EIF = "EIF"
    ADF = "ADF"
    APDF = "APDF"


class Deny(StrEnum):
    """What an unsolicited packet gets: silence, a TCP RST, an ICMP error, or the box's own stack."""

    DROP = "drop"
    RST = "rst"
    ICMP = "icmp"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One side's network. `outer` is the carrier's mapping (CGNAT); `shared` puts both hosts behind one box."""

    name: str
    mapping: Mapping = Mapping.KEEP
    filtering: Filtering = Filtering.APDF
    deny: Deny = Deny.DROP
    outer: Mapping | None = None
    shared: bool = False
    one_lan: bool = False
    hairpin: bool = True
    ipv6_only: bool = False
    udp_blocked: bool = False
    about: str = ""

    @property
    def routed(self) -> bool:
        """The host has a public IPv4 address of its own, or none at all."""
        return self.mapping is Mapping.NONE

    @property
    def independent(self) -> bool:
        """Endpoint-independent mapping all the way out."""
        return self.mapping.independent and (self.outer is None or self.outer.independent)

    @property
    def port_kept(self) -> bool:
        kept = (Mapping.NONE, Mapping.KEEP)
        return self.mapping in kept and (self.outer is None or self.outer in kept)


def _denials(base: Behaviour) -> list[Behaviour]:
    from dataclasses import replace

    return [
        replace(base, name=f"{base.name}-{deny.value}", deny=deny, about=f"{base.about}; unsolicited: {text}")
        for deny, text in ((Deny.RST, "TCP RST"), (Deny.ICMP, "ICMP prohibited"), (Deny.OWN, "the box's own stack"))
    ]


def _table() -> dict[str, Behaviour]:
    home = Behaviour("home", about="home router: kept port, port-restricted")
    firewall = Behaviour("firewall", Mapping.NONE, about="public address behind a stateful firewall")
    hashed = Behaviour("eimhash", Mapping.HASH, about="endpoint-independent, external port differs")
    symmetric = Behaviour("symmetric", Mapping.RANDOM, about="random port per destination")
    rows = [
        Behaviour("public", Mapping.NONE, Filtering.EIF, about="public address, nothing filtered"),
        firewall,
        *_denials(firewall)[:2],
        home,
        *_denials(home),
        hashed,
        *_denials(hashed)[:2],
        Behaviour("fullcone", filtering=Filtering.EIF, about="any outside endpoint may use a mapping"),
        Behaviour("addr-restricted", filtering=Filtering.ADF, about="contacted addresses may use a mapping"),
        symmetric,
        *_denials(symmetric)[:2],
        Behaviour("symmetric-seq", Mapping.SEQUENCE, about="next port per connection"),
        Behaviour("cgnat", outer=Mapping.KEEP, about="home router behind a carrier NAT"),
        Behaviour("cgnat-symmetric", outer=Mapping.RANDOM, about="home router behind a symmetric carrier NAT"),
        Behaviour("same-nat", shared=True, about="two segments behind one NAT that hairpins"),
        Behaviour("same-nat-nohairpin", shared=True, hairpin=False, about="the same, no hairpin"),
        Behaviour("same-lan", shared=True, one_lan=True, about="both hosts on one LAN"),
        Behaviour("ipv6", Mapping.NONE, ipv6_only=True, about="IPv6 only, stateful firewall"),
        Behaviour("home-noudp", udp_blocked=True, about="home router that blocks UDP"),
    ]
    return {row.name: row for row in rows}


BEHAVIOURS = _table()
"""Every behaviour by name."""


def behaviour(name: str) -> Behaviour:
    """Look a name up. Raises ValueError that lists the names."""
    try:
        return BEHAVIOURS[name]
    except KeyError:
        raise ValueError(f"unknown NAT behaviour {name!r}; one of: {', '.join(BEHAVIOURS)}") from None


def check_pair(a: Behaviour, b: Behaviour) -> None:
    """Raises ValueError for a pair that cannot be built: a shared box needs both sides behind it."""
    if (a.shared or b.shared) and a != b:
        raise ValueError(f"{a.name} and {b.name}: hosts that share a box need the same behaviour on both sides")


def direct_expected(a: Behaviour, b: Behaviour, transport: str = "tcp") -> bool:
    """Whether a correct puncher gets the pair direct over `tcp` or `quic` (measured with plain sockets).

    The filters decide in the same way over both. Where one side has another port for each destination, the far side has
    to let in whom it has not written to: over TCP either end connects, and over QUIC the end that dials aims at the
    source of the other's datagrams when it is the other one that has these ports. Nobody guesses ports.
    """
    if transport == "quic" and (a.udp_blocked or b.udp_blocked):
        return False
    if a.shared:
        return a.one_lan or a.hairpin
    if a.ipv6_only != b.ipv6_only:
        return False
    if a.independent and b.independent:
        return True
    if not a.independent and not b.independent:
        return False
    cone = a if a.independent else b
    return cone.filtering in (Filtering.EIF, Filtering.ADF)
