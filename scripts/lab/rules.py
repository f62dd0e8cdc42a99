"""nftables rulesets of the boxes and hosts, as text. Knows addresses and behaviours, runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.behaviours import Deny, Filtering, Mapping
from lab.limits import HASH_BASE, MAP_TIMEOUT, RULE_PORTS, SEQUENCE_BASE

_ND = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert, nd-router-solicit } accept"


@dataclass(frozen=True, slots=True)
class Box:
    """What one router does: its WAN address, its inside nets (empty without NAT), mapping, filtering, denial."""

    wan: str
    inside: tuple[str, ...]
    mapping: Mapping
    filtering: Filtering
    deny: Deny
    hairpin: bool
    udp_blocked: bool


def _denial(deny: Deny, *, forwarded: bool) -> list[str]:
    """In the forward path the box's own stack cannot answer, so `own` drops there."""
    if deny is Deny.RST:
        return ["meta l4proto tcp reject with tcp reset", "drop"]
    if deny is Deny.ICMP:
        return ["reject with icmpx admin-prohibited"]
    if deny is Deny.OWN and not forwarded:
        return ["accept"]
    return ["drop"]


def _filter(box: Box) -> list[str]:
    open_to_all = box.mapping is Mapping.NONE and box.filtering is Filtering.EIF
    forward = ["jump fault"]
    if box.udp_blocked:
        forward.append("meta l4proto udp drop")
    forward += [
        "ct state established,related accept",
        'iifname "lan*" oifname "wan" accept',
        "ct status dnat accept",
    ]
    if open_to_all:
        forward.append('iifname "wan" accept')
    else:
        forward += [f'iifname "wan" {rule}' for rule in _denial(box.deny, forwarded=True)]
    reached = _denial(box.deny, forwarded=False)
    inputs = [f'iifname "lan*" ip daddr {box.wan} {rule}' for rule in reached] if box.inside else []
    inputs += ['iifname != "wan" accept', "ct state established,related accept", _ND, *reached]
    return [
        "table inet filter {",
        "  chain fault { }",
        "  chain forward { type filter hook forward priority filter; policy drop;",
        *(f"    {rule}" for rule in forward),
        "  }",
        "  chain input { type filter hook input priority filter; policy accept;",
        *(f"    {rule}" for rule in inputs),
        "  }",
        "}",
    ]


def _source_nat(box: Box, inside: str) -> list[str]:
    match = f'oifname "wan" ip saddr {inside}'
    both = f"{match} meta l4proto {{ tcp, udp }}"
    # An `offset` after jhash or numgen is byte-swapped as a port; a map of constants is not.
    if box.mapping is Mapping.HASH:
        ports = ", ".join(f"{n} : {HASH_BASE + n}" for n in range(RULE_PORTS))
        hashed = f"jhash ip saddr . th sport mod {RULE_PORTS} seed 7 map {{ {ports} }}"
        return [f"{both} snat ip to {box.wan} : {hashed}", f"{match} masquerade"]
    if box.mapping is Mapping.RANDOM:
        return [f"{match} masquerade random,fully-random"]
    if box.mapping is Mapping.SEQUENCE:
        ports = ", ".join(f"{n} : {SEQUENCE_BASE + n}" for n in range(RULE_PORTS))
        return [f"{both} snat ip to {box.wan} : numgen inc mod {RULE_PORTS} map {{ {ports} }}", f"{match} masquerade"]
    return [f"{match} masquerade"]


def _nat(box: Box) -> list[str]:
    """Cone behaviours learn on the way out and redirect on the way in; they hold while the port is kept."""
    sets: list[str] = []
    pre: list[str] = []
    post: list[str] = []
    inside = ", ".join(box.inside)
    out = f'oifname "wan" ip saddr {{ {inside} }} meta l4proto {{ tcp, udp }}'
    flags = f"flags dynamic,timeout; size 65535; timeout {MAP_TIMEOUT};"
    value = "ip saddr . th sport"
    if box.filtering is Filtering.EIF:
        sets.append(f"  map cone {{ type inet_proto . inet_service : ipv4_addr . inet_service; {flags} }}")
        post.append(f"{out} update @cone {{ meta l4proto . th sport : {value} }}")
        pre.append(f'iifname "wan" ip daddr {box.wan} dnat ip to meta l4proto . th dport map @cone')
    elif box.filtering is Filtering.ADF:
        kind = "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service"
        sets.append(f"  map cone {{ type {kind}; {flags} }}")
        post.append(f"{out} update @cone {{ ip daddr . meta l4proto . th sport : {value} }}")
        pre.append(f'iifname "wan" ip daddr {box.wan} dnat ip to ip saddr . meta l4proto . th dport map @cone')
    if box.hairpin:
        # RFC 5382 REQ-8: the source is translated too. `add`: the first owner of a port keeps it.
        sets.append(f"  map hairpin {{ type inet_proto . inet_service : ipv4_addr . inet_service; {flags} }}")
        learn = f"add @hairpin {{ meta l4proto . th sport : {value} }}"
        turn = 'iifname "lan*" oifname "lan*" ct status dnat meta l4proto { tcp, udp }'
        post += [f"{out} {learn}", f"{turn} {learn}", f"{turn} snat ip to {box.wan}"]
        pre.append(f'iifname "lan*" ip daddr {box.wan} dnat ip to meta l4proto . th dport map @hairpin')
    for net in box.inside:
        post += _source_nat(box, net)
    return [
        "table ip nat {",
        *sets,
        "  chain pre { type nat hook prerouting priority dstnat; policy accept;",
        *(f"    {rule}" for rule in pre),
        "  }",
        "  chain post { type nat hook postrouting priority srcnat; policy accept;",
        *(f"    {rule}" for rule in post),
        "  }",
        "}",
    ]


def box_rules(box: Box) -> str:
    """The whole ruleset of a box."""
    return "\n".join(_filter(box) + (_nat(box) if box.inside else [])) + "\n"


def router_rules(links: Sequence[str]) -> str:
    """Counters for every pair of the router's links, named `from_to`, and an empty chain for faults."""
    pairs = [(x, y) for x in links for y in links if x != y]
    return "\n".join(
        [
            "table inet lab {",
            *(f"  counter {x}_{y} {{ }}" for x, y in pairs),
            "  chain cut { }",
            "  chain forward { type filter hook forward priority filter; policy accept;",
            "    jump cut",
            *(f'    iifname "to{x}" oifname "to{y}" counter name {x}_{y}' for x, y in pairs),
            "  }",
            "}",
            "",
        ]
    )


HEARD = {"heard4": ("ip", "ipv4_addr"), "heard6": ("ip6", "ipv6_addr")}
"""Sets of a host: (keyword, address type) of each."""
_ESTABLISHED_QUIC = "meta l4proto udp @th,64,2 1"
"""A datagram whose first two bits are 0 and 1: QUIC's short header, which needs the keys of a finished handshake."""


def heard_sets() -> list[str]:
    """The sets of a host's table that `heard_rules` fills."""
    sort = "type {0} . inet_service . {0} . inet_service; flags dynamic; size 65535;"
    return [f"  set {name} {{ {sort.format(kind)} }}" for name, (_, kind) in HEARD.items()]


def heard_rules() -> list[str]:
    """For a host's incoming packets: counts what has arrived of QUIC, for each UDP flow by itself."""
    keys = {name: f"{ip} saddr . udp sport . {ip} daddr . udp dport" for name, (ip, _) in HEARD.items()}
    return [f"    {_ESTABLISHED_QUIC} update @{name} {{ {key} counter }}" for name, key in keys.items()]


def host_rules(relay4: Sequence[str], relay6: Sequence[str]) -> str:
    """Counters at a host, wherever the path runs: traffic with the relay, and all other traffic (the peer)."""
    lines = ["table inet lab {"]
    lines += [f"  counter {way}_{whom} {{ }}" for way in ("from", "to") for whom in ("relay", "peer")]
    lines += [*heard_sets(), "  chain cut { }"]
    for hook, field, way, device in (("input", "saddr", "from", "iifname"), ("output", "daddr", "to", "oifname")):
        lines.append(f"  chain {hook} {{ type filter hook {hook} priority filter; policy accept;")
        lines.append(f'    {device} "lo" accept')
        for family, addresses in (("ip", relay4), ("ip6", relay6)):
            if addresses:
                match = f"{family} {field} {{ {', '.join(addresses)} }}"
                lines.append(f"    {match} counter name {way}_relay accept")
        if hook == "input":
            lines.append("    jump cut")
            lines += heard_rules()
        lines.append(f"    meta l4proto {{ tcp, udp }} counter name {way}_peer")
        lines.append("  }")
    return "\n".join([*lines, "}", ""])
