"""Which peers may call which services and methods of a grpc server: a server interceptor, made from a table of rules.

It knows the table of pumps, so it is sure of who calls. Whether a peer may open a session at all is decided elsewhere.
"""

from __future__ import annotations

import inspect
import logging
import re
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio

from punchbridge.config.access import Anyone
from punchbridge.errors import AddressError, ConfigError
from punchbridge.identity import PeerId, parse_peer_id, peer_text
from punchbridge.local.peer import TABLE
from punchbridge.rpc.checked import CallRefusal, Check, aio_checked, aio_unknown, checked, unknown
from punchbridge.rpc.guard import UNBRIDGED, Allow

__all__ = ["NO_PEER", "NO_RULE", "RULE_KEY", "Authorizer", "Callers", "Labels", "authorize"]

log = logging.getLogger(__name__)

Callers: TypeAlias = str | PeerId | Iterable[str | PeerId] | Anyone
"""Who may call: peer ids, labels of peers, or ANYONE whom the bridge lets in. An empty tuple is nobody."""

Labels: TypeAlias = Callable[[str], str | Iterable[str]] | Mapping[str, str | Iterable[str]]
"""The labels of a peer by its id (base58 text). Asked at each call, so that changes hold at once."""

RULE_KEY: Final = "punchbridge-rule"
"""Trailing metadata key that carries the name of the rule that refused a call."""

NO_RULE: Final = "(no rule)"
"""The name of what refuses a method that no rule names."""

NO_PEER: Final = "(no peer)"
"""The name of what refuses a call that no peer stands behind."""

_PATTERN: Final = re.compile(r"\*|(?:[\w-]+\.)+\*|[\w.-]+/(?:\*|[\w.-]+)", re.ASCII)
_LIKE_A_PEER_ID: Final = re.compile(r"(?:12D3KooW|16Uiu2HA|Qm|bafz|k51|k2k4)\w{12,}")
"""A text that begins so and is no peer id was meant to be one."""


@dataclass(frozen=True)
class _Rule:
    name: str
    anyone: bool
    peers: frozenset[str]
    labels: frozenset[str]

    @classmethod
    def of(cls, name: str, callers: Callers) -> _Rule:
        """Raises ConfigError that names the rule."""
        if isinstance(callers, Anyone):
            return cls(name, True, frozenset(), frozenset())
        peers, labels = set(), set()
        for one in (callers,) if isinstance(callers, str | PeerId) else callers:
            peer = one if isinstance(one, PeerId) else _peer(name, one)
            if peer is None:
                labels.add(str(one))
            else:
                peers.add(peer_text(peer))
        return cls(name, False, frozenset(peers), frozenset(labels))

    def names(self, peer: str, labels: Callable[[str], frozenset[str]]) -> bool:
        """Whether the peer is among its callers; `labels` is asked only when its id is not."""
        return self.anyone or peer in self.peers or bool(self.labels and self.labels & labels(peer))


def _peer(rule: str, text: str) -> PeerId | None:
    """The peer that a text names; None for a label. Raises ConfigError for neither."""
    try:
        return parse_peer_id(text)
    except AddressError as problem:
        if not text.strip() or _LIKE_A_PEER_ID.fullmatch(text.strip()):
            raise ConfigError(f"rule {rule!r}: {problem}") from None
        return None


class _Rules:
    """The table. The most specific rule that names a method decides alone."""

    def __init__(self, rules: Mapping[str, Callers]) -> None:
        self._exact: dict[str, _Rule] = {}
        self._packages: list[tuple[str, _Rule]] = []
        self._all: _Rule | None = None
        self.labelled = False
        seen: set[str] = set()
        for name, callers in rules.items():
            pattern = name.removeprefix("/")
            if not _PATTERN.fullmatch(pattern):
                raise ConfigError(
                    f"{name!r} names no methods; write package.Service/Method, package.Service/*, package.* or *"
                )
            rule = _Rule.of(pattern, callers)
            self.labelled = self.labelled or bool(rule.labels)
            if pattern in seen:
                raise ConfigError(f"{name!r} stands in the rules twice")
            seen.add(pattern)
            if pattern == "*":
                self._all = rule
            elif "/" in pattern:
                self._exact[pattern] = rule
            else:
                self._packages.append((pattern.removesuffix("*"), rule))
        self._packages.sort(key=lambda one: len(one[0]), reverse=True)

    def of(self, method: str) -> _Rule | None:
        """The rule that decides on /package.Service/Method; None when none names it."""
        path = method.removeprefix("/")
        service = path.partition("/")[0]
        for key in (path, f"{service}/*"):
            if key in self._exact:
                return self._exact[key]
        return next((rule for prefix, rule in self._packages if service.startswith(prefix)), self._all)


class Authorizer(grpc.ServerInterceptor, grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """The interceptor that `authorize` makes, for sync servers and for asyncio ones."""

    def __init__(self, rules: _Rules, labels: Labels | None, allow: Allow | None) -> None:
        self._rules = rules
        self._labels = labels
        self._allow = allow
        self._refused: Counter[str] = Counter()
        self._lock = threading.Lock()

    def refused(self) -> dict[str, int]:
        """How many calls each rule has refused, by its name; NO_RULE and NO_PEER are among the names."""
        with self._lock:
            return dict(self._refused)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Called by grpc. An asyncio server hands a continuation that has to be awaited."""
        check = self._check(handler_call_details.method)
        found = continuation(handler_call_details)
        if inspect.isawaitable(found):
            return self._asynchronous(found, check)
        return unknown(check) if found is None else checked(found, check)

    @staticmethod
    async def _asynchronous(found: Awaitable[Any], check: Check) -> Any:
        handler = await found
        return aio_unknown(check) if handler is None else aio_checked(handler, check)

    def _check(self, method: str) -> Check:
        def check(context: Any) -> CallRefusal | None:
            name = context.peer()
            info = TABLE.find(name)
            if info is None:
                return None if self._allow is not None and self._allow(name) else self._told(NO_PEER, name, method)
            rule = self._rules.of(method)
            if rule is None:
                return self._told(NO_RULE, info.peer_id, method)
            return None if rule.names(info.peer_id, self._labels_of) else self._told(rule.name, info.peer_id, method)

        return check

    def _labels_of(self, peer: str) -> frozenset[str]:
        if self._labels is None:
            return frozenset()
        found = self._labels.get(peer, ()) if isinstance(self._labels, Mapping) else self._labels(peer)
        return frozenset((found,)) if isinstance(found, str) else frozenset(found)

    def _told(self, rule: str, caller: str, method: str) -> CallRefusal:
        with self._lock:
            self._refused[rule] += 1
        log.info("refused %r to %s: %s", method[:200], caller, rule)
        if rule == NO_PEER:
            return UNBRIDGED
        details = "no rule names this method" if rule == NO_RULE else f"rule {rule!r} does not name this peer"
        return CallRefusal(grpc.StatusCode.PERMISSION_DENIED, details, ((RULE_KEY, rule),))


def authorize(rules: Mapping[str, Callers], *, labels: Labels | None = None, allow: Allow | None = None) -> Authorizer:
    """For `grpc.server(..., interceptors=[…])` and `grpc.aio.server(..., interceptors=[…])`: who may call what.

    rules: from methods to their callers. Methods are `package.Service/Method`, `package.Service/*`, `package.*` (all
    services below a package) or `*`; of several rules the most specific one decides alone. What no rule names is
    refused, and so is a method that the server does not have. Callers are peer ids and labels, or ANYONE.
    A refusal is PERMISSION_DENIED before the handler runs; its details name the rule, and so does the trailing
    metadata RULE_KEY.

    labels: the labels of a peer, as a mapping from its id or a function of it. It is asked at each call that a label
    may decide, in the thread (of asyncio: in the event loop) that handles the call; what it raises ends that call.
    allow: is asked with `context.peer()` of calls that came another way than the bridge (the server's own TCP port,
    say); without it they are refused with UNAUTHENTICATED.

    Raises ConfigError for a rule that names no method, for a peer id with a typing error, and for labels in the rules
    when none are given.
    """
    table = _Rules(rules)
    if table.labelled and labels is None:
        raise ConfigError("the rules name labels, and nothing tells the labels of a peer; give labels=")
    return Authorizer(table, labels, allow)
