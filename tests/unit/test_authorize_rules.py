"""The table of rules that `authorize` takes: which rule decides on a method, and which rules are refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import grpc
import pytest

import punchbridge
from punchbridge.identity import Identity
from punchbridge.local.peer import TABLE, ConnectInfo
from punchbridge.rpc.authorize import NO_PEER, NO_RULE, RULE_KEY, Authorizer

ALICE, BOB = str(Identity.generate()), str(Identity.generate())


class Ended(Exception):
    """What a context's abort raises."""


class Context:
    """The part of a handler's context that a check asks and tells."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.trailing: Any = None
        self.refused: Any = None

    def peer(self) -> str:
        return f"unix:{self.name}"

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.trailing = metadata

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.refused = (code, details)
        raise Ended


def ask(authorizer: Authorizer, peer: str, method: str, *, known: bool = True) -> str | None:
    """The rule that refuses the call, None when the handler runs."""
    context = Context(f"/of/{peer}")
    handler = grpc.unary_unary_rpc_method_handler(lambda request, _: request) if known else None
    found = authorizer.intercept_service(lambda _: handler, SimpleNamespace(method=method))
    if peer:
        TABLE.add(context.name, ConnectInfo(peer, "/p/1", None))  # type: ignore[arg-type]
    try:
        if known:
            assert found.unary_unary(b"x", context) == b"x"
        else:
            list(found.stream_stream(iter(()), context))
    except Ended:
        code, _ = context.refused
        if code is grpc.StatusCode.PERMISSION_DENIED:
            return str(dict(context.trailing)[RULE_KEY])
        return str(code.name)
    finally:
        TABLE.remove(context.name)
    return None


def test_the_most_specific_rule_decides_alone() -> None:
    authorizer = punchbridge.authorize(
        {
            "*": ALICE,
            "shop.*": [BOB],
            "shop.v1.*": punchbridge.ANYONE,
            "shop.v1.Orders/*": [ALICE, BOB],
            "/shop.v1.Orders/Cancel": [ALICE],
            "shop.v1.Orders/Purge": (),
        }
    )
    decided = {
        "/other.Service/Get": (None, "*"),
        "/shop.Service/Get": ("shop.*", None),
        "/shop.v2.Service/Get": ("shop.*", None),
        "/shop.v1.Service/Get": (None, None),
        "/shop.v1.Orders/List": (None, None),
        "/shop.v1.Orders/Cancel": (None, "shop.v1.Orders/Cancel"),
        "/shop.v1.Orders/Purge": ("shop.v1.Orders/Purge", "shop.v1.Orders/Purge"),
        # Neither a service whose name only begins so, nor a method of another service.
        "/shopping.Service/Get": (None, "*"),
        "/shop.v1.OrdersArchive/Cancel": (None, None),
        "": (None, "*"),
    }
    for method, expected in decided.items():
        assert (ask(authorizer, ALICE, method), ask(authorizer, BOB, method)) == expected, method
    assert authorizer.refused()["shop.v1.Orders/Purge"] == 2


def test_what_no_rule_names_is_refused_to_everybody() -> None:
    authorizer = punchbridge.authorize({"shop.Orders/List": punchbridge.ANYONE})
    assert ask(authorizer, ALICE, "/shop.Orders/List") is None
    assert ask(authorizer, ALICE, "/shop.Orders/list") == NO_RULE
    assert ask(authorizer, ALICE, "/grpc.health.v1.Health/Check") == NO_RULE
    assert ask(punchbridge.authorize({}), ALICE, "/shop.Orders/List") == NO_RULE


def test_a_method_that_does_not_exist_is_told_only_to_those_who_might_call_it() -> None:
    authorizer = punchbridge.authorize({"shop.*": [ALICE]})
    assert ask(authorizer, ALICE, "/shop.Orders/Lost", known=False) == "UNIMPLEMENTED"
    assert ask(authorizer, BOB, "/shop.Orders/Lost", known=False) == "shop.*"
    assert ask(authorizer, BOB, "/else.Where/Lost", known=False) == NO_RULE


def test_labels_from_a_mapping_and_from_a_function() -> None:
    rules = {"shop.*": ["staff"], "shop.Admin/*": ["on call", ALICE]}
    labels = {ALICE: "staff", BOB: ["guest", "on call"]}
    for told in (labels, lambda peer: labels.get(peer, ())):
        authorizer = punchbridge.authorize(rules, labels=told)
        assert ask(authorizer, ALICE, "/shop.Orders/List") is None
        assert ask(authorizer, BOB, "/shop.Orders/List") == "shop.*"
        assert ask(authorizer, BOB, "/shop.Admin/Stop") is None
    labels[BOB] = "staff"
    assert ask(authorizer, BOB, "/shop.Orders/List") is None
    assert ask(authorizer, BOB, "/shop.Admin/Stop") == "shop.Admin/*"


def test_labels_that_cannot_be_told_end_the_call() -> None:
    def labels(_: str) -> list[str]:
        raise LookupError("the directory is down")

    authorizer = punchbridge.authorize({"*": ["staff", ALICE]}, labels=labels)
    assert ask(authorizer, ALICE, "/shop.Orders/List") is None
    with pytest.raises(LookupError):
        ask(authorizer, BOB, "/shop.Orders/List")


def test_calls_that_no_peer_stands_behind() -> None:
    rules = {"*": punchbridge.ANYONE}
    authorizer = punchbridge.authorize(rules)
    assert ask(authorizer, "", "/shop.Orders/List") == "UNAUTHENTICATED"
    assert authorizer.refused() == {NO_PEER: 1}
    assert ask(punchbridge.authorize(rules, allow=lambda name: name == "unix:/of/"), "", "/shop.Orders/List") is None


def test_peer_ids_in_either_form_are_one_peer() -> None:
    peer = Identity.generate().peer_id
    for form in (peer, peer.to_base58(), peer.to_cid()):
        assert ask(punchbridge.authorize({"*": [form]}), str(peer), "/a.B/C") is None


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"shop.Orders": [ALICE]}, "names no methods"),
        ({"shop.Orders/": [ALICE]}, "names no methods"),
        ({"shop.Orders/List/x": [ALICE]}, "names no methods"),
        ({"shop*": [ALICE]}, "names no methods"),
        ({"": [ALICE]}, "names no methods"),
        ({"shop.Orders/Лист": [ALICE]}, "names no methods"),
        ({"shop.*": [ALICE], "/shop.*": [BOB]}, "twice"),
        ({"*": [ALICE[:-1]]}, "rule '\\*': not a peer id"),
        ({"*": [""]}, "rule '\\*': not a peer id"),
        ({"*": ["staff"]}, "give labels="),
    ],
)
def test_rules_with_an_error_are_refused_at_the_start(rules: dict[str, Any], words: str) -> None:
    with pytest.raises(punchbridge.ConfigError, match=words):
        punchbridge.authorize(rules)
