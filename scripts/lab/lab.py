"""`Lab`: two hosts behind chosen NATs and a relay between them, in namespaces of this process alone.

Builds a plan, runs programs in its hosts, answers questions about them, breaks things on request. It knows
nothing of punchbridge: any program can run in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from lab import commands, icmp, observe, session, wiring
from lab.behaviours import Behaviour, behaviour
from lab.faults import Faults
from lab.limits import LINK_READY_SECONDS, STOP_SECONDS, TCP_WINDOW_BYTES
from lab.topology import RELAY4, RELAY6, Host, Link, Plan, plan

_OUTSIDE = ((socket.AF_INET, "9.9.9.9"), (socket.AF_INET6, "2620:fe::9"))

_SYSCTL_ALL: dict[str, str | int] = {
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
    "net/ipv4/conf/all/send_redirects": 0,
    "net/ipv4/conf/default/send_redirects": 0,
}
_SYSCTL_IPV6: dict[str, str | int] = {
    "net/ipv6/conf/all/accept_dad": 0,
    "net/ipv6/conf/default/accept_dad": 0,
    "net/ipv6/conf/all/accept_ra": 0,
    "net/ipv6/conf/default/accept_ra": 0,
    "net/ipv6/conf/all/keep_addr_on_down": 1,
    "net/ipv6/conf/default/keep_addr_on_down": 1,
}
_SYSCTL_HOST: dict[str, str | int] = {
    "net/ipv4/tcp_rmem": f"4096 131072 {TCP_WINDOW_BYTES}",
    "net/ipv4/tcp_wmem": f"4096 16384 {TCP_WINDOW_BYTES}",
    # Rate limits of ICMP errors would make an ICMP-denying box answer only some SYNs.
    "net/ipv4/icmp_ratelimit": 0,
}
_SYSCTL_BOX: dict[str, str | int] = {"net/ipv4/ip_forward": 1, "net/ipv4/icmp_ratelimit": 0}
_SYSCTL_OPTIONAL: dict[str, str | int] = {
    "net/ipv6/conf/all/forwarding": 1,
    "net/netfilter/nf_conntrack_acct": 1,
    "net/bridge/bridge-nf-call-iptables": 0,
    "net/bridge/bridge-nf-call-ip6tables": 0,
}


class UplinkFound(AssertionError):
    """The lab would reach a network outside itself; it was not started."""


class Lab(Faults):
    """A running lab, as a context manager.

    `listener_nat` is side `a`, `dialer_nat` side `b`. `delay` is one way in milliseconds per access link
    (`relay`, `a`, `b`; with one shared box `a` is its WAN link), `loss` a probability for all of them or per
    link. Entering moves the process into a private session (see `session.enter`). Raises ValueError for an
    unknown or impossible pair and LabUnavailable. Leaving kills every program started in it.
    """

    def __init__(
        self,
        listener_nat: str = "home",
        dialer_nat: str = "home",
        *,
        delay: Mapping[str, float] | None = None,
        loss: Mapping[str, float] | float = 0.0,
        ipv6: bool = False,
        prefix: str | None = None,
        seed: int = 1,
    ) -> None:
        self.behaviours: dict[str, Behaviour] = {"a": behaviour(listener_nat), "b": behaviour(dialer_nat)}
        self.delay = {"relay": 0.0, "a": 0.0, "b": 0.0} | dict(delay or {})
        self.loss = dict(loss) if isinstance(loss, Mapping) else dict.fromkeys(self.delay, loss)
        _check_link_values(self.delay, self.loss)
        self.plan: Plan = plan(self.behaviours["a"], self.behaviours["b"], ipv6=ipv6)
        self.prefix = prefix if prefix is not None else f"pb{secrets.token_hex(3)}-"
        self.seed = seed
        self._children: list[subprocess.Popen[Any]] = []
        self._captures: list[subprocess.Popen[str]] = []
        self._wire: subprocess.Popen[str] | None = None
        self.hosts: dict[str, Host] = {}

    def __enter__(self) -> Self:
        session.enter()
        try:
            self._remove()
            self._build()
            self.assert_no_uplink()
            self._await_links()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def namespace(self, node: str) -> str:
        """Full namespace name of a host (`relay`, `a`, `b`), box (`nata`, `cgna`) or `router`."""
        short = {"a": "hosta", "b": "hostb"}.get(node, node)
        return self.prefix + short

    # -- building ---------------------------------------------------------------------------------------

    def _build(self) -> None:
        made = self.plan
        delayed = [link for link in made.links if self._is_delayed(link)]
        nodes = [*made.nodes, *(["wire"] if delayed else [])]
        commands.ip_batch(f"netns add {self.prefix}{node}" for node in nodes)
        for node in nodes:
            self._sysctls(node)
        commands.ip_batch(self._link_lines())
        for node in made.nodes:
            config = [*self._bridge_lines(node), *made.config[node]]
            commands.ip_batch(config, self.prefix + node)
        for node, text in made.rulesets.items():
            commands.nft(self.prefix + node, text)
        if delayed:
            self._start_wire(delayed)
        self.hosts = {
            name: Host(**{**_fields(host), "namespace": self.prefix + host.namespace})
            for name, host in made.hosts.items()
        }

    def _is_delayed(self, link: Link) -> bool:
        return link.wire is not None and (self.delay[link.wire] > 0 or self.loss.get(link.wire, 0.0) > 0)

    def _sysctls(self, node: str) -> None:
        name = self.prefix + node
        host = node in ("relay", "hosta", "hostb")
        commands.sysctl(name, _SYSCTL_ALL)
        commands.sysctl(name, _SYSCTL_IPV6, optional=True)
        if node == "wire":
            commands.sysctl(name, {"net/ipv6/conf/default/disable_ipv6": 1}, optional=True)
        else:
            commands.sysctl(name, _SYSCTL_HOST if host else _SYSCTL_BOX, optional=host)
        if not host:
            commands.sysctl(name, _SYSCTL_OPTIONAL, optional=True)

    def _link_lines(self) -> list[str]:
        lines = []
        for number, link in enumerate(self.plan.links):
            (left, left_device), (right, right_device) = link.left, link.right
            ends = [(left, left_device, right, right_device)]
            if self._is_delayed(link):
                ends = [(left, left_device, "wire", f"l{number}"), (right, right_device, "wire", f"r{number}")]
            lines += [
                f"link add name {x_device} netns {self.prefix}{x} type veth peer name {y_device} netns {self.prefix}{y}"
                for x, x_device, y, y_device in ends
            ]
        return lines

    def _bridge_lines(self, node: str) -> list[str]:
        lines = []
        for where, name, ports in self.plan.bridges:
            if where == node:
                lines.append(f"link add name {name} type bridge forward_delay 0")
                for port in ports:
                    lines += [f"link set dev {port} master {name}", f"link set dev {port} up"]
        return lines

    def _start_wire(self, delayed: Sequence[Link]) -> None:
        name = self.prefix + "wire"
        numbers = [self.plan.links.index(link) for link in delayed]
        commands.ip_batch((f"link set dev {end}{number} up" for number in numbers for end in "lr"), name)
        order: list[list[object]] = []
        with contextlib.ExitStack() as stack:
            sockets = []
            for number, link in zip(numbers, delayed, strict=True):
                assert link.wire is not None
                pair = [stack.enter_context(wiring.frame_socket(name, f"{end}{number}", offload=True)) for end in "lr"]
                sockets += pair
                delay, loss = self.delay[link.wire] / 1000, self.loss.get(link.wire, 0.0)
                order.append([link.wire, *(sock.fileno() for sock in pair), delay, loss])
            relays = [
                socket.inet_pton(socket.AF_INET6 if ":" in one else socket.AF_INET, one) for one in (*RELAY4, *RELAY6)
            ]
            start = {"seed": self.seed, "relays": [one.hex() for one in relays], "links": order}
            self._wire = wiring.start_child("wire.py", [json.dumps(start)], sockets)
        if any(self.loss.values()):
            self._single_segments()

    def _single_segments(self) -> None:
        """Loss is per packet, of TCP and of UDP: with segmentation offload one loss would take 64 KiB.

        Hosts send single segments from now on, whatever their programs hand to the kernel at once.
        """
        for host in ("relay", "hosta", "hostb"):
            commands.ip_batch(["link set dev eth0 gso_max_segs 1"], self.prefix + host)

    def _await_links(self) -> None:
        """Until each host has reached the relay once: carrier and IPv6 come up to a second after the devices."""
        relay = self.hosts["relay"]
        deadline = time.monotonic() + LINK_READY_SECONDS
        for side in ("a", "b"):
            pairs = ((self.hosts[side].address, relay.address), (self.hosts[side].address6, relay.address6))
            for own, target in pairs:
                if own is None or target is None:
                    continue
                wait = 0.05
                while self.ping(side, target, wait) is None:
                    wait = min(2 * wait, 1.0)
                    if time.monotonic() > deadline:
                        raise commands.CommandFailed(f"{side} does not reach the relay at {target}")

    def assert_no_uplink(self) -> None:
        """Raises UplinkFound if the router can route to the real internet or any interface is not ours."""
        for family, address in _OUTSIDE:
            with session.socket_in(self.namespace("router"), lambda f=family: socket.socket(f, socket.SOCK_DGRAM)) as s:  # type: ignore[misc]
                try:
                    s.connect((address, 53))  # UDP: only a route lookup, nothing is sent
                except OSError:
                    continue
                raise UplinkFound(f"the lab's router has a route to {address}")
        ours: dict[str, set[str]] = {node: {"lo"} for node in self.plan.nodes}
        for node, device in self.plan.devices():
            ours[node].add(device)
        for node, device, _ in self.plan.bridges:
            ours[node].add(device)
        for node, devices in ours.items():
            with session.inside(self.namespace(node)):
                seen = {name for _, name in socket.if_nameindex()}
            if not seen <= devices | _KERNEL_DEVICES:
                raise UplinkFound(f"{node} has foreign interfaces: {sorted(seen - devices)}")

    # -- running programs -------------------------------------------------------------------------------

    def popen(self, host: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program in a host or box. It gets its own process group and dies with the lab. Raises OSError."""
        env = dict(options.pop("env", None) or os.environ)
        if not os.path.isdir(env.get("XDG_RUNTIME_DIR", "/")):
            del env["XDG_RUNTIME_DIR"]  # hidden by the session's /run
        child = subprocess.Popen(
            argv,
            env=env,
            start_new_session=True,
            preexec_fn=session.child_setup(self.namespace(host)),
            **options,
        )
        self._children.append(child)
        return child

    def socket(self, host: str, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket of this process that lives in a host, a box or the router. Raises OSError."""
        return session.socket_in(self.namespace(host), lambda: socket.socket(family, kind))

    def run(self, host: str, argv: Sequence[str], timeout: float = 20.0) -> str:
        """Run a short command in a host and return its output. Raises CalledProcessError, TimeoutExpired."""
        done = subprocess.run(
            argv,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=True,
            preexec_fn=session.child_setup(self.namespace(host)),
        )
        return done.stdout

    def stop(self, child: subprocess.Popen[Any], *, number: int = signal.SIGTERM) -> int:
        """End one program's process group; SIGKILL after STOP_SECONDS. Returns its exit status."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        try:
            return child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            return child.wait()

    def close(self) -> None:
        """Kill every child, remove every namespace. Safe to call twice."""
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        for child in self._children:
            child.wait()
            for stream in (child.stdin, child.stdout, child.stderr):
                _close_quietly(stream)
        self._children.clear()
        for helper in (*self._captures, *([self._wire] if self._wire else [])):
            wiring.end_child(helper)
        self._captures.clear()
        self._wire = None
        if session.entered():
            self._remove()

    def _remove(self) -> None:
        """Left-overs of this prefix only; other labs of this process may be running."""
        names = [name for name in os.listdir(session.NETNS_DIR) if name.startswith(self.prefix)]
        commands.ip_batch(f"netns del {name}" for name in names)

    def ping(self, host: str, address: str, timeout: float = 1.0) -> float | None:
        """ICMP round trip from a host in seconds, None without an answer in time."""
        ipv6 = ":" in address
        with session.socket_in(self.namespace(host), lambda: icmp.raw_socket(ipv6)) as sock:
            return icmp.echo(sock, address, timeout)

    # -- questions --------------------------------------------------------------------------------------

    def boxes(self, side: str) -> list[str]:
        """The NAT boxes of a side, inside first (two for CGNAT)."""
        return self.plan.boxes.get(side) or self.plan.boxes["a"]

    def sockets(self, host: str) -> list[observe.TcpSocket]:
        """Established TCP sockets of a host."""
        return observe.tcp_sockets(self.namespace(host))

    def udp_heard(self, host: str) -> dict[tuple[observe.Endpoint, observe.Endpoint], int]:
        """Bytes of established QUIC that arrived at a host (`a` or `b`), by (sender, place), the relay's aside."""
        return observe.udp_heard(self.namespace(host))

    def conntrack(self, box: str) -> list[observe.Flow]:
        """Connection table of a box (`nata`, `cgna`, ...)."""
        return observe.conntrack(self.namespace(box))

    def ruleset(self, box: str) -> str:
        """nftables rules of a box as the kernel has them."""
        return commands.nft_list(self.namespace(box))

    def counters(self) -> dict[str, observe.Count]:
        """Packets and bytes so far: `a_b`, `a_relay`, ... at the router; `a.from_peer`, `a.to_relay`, ... at the hosts.

        The router's counters show what crossed the lab's internet; the hosts' also cover a shared box or LAN.
        """
        found = dict(observe.counters(self.namespace("router")))
        for side in ("a", "b"):
            for name, count in observe.counters(self.namespace(side)).items():
                found[f"{side}.{name}"] = count
        return found

    def set_link(self, link: str, *, delay: float | None = None, loss: float | None = None) -> None:
        """Change a delayed link while it runs (milliseconds one way, probability). Raises ValueError."""
        delayed = {one.wire for one in self.plan.links if self._is_delayed(one)}
        if self._wire is None or link not in delayed:
            raise ValueError(f"link {link!r} was built without delay or loss")
        if loss:
            self._single_segments()
        wiring.change_link(self._wire, link, delay=None if delay is None else delay / 1000, loss=loss)

    def set_detour(self, extra: float) -> None:
        """Packets that do not concern the relay take so many milliseconds more, one way, from now on.

        They take them on the dialer's access link, which has to have a delay. Raises ValueError.
        """
        if self._wire is None or self.delay["b"] <= 0:
            raise ValueError("a detour needs a delay on link 'b'")
        wiring.change_link(self._wire, "b", detour=extra / 1000)

    def capture(self, host: str, path: Path, device: str = "eth0") -> None:
        """Record a host's packets (headers only) to a pcap file until the lab closes. Raises OSError."""
        with wiring.frame_socket(self.namespace(host), device, offload=False) as sock:
            self._captures.append(wiring.start_child("capture.py", [str(sock.fileno()), str(path)], [sock]))


_KERNEL_DEVICES = {"tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6gre0"}
"""Fallback tunnels that some kernels put into every namespace; they are down and lead nowhere."""


def _fields(host: Host) -> dict[str, Any]:
    from dataclasses import fields

    return {one.name: getattr(host, one.name) for one in fields(host)}


def _check_link_values(delay: Mapping[str, float], loss: Mapping[str, float]) -> None:
    for name, value in [*delay.items(), *loss.items()]:
        if name not in ("relay", "a", "b"):
            raise ValueError(f"no link {name!r}; the access links are relay, a and b")
        if value < 0:
            raise ValueError(f"{name}: {value} is negative")
    if any(value >= 1 for value in loss.values()):
        raise ValueError("loss is a probability below 1 (0.02 is 2 percent)")


def _close_quietly(stream: IO[Any] | None) -> None:
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.close()
