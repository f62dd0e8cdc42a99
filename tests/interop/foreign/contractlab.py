"""The topology of the published hole-punch suites in namespaces, and one test of theirs in it, judged by the kernel.

`python -m foreign.contractlab '{"suite": "test-plans", …}'` prints one JSON object. Same nets, addresses, interface
names and router rules as the suites' containers; the lab's own wire instead of netem. Side a is the listener.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import commands, observe, proof
from lab.lab import Lab
from lab.limits import LINK_READY_SECONDS
from lab.rules import heard_rules, heard_sets
from lab.topology import Host, Link, Plan

from foreign.inlab import answer

SECONDS = {"unified-testing": 120.0, "test-plans": 60.0}
"""unified-testing would wait for 180 s; nothing that succeeds takes half of it."""
ROUTER_DELAY, RELAY_DELAY = 100.0, 25.0
"""test-plans, milliseconds. A router delays each packet that leaves it by half of its figure, the relay each packet
it sends. The same round trips and the same distance between the two NATs come of a quarter on both links of a router
and half of the relay's on its link."""
SAMPLE = 0.02
BY_ADAPTER = " by the adapter"
"""Ours, but driven as the others are: shows that the adapter changes nothing."""
REDIS_NET, REDIS = "10.5.0.0/21", "10.5.0.2"


@dataclass(frozen=True)
class Nets:
    """Addresses as the suite derives them from the test's name; `wan_head` 11 where a peer refuses private ones."""

    key: str
    wan_head: int

    @classmethod
    def of(cls, name: str, wan_head: int) -> Nets:
        return cls(hashlib.sha256(name.encode()).hexdigest()[:8], wan_head)

    def _at(self, head: int, last: int) -> str:
        first, second = (int(self.key[at : at + 2], 16) % 224 + 32 for at in (0, 2))
        return f"{head}.{first}.{second}.{last}"

    def wan(self, last: int) -> str:
        return self._at(self.wan_head, last)

    def lan(self, last: int) -> str:
        return self._at(10, last)


def host_rules(relay: str, device: str) -> str:
    """Counters at a host: with the relay, and with the peer; the Redis net does not count."""
    lines = ["table inet lab {"]
    lines += [f"  counter {way}_{whom} {{ }}" for way in ("from", "to") for whom in ("relay", "peer")]
    lines += heard_sets()
    for hook, field, way, side in (("input", "saddr", "from", "iifname"), ("output", "daddr", "to", "oifname")):
        lines += [
            f"  chain {hook} {{ type filter hook {hook} priority filter; policy accept;",
            f'    {side} != "{device}" accept',
            f"    ip {field} {relay} counter name {way}_relay accept",
            *(heard_rules() if hook == "input" else ()),
            f"    meta l4proto {{ tcp, udp }} counter name {way}_peer",
            "  }",
        ]
    return "\n".join([*lines, "}", ""])


def router_rules(suite: str, lan: str, wan_ip: str) -> str:
    """unified-testing drops what nobody asked for. test-plans filters nothing: the router's own stack answers."""
    nat = f'oifname "wan0" ip saddr {lan} ' + ("masquerade" if suite == "unified-testing" else f"snat to {wan_ip}")
    lines = ["table ip nat {", "  chain post { type nat hook postrouting priority srcnat;", f"    {nat}", "  }", "}"]
    if suite == "unified-testing":
        lines += [
            "table ip filter {",
            "  chain input { type filter hook input priority filter; policy accept;",
            '    iifname "wan0" ct state established,related accept',
            '    iifname "wan0" drop',
            "  }",
            "  chain forward { type filter hook forward priority filter; policy drop;",
            "    ct state established,related accept",
            f'    ip saddr {lan} iifname "lan0" oifname "wan0" accept',
            f'    ip daddr {lan} iifname "wan0" oifname "lan0" accept',
            "  }",
            "}",
        ]
    return "\n".join([*lines, ""])


def plan(suite: str, nets: Nets) -> Plan:
    """WAN and Redis are bridges, as Docker's networks are; `router` is the WAN's, with the gateway address."""
    made = Plan()
    for name in ("router", "redis", "relay", "nata", "natb", "hosta", "hostb"):
        made.node(name)
    made.links = [Link(("router", "torelay"), ("relay", "wan0"), "relay")]
    made.links += [Link(("redis", f"to{name}"), (name, "redis0")) for name in ("relay", "hosta", "hostb")]
    made.bridges = [
        ("router", "wan", ("torelay", "toa", "tob")),
        ("redis", "net", ("torelay", "tohosta", "tohostb")),
    ]
    made.device("router", "wan", f"{nets.wan(65)}/27")
    made.device("redis", "net", f"{REDIS}/21")
    made.device("relay", "wan0", f"{nets.wan(68)}/27")
    made.rulesets["router"] = "table inet lab { }\n"
    for last, name in enumerate(("relay", "hosta", "hostb"), 3):
        made.device(name, "redis0", f"10.5.0.{last}/21")
    for side, outside, gateway, own, net in (("a", 67, 130, 131, 128), ("b", 66, 98, 99, 96)):
        box, host = f"nat{side}", f"host{side}"
        made.links += [Link(("router", f"to{side}"), (box, "wan0"), side), Link((box, "lan0"), (host, "lan0"), side)]
        made.device(box, "wan0", f"{nets.wan(outside)}/27")
        made.device(box, "lan0", f"{nets.lan(gateway)}/27")
        made.device(host, "lan0", f"{nets.lan(own)}/27")
        if suite == "test-plans":  # its runner's script does it; unified-testing leaves it to the image
            made.route(host, f"{nets.wan(64)}/27", nets.lan(gateway))
        made.boxes[side] = [box]
        made.rulesets[box] = router_rules(suite, f"{nets.lan(net)}/27", nets.wan(outside))
        made.rulesets[host] = host_rules(nets.wan(68), "lan0")
        address, gate, public = nets.lan(own), nets.lan(gateway), nets.wan(outside)
        made.hosts[side] = Host(side, host, address, None, gate, None, public, box, "lan0")
    made.hosts["relay"] = Host("relay", "relay", nets.wan(68), None, None, None, nets.wan(68), "router", "torelay")
    return made


class SuiteLab(Lab):
    """The lab with the suites' plan in it."""

    def __init__(self, suite: str, nets: Nets) -> None:
        slow = suite == "test-plans"
        delay = {"relay": RELAY_DELAY / 2, "a": ROUTER_DELAY / 4, "b": ROUTER_DELAY / 4} if slow else None
        super().__init__(delay=delay)
        self.plan = plan(suite, nets)
        self.nets = nets

    def _await_links(self) -> None:
        """The routers reach the relay, the hosts their routers: hosts may not have their routes yet."""
        pairs = [(f"nat{side}", self.nets.wan(68)) for side in "ab"]
        pairs += [(side, str(self.hosts[side].gateway)) for side in "ab"]
        pairs += [(name, REDIS) for name in ("relay", "a", "b")]
        deadline = time.monotonic() + LINK_READY_SECONDS
        for where, target in pairs:
            while self.ping(where, target, 0.3) is None:
                if time.monotonic() > deadline:
                    raise commands.CommandFailed(f"{where} does not reach {target}")


class Program:
    """One role's process, its stdout and the end of its stderr in files: nobody has to read along."""

    def __init__(self, lab: Lab, host: str, kind: str, env: Mapping[str, str], folder: Path) -> None:
        self._files = [(folder / f"{host}.{name}").open("w+") for name in ("out", "err")]
        module = "contract.ours" if kind == "ours" else "contract.adapter"
        environment = {
            **{name: value for name, value in os.environ.items() if name not in ("MODE", "IS_RELAY", "IS_DIALER")},
            **env,
            "ADAPTER_KIND": kind.removesuffix(BY_ADAPTER),
            "PYTHONWARNINGS": "ignore",
        }
        out, err = self._files
        self.process = lab.popen(
            host, [sys.executable, "-m", module], env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )

    def said(self, which: int = 0) -> str:
        file = self._files[which]
        file.flush()
        return Path(file.name).read_text()

    def close(self) -> None:
        for file in self._files:
            file.close()


def environments(suite: str, nets: Nets, transport: str) -> dict[str, dict[str, str]]:
    """By role; names and values as the suites' runners set them."""
    if suite == "test-plans":
        modes = (("relay", "relay"), ("a", "listen"), ("b", "dial"))
        env = {role: {"MODE": mode, "TRANSPORT": transport} for role, mode in modes}
        env["relay"]["RELAY_IP"] = nets.wan(68)
        return env
    common = {
        "REDIS_ADDR": "hole-punch-redis:6379",
        "TEST_KEY": nets.key,
        "TRANSPORT": transport,
        "DEBUG": "false",
    }
    if transport == "tcp":  # QUIC has both of its own
        common |= {"SECURE_CHANNEL": "noise", "MUXER": "yamux"}
    wan = f"{nets.wan(64)}/27"
    relay = {
        "RELAY_IP": nets.wan(68),
        "DIALER_LAN_SUBNET": f"{nets.lan(96)}/27",
        "DIALER_ROUTER_IP": nets.wan(66),
        "LISTENER_LAN_SUBNET": f"{nets.lan(128)}/27",
        "LISTENER_ROUTER_IP": nets.wan(67),
    }
    listener = {"IS_DIALER": "false", "LISTENER_IP": nets.lan(131), "WAN_SUBNET": wan, "WAN_ROUTER_IP": nets.lan(130)}
    dialer = {"IS_DIALER": "true", "DIALER_IP": nets.lan(99), "WAN_SUBNET": wan, "WAN_ROUTER_IP": nets.lan(98)}
    return {"relay": common | relay, "a": common | listener, "b": common | dialer}


def named_redis(folder: Path) -> None:
    """Both suites name their Redis; here /etc/hosts does, for this process's private view of the file alone."""
    names = folder / "hosts"
    names.write_text(f"127.0.0.1 localhost\n{REDIS} redis hole-punch-redis\n")
    subprocess.run(["mount", "--bind", str(names), "/etc/hosts"], check=True)


def listening(lab: Lab, side: str, transport: str) -> list[str]:
    """Local addresses of a host's listening sockets: of TCP, or of UDP those that are connected with nobody.

    go keeps a UDP socket at no address in particular beside the one at which it listens.
    """
    if transport == "quic-v1":
        found = observe.udp_bound(lab.namespace(side))
        return [one for one in found if one != "0.0.0.0"] or found
    sockets = observe.tcp_sockets(lab.namespace(side), (observe.LISTEN,))
    return sorted({one.local.host for one in sockets})


def conduct(lab: SuiteLab, order: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Starts the three as the runner does, all at once, and waits for the dialer's end."""
    suite = order["suite"]
    env = environments(suite, lab.nets, order["transport"])
    store = lab.popen(
        "redis", [sys.executable, "-m", "contract.store", REDIS, "6379"], stdout=subprocess.PIPE, text=True
    )
    assert store.stdout is not None
    store.stdout.readline()
    kinds = {"relay": order["relay"], "a": order["listener"], "b": order["dialer"]}
    run = {side: Program(lab, side, kind, env[side], folder) for side, kind in kinds.items()}
    began = time.monotonic()
    pairs: dict[tuple[object, ...], object] = {}
    bound: dict[str, list[str]] = {}
    while (status := run["b"].process.poll()) is None and time.monotonic() - began < order.get(
        "seconds", SECONDS[suite]
    ):
        for pair in proof.direct_pairs(lab):
            pairs[pair.tuples] = pair.as_json()
        bound = {side: listening(lab, side, order["transport"]) or bound.get(side, []) for side in "ab"}
        time.sleep(SAMPLE)
    found = {
        "versions": {},
        "status": status,
        "seconds": round(time.monotonic() - began, 2),
        "stdout": {side: one.said() for side, one in run.items()},
        "alive": [side for side in ("relay", "a") if run[side].process.poll() is None],
        "sockets": list(pairs.values()),
        "bound": bound,
        "bytes": proof.traffic(lab),
        "expected": {side: [lab.hosts[side].address, lab.hosts[side].public] for side in "ab"},
    }
    if status != 0:
        found["stderr"] = {side: one.said(1)[-4000:] for side, one in run.items()}
    for one in run.values():
        lab.stop(one.process)
        one.close()
    return found


def in_lab(order: dict[str, Any]) -> dict[str, Any]:
    layers = "tcp, noise, yamux" if order["transport"] == "tcp" else order["transport"]
    name = f"{order['dialer']} x {order['listener']} ({layers}) [{order['relay']}]"
    nets = Nets.of(name, order["wan_head"])
    with tempfile.TemporaryDirectory(prefix="pbi-") as folder, SuiteLab(order["suite"], nets) as lab:
        named_redis(Path(folder))
        found = conduct(lab, order, Path(folder))
        subprocess.run(["umount", "/etc/hosts"], check=False)
        return found


if __name__ == "__main__":
    sys.exit(answer(in_lab))
