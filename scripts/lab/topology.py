"""Who is connected to whom, with which addresses: the plan of one lab as plain data.

Pure: it makes no namespace and runs no command. The lab's internet is 11.0.0.0/8 and an unallocated part of
2000::/3, because peers refuse to punch towards documentation ranges; they exist in namespaces only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lab import rules
from lab.behaviours import Behaviour, Filtering, check_pair

SIDES = ("a", "b")
RELAY4 = ("11.0.0.10", "11.0.0.20")
RELAY6 = ("2b00:11::10", "2b00:11::20")
"""2b00::/16 is global unicast that IANA has given to nobody."""


@dataclass(frozen=True, slots=True)
class Host:
    """One end host. `public` is what the outside sees of it: its NAT's outermost address, or its own."""

    name: str
    namespace: str
    address: str | None
    address6: str | None
    gateway: str | None
    gateway6: str | None
    public: str | None
    box: str
    port_device: str


@dataclass(frozen=True, slots=True)
class Link:
    """A cable between two devices. `wire` names the delay that applies to it, None for a short cable."""

    left: tuple[str, str]
    right: tuple[str, str]
    wire: str | None = None


@dataclass(slots=True)
class Plan:
    """The whole lab; node keys are short names (`router`, `hosta`, ...) without the run's prefix."""

    nodes: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    config: dict[str, list[str]] = field(default_factory=dict)
    rulesets: dict[str, str] = field(default_factory=dict)
    boxes: dict[str, list[str]] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    bridges: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)

    def node(self, name: str) -> None:
        self.nodes.append(name)
        self.config[name] = ["link set dev lo up"]

    def device(self, node: str, device: str, *addresses: str) -> None:
        for address in addresses:
            flag = " nodad" if ":" in address else ""
            self.config[node].append(f"address add {address} dev {device}{flag}")
        self.config[node].append(f"link set dev {device} up")

    def route(self, node: str, target: str, via: str) -> None:
        if target == "default":
            target = "::/0" if ":" in via else "0.0.0.0/0"
        self.config[node].append(f"route add {target} via {via}")

    def devices(self) -> Iterator[tuple[str, str]]:
        for link in self.links:
            yield link.left
            yield link.right


def plan(a: Behaviour, b: Behaviour, *, ipv6: bool) -> Plan:
    """Lay out the lab for listener side `a` and dialer side `b`. Raises ValueError for an impossible pair."""
    check_pair(a, b)
    made = Plan()
    ipv6 = ipv6 or a.ipv6_only or b.ipv6_only
    sides = SIDES[:1] if a.shared else SIDES
    for name in ("router", "relay", "hosta", "hostb"):
        made.node(name)
    made.links.append(Link(("router", "torelay"), ("relay", "eth0"), "relay"))
    made.device("router", "torelay", "11.0.0.1/24", *(["2b00:11::1/64"] if ipv6 else []))
    relay6 = [f"{address}/64" for address in RELAY6] if ipv6 else []
    made.device("relay", "eth0", *(f"{address}/24" for address in RELAY4), *relay6)
    made.route("relay", "default", "11.0.0.1")
    if ipv6:
        made.route("relay", "default", "2b00:11::1")
    made.rulesets["router"] = rules.router_rules(["relay", *sides])
    made.hosts["relay"] = Host(
        "relay", "relay", RELAY4[0], RELAY6[0] if ipv6 else None, "11.0.0.1", "2b00:11::1" if ipv6 else None,
        RELAY4[0], "router", "torelay",
    )  # fmt: skip
    for side, what in zip(sides, (a, b), strict=False):
        _site(made, side, what, ipv6=ipv6 and what.outer is None)
    for side in SIDES:
        made.rulesets[f"host{side}"] = rules.host_rules(RELAY4, RELAY6 if ipv6 else ())
    return made


def _site(made: Plan, side: str, what: Behaviour, *, ipv6: bool) -> None:
    """One access network: the router's link, the carrier's box if any, the home box, its LAN or LANs."""
    number = SIDES.index(side) + 1
    net = f"11.{number}.0"
    box = f"nat{side}"
    made.node(box)
    made.device("router", f"to{side}", f"{net}.1/24", *([f"2b00:11:{number}::1/64"] if ipv6 else []))
    outside, gateway = f"{net}.2", f"{net}.1"
    if what.outer is not None:
        outside, gateway = _carrier(made, side, what)
    else:
        made.links.append(Link(("router", f"to{side}"), (box, "wan"), side))
    made.device(box, "wan", f"{outside}/24", *([f"2b00:11:{number}::2/64"] if ipv6 else []))
    made.route(box, "default", gateway)
    if ipv6:
        made.route(box, "default", f"2b00:11:{number}::1")
        made.route("router", f"2b00:11:{number}:100::/56", f"2b00:11:{number}::2")
    if what.routed and not what.ipv6_only:
        made.route("router", f"11.{number}.1.0/24", f"{net}.2")
    made.boxes[side] = [box] if what.outer is None else [box, f"cgn{side}"]
    lans = _lans(side, what)
    if what.one_lan:
        made.bridges.append((box, "lan", tuple(f"p{host}" for host, _ in lans)))
        made.device(box, "lan", f"{lans[0][1]}.1/24", *([f"2b00:11:{number}:100::1/64"] if ipv6 else []))
    for index, (host_side, lan) in enumerate(lans):
        _host(made, host_side, what, box, lan, index if not what.one_lan else 0, number, ipv6=ipv6)
    inside = () if what.routed else tuple(dict.fromkeys(f"{lan}.0/24" for _, lan in lans))
    made.rulesets[box] = rules.box_rules(
        rules.Box(
            outside, inside, what.mapping, what.filtering, what.deny, what.shared and what.hairpin, what.udp_blocked
        )
    )


def _lans(side: str, what: Behaviour) -> list[tuple[str, str]]:
    """(host side, first three octets) of each host behind this box."""
    if what.shared:
        return [("a", "10.1.0"), ("b", "10.1.0" if what.one_lan else "10.2.0")]
    if what.routed:
        return [(side, f"11.{SIDES.index(side) + 1}.1")]
    return [(side, "10.1.0" if side == "a" else "192.168.2")]


def _carrier(made: Plan, side: str, what: Behaviour) -> tuple[str, str]:
    """The carrier's NAT; returns the home box's WAN address and gateway."""
    number = SIDES.index(side) + 1
    node, net = f"cgn{side}", f"100.64.{number}"
    made.node(node)
    made.links.append(Link(("router", f"to{side}"), (node, "wan"), side))
    made.links.append(Link((node, "lan"), (f"nat{side}", "wan")))
    made.device(node, "wan", f"11.{number}.0.2/24")
    made.device(node, "lan", f"{net}.1/24")
    made.route(node, "default", f"11.{number}.0.1")
    assert what.outer is not None
    carrier = rules.Box(
        f"11.{number}.0.2", (f"{net}.0/24",), what.outer, Filtering.APDF, what.deny, False, what.udp_blocked
    )
    made.rulesets[node] = rules.box_rules(carrier)
    return f"{net}.2", f"{net}.1"


def _host(made: Plan, side: str, what: Behaviour, box: str, lan: str, index: int, number: int, *, ipv6: bool) -> None:
    node = f"host{side}"
    last = 20 if what.one_lan and side == "b" else 10
    net6 = f"2b00:11:{number}:{0x100 + index:x}:"
    port = f"p{side}" if what.one_lan else ("lan" if index == 0 else f"lan{index + 1}")
    made.links.append(Link((box, port), (node, "eth0")))
    own, own6 = f"{lan}.{last}", f"{net6}:{last}" if ipv6 else None
    if what.ipv6_only:
        made.device(node, "eth0", f"{own6}/64")
        made.device(box, port, f"{net6}:1/64")
    else:
        made.device(node, "eth0", f"{own}/24", *([f"{own6}/64"] if ipv6 else []))
        made.route(node, "default", f"{lan}.1")
        if not what.one_lan:
            made.device(box, port, f"{lan}.1/24", *([f"{net6}:1/64"] if ipv6 else []))
    if ipv6:
        made.route(node, "default", f"{net6}:1")
    public: str | None = own if what.routed else f"11.{number}.0.2"
    made.hosts[side] = Host(
        side, node, None if what.ipv6_only else own, own6, None if what.ipv6_only else f"{lan}.1",
        f"{net6}:1" if ipv6 else None, None if what.ipv6_only else public, box, port,
    )  # fmt: skip
