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
_CUTS = {"drop": "drop", "rst": "meta l4proto tcp reject with tcp reset"}


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


class Faults:
    """The part of `Lab` that breaks things. Every method returns once the fault is in place."""

    behaviours: dict[str, Behaviour]
    hosts: dict[str, Host]
    prefix: str

    def namespace(self, node: str) -> str:
        raise NotImplementedError

    def boxes(self, side: str) -> list[str]:
        raise NotImplementedError

    def cut_direct(self, *, mode: str = "drop", direction: str = "both") -> None:
        """Stop all traffic between the two sides, not that with the relay, until `heal()`.

        `mode` is `drop` (silent) or `rst`; `direction` is `both`, `a_b` or `b_a`. Raises ValueError.
        """
        if mode not in _CUTS or direction not in _DIRECTIONS:
            raise ValueError(f"no cut {mode!r} {direction!r}; modes: drop, rst; directions: {', '.join(_DIRECTIONS)}")
        for source, target in _DIRECTIONS[direction]:
            if self.behaviours["a"].shared:
                # The router never sees this path: the receiving host turns it away.
                commands.nft(self.namespace(target), f"add rule inet lab cut {_CUTS[mode]}\n")
            else:
                rule = f'add rule inet lab cut iifname "to{source}" oifname "to{target}" {_CUTS[mode]}\n'
                commands.nft(self.namespace("router"), rule)

    def heal(self) -> None:
        """Undo every cut."""
        for node in ("router", "a", "b"):
            commands.nft(self.namespace(node), "flush chain inet lab cut\n")

    def nat_reboot(self, side: str) -> None:
        """Lose all NAT state of a side for good: established flows die silently, as after a router restart.

        Sets tcp_loose to 0 first; with the kernel's default a flow would be picked up again mid-stream.
        """
        for box in self.boxes(side):
            commands.sysctl(self.namespace(box), {"net/netfilter/nf_conntrack_tcp_loose": 0})
            flush_conntrack(self.namespace(box))

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
