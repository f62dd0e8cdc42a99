"""Faults for a running lab: cuts, lost NAT state, carrier loss. Changes the network, never a program."""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import replace

from lab import commands, session
from lab.behaviours import Behaviour
from lab.limits import COMMAND_SECONDS
from lab.topology import Host

_NETLINK_NETFILTER = 12
_CTNETLINK_DELETE = (1 << 8) | 2
_NLM_REQUEST_ACK = 0x1 | 0x4
_NLMSG_ERROR = 2
_REPLY_BYTES = 4096
_DIRECTIONS = {"both": (("a", "b"), ("b", "a")), "a_b": (("a", "b"),), "b_a": (("b", "a"),)}
_CUTS = {"drop": ("drop",), "rst": ("meta l4proto tcp reject with tcp reset", "drop")}
PROTOCOLS = ("tcp", "udp")


def flush_conntrack(namespace: str) -> None:
    """Delete every conntrack entry of a namespace, over netlink. Raises OSError."""

    def make() -> socket.socket:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)

    with session.socket_in(namespace, make) as sock:
        sock.settimeout(COMMAND_SECONDS)
        generic = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)
        sock.send(struct.pack("=IHHII", 16 + len(generic), _CTNETLINK_DELETE, _NLM_REQUEST_ACK, 1, 0) + generic)
        reply = sock.recv(_REPLY_BYTES)
    kind = struct.unpack_from("=H", reply, 4)[0]
    code = struct.unpack_from("=i", reply, 16)[0] if kind == _NLMSG_ERROR else 0
    if code != 0:
        raise OSError(-code, "conntrack flush")


def _match(protocol: str) -> str:
    """The packets of a protocol. Raises ValueError."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"no protocol {protocol!r}; {' or '.join(PROTOCOLS)}")
    return f"meta l4proto {protocol}"


class Faults:
    """The part of `Lab` that breaks things. Every method returns once the fault is in place."""

    behaviours: dict[str, Behaviour]
    hosts: dict[str, Host]
    prefix: str

    def namespace(self, node: str) -> str:
        raise NotImplementedError

    def boxes(self, side: str) -> list[str]:
        raise NotImplementedError

    def cut_direct(self, *, mode: str = "drop", direction: str = "both", protocol: str = "") -> None:
        """Stop traffic between the two sides, not that with the relay, until `heal()`: all of it, or one protocol's.

        `mode` is `drop` (silent) or `rst` (TCP is reset, the rest dropped); `direction` is `both`, `a_b` or `b_a`;
        `protocol` is `tcp` or `udp`, empty for all. Raises ValueError.
        """
        if mode not in _CUTS or direction not in _DIRECTIONS:
            raise ValueError(f"no cut {mode!r} {direction!r}; modes: drop, rst; directions: {', '.join(_DIRECTIONS)}")
        only = f"{_match(protocol)} " if protocol else ""
        for source, target in _DIRECTIONS[direction]:
            for verdict in _CUTS[mode]:
                if self.behaviours["a"].shared:
                    # The router never sees this path: the receiving host turns it away.
                    commands.nft(self.namespace(target), f"add rule inet lab cut {only}{verdict}\n")
                else:
                    where = f'iifname "to{source}" oifname "to{target}"'
                    commands.nft(self.namespace("router"), f"add rule inet lab cut {where} {only}{verdict}\n")

    def block(self, side: str, protocol: str) -> None:
        """A side's router drops all `tcp` or all `udp` that passes it, the relay's too, until `unblock`.

        Hosts of one LAN reach each other all the same. Raises ValueError.
        """
        commands.nft(self.namespace(self.boxes(side)[0]), f"add rule inet filter fault {_match(protocol)} drop\n")

    def unblock(self, side: str) -> None:
        """Undo every `block` of a side."""
        commands.nft(self.namespace(self.boxes(side)[0]), "flush chain inet filter fault\n")

    def heal(self) -> None:
        """Undo every cut."""
        for node in ("router", "a", "b"):
            commands.nft(self.namespace(node), "flush chain inet lab cut\n")

    def nat_reboot(self, side: str) -> None:
        """Lose all NAT state of a side for good: established flows die silently, as after a router restart.

        A UDP flow lives again once its inside end sends. Sets tcp_loose to 0 first; with the kernel's default a TCP
        flow would be picked up again mid-stream.
        """
        for box in self.boxes(side):
            commands.sysctl(self.namespace(box), {"net/netfilter/nf_conntrack_tcp_loose": 0})
            # What a cone has learnt is no connection of the kernel's, and is lost as well.
            learnt = [entry["map"] for entry in commands.nft_json(self.namespace(box), "maps") if "map" in entry]
            lines = [f"flush map {one['family']} {one['table']} {one['name']}\n" for one in learnt]
            if lines:
                commands.nft(self.namespace(box), "".join(lines))
            flush_conntrack(self.namespace(box))

    def udp_timeouts(self, side: str, unreplied: int = 30, replied: int = 120) -> None:
        """Seconds for which a side's boxes keep an idle UDP flow: before and after both ends have sent for 2 s.

        The defaults are the kernel's. Flows that are idle already keep the time that they had.
        """
        for box in self.boxes(side):
            names = "net/netfilter/nf_conntrack_udp_timeout", "net/netfilter/nf_conntrack_udp_timeout_stream"
            commands.sysctl(self.namespace(box), dict(zip(names, (unreplied, replied), strict=True)))

    def nat_address(self, side: str) -> str:
        """Give a side's outer box another address, as a provider does after a reconnect; returns it.

        Mappings are lost with the old address. For boxes whose rules name no address of theirs (plain masquerade).
        """
        host, box = self.hosts[side], self.boxes(side)[-1]
        assert host.public is not None
        net, _, last = host.public.rpartition(".")
        fresh = f"{net}.{3 if last == '2' else 2}"
        commands.ip_batch(
            [
                f"address del {host.public}/24 dev wan",
                f"address add {fresh}/24 dev wan",
                f"route replace 0.0.0.0/0 via {net}.1",
            ],
            self.namespace(box),
        )
        self.nat_reboot(side)
        self.hosts[side] = replace(host, public=fresh)
        return fresh

    def link_down(self, host: str, seconds: float | None = None) -> None:
        """Take the carrier of a host's port away; with `seconds`, blocks that long and puts it back."""
        self._port(host, "down")
        if seconds is not None:
            time.sleep(seconds)
            self.link_up(host)

    def link_up(self, host: str) -> None:
        """Undo `link_down`."""
        self._port(host, "up")

    def _port(self, host: str, state: str) -> None:
        where = self.hosts[host]
        commands.ip_batch([f"link set dev {where.port_device} {state}"], self.prefix + where.box)
