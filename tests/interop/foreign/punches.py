"""The DCUtR rows: ours as listener and as dialer against each other kind, behind the lab's NATs, over each relay."""

from __future__ import annotations

from collections.abc import Iterator

from foreign.base import named
from foreign.cases import Case, Known
from foreign.inlab import run_lab
from foreign.peer import QUIC, TCP, Pool

RELAYED_MOST = 0.1
"""Of the echo's bytes that may still touch the relay once the path is direct: pings and leftovers, no payload."""
FALLBACK_SECONDS = 15.0
LATE = "PEER_UNSUPPORTED"
"""go offers the protocol once it has found a public address of its own: it looks every 0.25 to 5 s."""

HOME = ("home", "home")
DIRECT = (
    ("eimhash", "eimhash"),
    ("home-rst", "home-rst"),
    ("home-icmp", "home-icmp"),
    ("firewall", "firewall"),
    ("cgnat", "home"),
    ("home", "public"),
    ("public", "home"),
    ("fullcone", "home"),
    ("fullcone", "symmetric"),
)
"""(listener, dialer) pairs that must become direct."""
OVER_QUIC = (("eimhash", "eimhash"), ("firewall", "firewall"), ("fullcone", "symmetric"))
"""The same over QUIC."""
FALLBACK = (("symmetric", "home"), ("home", "symmetric"))
"""Pairs that stay relayed, with traffic going on."""
ONE_SIDED = (("home", "public"), ("public", "home"))
"""Pairs that a plain dial of either side makes direct: js-libp2p over TCP has no other, it dials from a new port."""

_STAYED = "stayed relayed"
_TRANSLATED = Known(
    "rust-libp2p (libp2p-identify 0.48.0, emit_new_external_addr_candidate_event) replaces an observed port by its "
    "listening port: the relay sees and tells 11.2.0.2:33877, its CONNECT names 11.2.0.2:4102; right only where the "
    "NAT keeps ports",
    _STAYED,
)
_CLOSED_DIAL = Known(
    "rust-libp2p gives its dial up at the NAT's first ICMP error; then its listener answers our SYN with another "
    "sequence number, which its own NAT drops, and its next dials leave from other ports. Seen when our SYN was late "
    "by more than a one-way delay (loaded machine)",
    _STAYED,
    sometimes=True,
)
KNOWN: dict[tuple[str, str], Known] = {
    ("eimhash dials eimhash", "rust → ours → ours"): _TRANSLATED,
    ("eimhash dials eimhash", "ours → ours → rust"): _TRANSLATED,
    ("home-icmp dials home-icmp", "ours → ours → rust"): _CLOSED_DIAL,
}
"""(row, combination): why it fails on their side."""


def direct(pool: Pool, **order: object) -> str:
    """Direct by the kernel's sockets on both sides, by packet counters, and by outliving the relay."""
    found = run_lab(pool, "foreign.labcase", **order)
    assert found["direct"], f"{_STAYED}; ours: {found['ours']}; theirs: {found['theirs']}"
    assert found["sockets"], found
    for name in ("echo", "after_kill"):
        moved = found[name]
        assert isinstance(moved, dict)
        assert moved["same"], found
        assert moved["relay_bytes"] < RELAYED_MOST * moved["direct_bytes"], moved
    told = found["ours"]
    assert isinstance(told, list)
    attempts = [one.get("attempt") for one in told if one.get("ok")]
    how = f"attempt {attempts[0]}" if attempts else "dialled"
    late = "; the peer first refused DCUtR, then told of it" if LATE in (one.get("code") for one in told) else ""
    return f"{how}, {found['seconds']} s after the dial through the relay{late}"


def fallback(pool: Pool, **order: object) -> str:
    """No direct socket, a code that says why, and the relayed connection carries on."""
    found = run_lab(pool, "foreign.labcase", seconds=FALLBACK_SECONDS, **order)
    assert not found["direct"], found["sockets"]
    moved, told = found["echo"], found["ours"]
    assert isinstance(moved, dict)
    assert moved["same"], found
    assert isinstance(told, list)
    codes = {str(one["code"]) for one in told if not one["ok"]}
    assert codes or (order["listener"] != "ours" and "js" not in order.values()), f"no code; {found}"
    return ", ".join(sorted(codes)) or "no attempt was made by the other side"


def _case(pair: tuple[str, str], relay: str, listener: str, dialer: str, transport: str = TCP) -> Case:
    stays = pair in FALLBACK or ("js" in (listener, dialer) and pair not in ONE_SIDED)
    expected = fallback if stays else direct

    def run(pool: Pool) -> str:
        nats = {"listener_nat": pair[0], "dialer_nat": pair[1]}
        return expected(pool, relay=relay, listener=listener, dialer=dialer, transport=transport, **nats)

    row = f"{pair[1]} dials {pair[0]}" + (" (stays relayed)" if stays else "")
    who = f"{dialer} → {relay} → {listener}"
    kinds = tuple({relay, listener, dialer})
    known = KNOWN.get((row, who))
    if transport != TCP and known is not _TRANSLATED:
        known = None
    return Case(named("dcutr", transport), row, who, kinds, run, known, lab=True, transport=transport)


def cases(others: tuple[str, ...]) -> Iterator[Case]:
    punching = [kind for kind in others if kind in ("rust", "go")]
    for other in punching:
        for listener, dialer in (("ours", other), (other, "ours")):
            for relay in ("ours", *(kind for kind in others if kind != "py")):
                yield _case(HOME, relay, listener, dialer)
    for pair in (*DIRECT, *FALLBACK):
        for other in punching:
            for listener, dialer in (("ours", other), (other, "ours")):
                yield _case(pair, "ours", listener, dialer)
    for other in punching:
        for listener, dialer in (("ours", other), (other, "ours")):
            for relay in ("ours", *punching):
                yield _case(HOME, relay, listener, dialer, QUIC)
            for pair in OVER_QUIC:
                yield _case(pair, "ours", listener, dialer, QUIC)
    if "js" in others:
        for listener, dialer in (("ours", "js"), ("js", "ours")):
            yield _case(HOME, "js", listener, dialer)
            for pair in (HOME, *ONE_SIDED):
                yield _case(pair, "ours", listener, dialer)
