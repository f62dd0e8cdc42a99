"""The scenarios that TEST_SCENARIOS.md reports: what each is to show, and how it is run.

A table of facts. Each row's id is also the mark of the lab test that runs it (`@pytest.mark.scenario`).
"""

from __future__ import annotations

from dataclasses import dataclass

from runs.scenario import Scenario

RETRY_SOON = ("--punch-retry", "8")
"""The cadence of later punches, shortened so that a short run shows it (default 30 s, doubling)."""


@dataclass(frozen=True, slots=True)
class Row:
    """`expected` is `direct` or `relay`; `codes`: the failure codes that are right when it is `relay`."""

    id: str
    title: str
    goal: str
    expected: str
    scenario: Scenario
    codes: tuple[str, ...] = ()


ROWS: tuple[Row, ...] = (
    Row(
        "S-001",
        "home router → home router",
        "Two private peers meet over the relay and punch one direct TCP connection. It is cut, they go on over the "
        "relay, punch again, and go on when the relay is killed: one gRPC stream throughout.",
        "direct",
        Scenario(name="s-001-home-home", transport="both", cut_direct=True, kill_relay=True, measure=True),
    ),
    Row(
        "S-002",
        "home router → public host",
        "The listener is public: no punch is needed, one plain dial from it or to it makes the path direct.",
        "direct",
        Scenario(name="s-002-home-public", listener_nat="public", dialer_nat="home", kill_relay=True, measure=True),
    ),
    Row(
        "S-003",
        "public host → home router",
        "The dialer is public: the listener behind its router dials it first (connection reversal).",
        "direct",
        Scenario(name="s-003-public-home", listener_nat="home", dialer_nat="public", kill_relay=True, measure=True),
    ),
    Row(
        "S-004",
        "symmetric NAT → home router",
        "No TCP punch is possible: the peers stay on the relay, gossip goes on, punches are retried with back-off.",
        "relay",
        Scenario(
            name="s-004-symmetric-home",
            listener_nat="home",
            dialer_nat="symmetric",
            timeout=60.0,
            duration=20.0,
            measure=True,
            listener_options=RETRY_SOON,
        ),
        codes=("MAPPING_DEPENDENT", "SYN_FILTERED", "TIMEOUT"),
    ),
    Row(
        "S-005",
        "carrier-grade NAT → carrier-grade NAT",
        "Two NATs on each side, both endpoint-independent: the punch goes through all four.",
        "direct",
        Scenario(name="s-005-cgnat-cgnat", listener_nat="cgnat", dialer_nat="cgnat", kill_relay=True, measure=True),
    ),
    Row(
        "S-006",
        "same LAN",
        "Both peers behind one router on one LAN: the path becomes the LAN itself.",
        "direct",
        Scenario(name="s-006-same-lan", listener_nat="same-lan", dialer_nat="same-lan", kill_relay=True),
    ),
    Row(
        "S-007",
        "IPv6 firewall → IPv6 firewall",
        "No NAT, but both sides drop unsolicited packets: the punch opens both firewalls.",
        "direct",
        Scenario(name="s-007-ipv6", listener_nat="ipv6", dialer_nat="ipv6", kill_relay=True),
    ),
    Row(
        "S-008",
        "symmetric NAT → public host",
        "A symmetric NAT becomes direct where the other side can accept; roles follow DCUtR, not the socket.",
        "direct",
        Scenario(
            name="s-008-symmetric-public", listener_nat="public", dialer_nat="symmetric", kill_relay=True, measure=True
        ),
    ),
    Row(
        "S-009",
        "home router → home router, --no-p2p",
        "With --no-p2p no DCUtR message is sent at all: the peers stay on the relay.",
        "relay",
        Scenario(name="s-009-no-p2p", p2p=False),
    ),
    Row(
        "S-010",
        "home router → home router, faults one after the other",
        "Silent cut, both NATs rebooted, another address, link down for 5 s: the session moves, nothing is lost, one "
        "gRPC stream.",
        "direct",
        Scenario(name="s-010-faults", trials=True),
    ),
    Row(
        "S-011",
        "home router → home router, relayed, the relay restarted",
        "With --no-p2p the session stays on circuits; the relay is killed and started again, and the stream goes on.",
        "relay",
        Scenario(name="s-011-relay-restart", p2p=False, trials=True),
    ),
    Row(
        "S-012",
        "home router → home router, the direct path slower than the relay",
        "The punch succeeds, but direct packets take 60 ms more: the session stays on the relay and says why. Then the "
        "direct path gets faster and the session moves; then it is cut three times, and held down longer each time.",
        "direct",
        Scenario(name="s-012-slower-direct", detour=60.0, listener_options=("--punch-retry", "1")),
    ),
    Row(
        "S-013",
        "home router → home router, QUIC alone",
        "Relay and peers speak nothing but QUIC: the dialer dials into the NAT that the listener's datagrams open. It "
        "is cut and comes back, and the relay is killed: one gRPC stream throughout.",
        "direct",
        Scenario(name="s-013-quic", transport="quic", cut_direct=True, kill_relay=True, measure=True),
    ),
    Row(
        "S-014",
        "home router → home router that blocks UDP",
        "Both transports are offered, and one network lets no UDP through: the punch goes over TCP.",
        "direct",
        Scenario(name="s-014-no-udp", transport="both", block="udp", kill_relay=True, measure=True),
    ),
    Row(
        "S-015",
        "home router → home router that blocks TCP",
        "Both transports are offered, and one network lets no TCP through: the relay is reached over QUIC, and the "
        "punch goes over it.",
        "direct",
        Scenario(name="s-015-no-tcp", transport="both", block="tcp", kill_relay=True),
    ),
    Row(
        "S-016",
        "home router with full cone → symmetric NAT in front of the listener, QUIC alone",
        "The listener's NAT has another port for each destination: its datagrams come from a port that it could not "
        "name, and the dialer aims there.",
        "direct",
        Scenario(
            name="s-016-symmetric-server",
            listener_nat="symmetric",
            dialer_nat="fullcone",
            transport="quic",
            kill_relay=True,
        ),
    ),
    Row(
        "S-017",
        "symmetric NAT → home router, both transports",
        "Neither TCP nor QUIC finds a way: each attempt tries both side by side, the pause between runs grows as with "
        "one, and the circuit carries the stream throughout.",
        "relay",
        Scenario(
            name="s-017-symmetric-both",
            listener_nat="home",
            dialer_nat="symmetric",
            transport="both",
            timeout=60.0,
            duration=20.0,
            measure=True,
            listener_options=RETRY_SOON,
        ),
        codes=("MAPPING_DEPENDENT", "SYN_FILTERED", "UDP_BLOCKED", "TIMEOUT"),
    ),
    Row(
        "S-018",
        "home router → home router, faults one after the other, QUIC alone",
        "Silent cut, both NATs rebooted, another address, link down for 5 s, over QUIC: what the connection does not "
        "outlive by itself the session does, and nothing is lost: one gRPC stream.",
        "direct",
        Scenario(name="s-018-faults-quic", transport="quic", trials=True),
    ),
)


def row(identifier: str) -> Row:
    """Look a scenario up by its id. Raises ValueError that lists the ids."""
    for one in ROWS:
        if one.id.lower() == identifier.lower():
            return one
    raise ValueError(f"unknown scenario {identifier!r}; one of: {', '.join(one.id for one in ROWS)}")
