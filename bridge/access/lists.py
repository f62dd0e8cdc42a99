"""Lists of peers and networks: what stands in flags and in files like authorized_keys, and who is on one.

A file has one peer id or network a line, then a label if wanted; `#` begins a comment at the start of a line. Pure: it
is told texts, bytes and addresses. What being on a list means is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, TypeAlias

from punchbridge.access.secret import is_ticket
from punchbridge.config.access import AccessLimits
from punchbridge.errors import AddressError, ConfigError
from punchbridge.iana import IP, source_of
from punchbridge.identity import PeerId, parse_peer_id

__all__ = [
    "MAX_LABEL",
    "NO_RULES",
    "Address",
    "Entry",
    "Network",
    "Rules",
    "Who",
    "check_label",
    "parse_list",
    "parse_who",
]

Address: TypeAlias = IP
Network: TypeAlias = IPv4Network | IPv6Network
Who: TypeAlias = PeerId | Network
"""What one line names: a peer, or all peers that are seen at the addresses of a network."""

MAX_LABEL: Final = 64
"""Characters. A label is a name for people, such as "alice's laptop"."""

_MAX_LINE: Final = 512
"""Characters. The longest peer id has 93, the longest label 64."""

_MAPPED: Final = IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True)
class Entry:
    """One line of a list."""

    who: Who
    label: str = ""


@dataclass(frozen=True)
class Rules:
    """The entries of a list, and who is on it. Equal when the entries are."""

    entries: tuple[Entry, ...] = ()
    peers: frozenset[PeerId] = field(init=False, repr=False, compare=False)
    labels: Mapping[PeerId, frozenset[str]] = field(init=False, repr=False, compare=False)
    """The labels of each peer that has one."""
    _networks: Mapping[tuple[int, int], frozenset[int]] = field(init=False, repr=False, compare=False)
    """For IP version and bits behind the prefix, the prefixes: so asking costs no more for ten thousand networks."""

    def __post_init__(self) -> None:
        labels: dict[PeerId, frozenset[str]] = {}
        networks: dict[tuple[int, int], set[int]] = {}
        for entry in self.entries:
            if not isinstance(entry.who, PeerId):
                behind = entry.who.max_prefixlen - entry.who.prefixlen
                networks.setdefault((entry.who.version, behind), set()).add(int(entry.who.network_address) >> behind)
            elif entry.label:
                labels[entry.who] = labels.get(entry.who, frozenset()) | {entry.label}
        peers = frozenset(entry.who for entry in self.entries if isinstance(entry.who, PeerId))
        object.__setattr__(self, "peers", peers)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "_networks", {key: frozenset(prefixes) for key, prefixes in networks.items()})

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Rules:
        """Reads peer ids (both forms), IP addresses and networks. Raises ConfigError that names the bad one."""
        return cls(tuple(Entry(parse_who(text)) for text in texts))

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __or__(self, other: Rules) -> Rules:
        """All entries of both."""
        return Rules(tuple(dict.fromkeys(self.entries + other.entries))) if other.entries else self

    def match(self, peer: PeerId, ip: Address | None) -> bool:
        """Whether the peer, seen at `ip` (None: unknown), is on the list."""
        return peer in self.peers or self.match_address(ip)

    def match_address(self, ip: Address | None) -> bool:
        """Whether a network of the list has the address."""
        if ip is None or not self._networks:
            return False
        # A dual-stack socket, a translator or a tunnel may show an IPv4 peer as an IPv6 address; a rule means both.
        seen = {(one.version, int(one)) for one in (ip, source_of(ip))}
        return any(
            number >> behind in prefixes
            for (of, behind), prefixes in self._networks.items()
            for version, number in seen
            if of == version
        )


NO_RULES: Final = Rules()
"""A list on which nobody is."""


def parse_who(text: str) -> Who:
    """Reads a peer id (both forms), an IP address or a network. Raises ConfigError."""
    text = text.strip()
    try:
        return _plain(ip_network(text, strict=False))
    except ValueError:
        pass
    try:
        return parse_peer_id(text)
    except AddressError:
        if is_ticket(text):
            raise ConfigError("this is a ticket; a list has the peer id that `punchbridge key show` prints") from None
        shown = text if len(text) <= 80 else f"{text[:80]}…"
        raise ConfigError(
            f"{shown!r} is neither a peer id nor an IP network; write 12D3KooW… or 203.0.113.0/24"
        ) from None


def _plain(network: Network) -> Network:
    """The network without a zone; IPv4 addresses mapped into IPv6 are those IPv4 addresses."""
    if isinstance(network, IPv4Network):
        return network
    if getattr(network.network_address, "scope_id", None):
        raise ValueError("a network has no zone")
    if network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def check_label(text: str) -> str:
    """The label without blanks around it. Raises ConfigError for one that a line or a terminal cannot show."""
    text = text.strip()
    if len(text) > MAX_LABEL or not text.isprintable():
        raise ConfigError(f"a label is one printable line of at most {MAX_LABEL} characters; shorten {text[:40]!r}…")
    return text


def parse_list(data: bytes, name: str, limits: AccessLimits) -> Rules:
    """Reads a whole file; `name` is its name. Raises ConfigError that names the file, the line and what to do."""
    if len(data) > limits.file:
        raise ConfigError(f"{name} has more than {limits.file} bytes; name a list of peers, or split it")
    entries: list[Entry] = []
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            entry = _line(raw)
        except ConfigError as problem:
            raise ConfigError(f"{name}, line {number}: {problem}") from None
        if entry is not None:
            entries.append(entry)
        if len(entries) > limits.entries:
            raise ConfigError(f"{name}, line {number}: more than {limits.entries} entries; write networks, or split it")
    return Rules(tuple(entries))


def _line(raw: bytes) -> Entry | None:
    """What one line says; None for an empty one and for a comment. Raises ConfigError."""
    try:
        text = raw.decode().strip()
    except UnicodeDecodeError:
        raise ConfigError("not UTF-8; save the file as UTF-8 text") from None
    if not text or text.startswith("#"):
        return None
    if len(text) > _MAX_LINE:
        raise ConfigError(f"{len(text)} characters; write one peer id and one label a line")
    who, _, label = text.replace("\t", " ").partition(" ")
    return Entry(parse_who(who), check_label(label))
