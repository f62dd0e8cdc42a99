"""The configuration: one value from Python, tables, variables and texts; the unknown is named with its neighbour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import punchbridge
from punchbridge.api.configuration import configured, host_config, load_config
from punchbridge.cli.callers import Callers
from punchbridge.cli.configuration import setting_tables
from punchbridge.cli.options import NetworkOptions
from punchbridge.cli.relay import LimitFlags, RelayFlags, RelaySettings
from punchbridge.config import Config, Fields, Limits, Punch, SessionLimits, SwarmLimits, Times, load
from punchbridge.config.load import apply, from_environment, from_pairs, settings
from punchbridge.config.values import KINDS
from punchbridge.errors import AddressError, ConfigError
from punchbridge_node.commands.application import node_config
from punchbridge_node.commands.flags import NodeFlags, NodeProgram, NodeSettings
from punchbridge_node.config import NodeLimits, StoreLimits
from punchbridge_relay.limits import RelayLimits


def test_python_a_file_a_variable_and_a_text_make_the_same_value() -> None:
    wanted = Config(
        announce=["/ip4/192.0.2.7/tcp/4001"],
        punch=Punch(retry=60),
        limits=Limits(swarm=SwarmLimits(connections=7, dial_stagger=0.5)),
    )
    text = """
        announce = ["/ip4/192.0.2.7/tcp/4001"]
        punch.retry = 60
        [limits.swarm]
        connections = 7
        dial_stagger = 0.5
    """
    assert load(text) == wanted
    variables = {
        "PUNCHBRIDGE_ANNOUNCE": "/ip4/192.0.2.7/tcp/4001",
        "PUNCHBRIDGE_PUNCH_RETRY": "60",
        "PUNCHBRIDGE_LIMITS_SWARM_CONNECTIONS": "7",
        "PUNCHBRIDGE_LIMITS_SWARM_DIAL_STAGGER": "0.5",
    }
    assert load("", variables) == wanted
    pairs = ["punch.retry=60", "limits.swarm.connections=7", "limits.swarm.dial_stagger = 0.5"]
    assert apply(Config(announce=wanted.announce), from_pairs(pairs, Config(), {})) == wanted
    assert configured(Config(announce=wanted.announce, punch=wanted.punch), {"limits": wanted.limits}) == wanted


def test_the_environment_wins_over_the_file() -> None:
    config = load("allow_private = true\nagent = 'a/1'", {"PUNCHBRIDGE_LAN": "0", "PUNCHBRIDGE_NO_P2P": "yes"})
    assert (config.allow_private, config.agent, config.punch.enabled) == (False, "a/1", False)
    assert load("[transports]\nquic = false").transports.quic is False
    assert load("[transports]\nquic = false", {"PUNCHBRIDGE_NO_QUIC": "0"}).transports.quic is True


def test_an_empty_variable_is_none() -> None:
    assert load("", {"PUNCHBRIDGE_AGENT": "", "PUNCHBRIDGE_TIMES_STOP": ""}) == Config()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("liste = []", "did you mean listen"),
        ("[limits.swarm]\nconections = 1", "no setting limits.swarm.conections; did you mean limits.swarm.connections"),
        ("[limits.swam]", "did you mean limits.swarm"),
        ("[portmap]", "no router is asked"),
        ("transports = ['tcp']", r"transports is a table of settings; write \[transports\]"),
        ("[transports]\ntcp = false", "no setting transports.tcp"),
        ("limits = 3", r"limits is a table .* \[limits\]"),
        ("listen = '/ip4/0.0.0.0/tcp/1'", r"listen = \["),
        ("[limits.swarm]\nconnections = 1.5", "limits.swarm.connections is 1.5; give a whole number"),
        ("[limits.swarm]\nparallel_dials = 0", "limits.swarm.parallel_dials is 0; give a whole number of at least 1"),
        ("[limits.tcp]\nsyn_ack_retries = 128", "syn_ack_retries is 128; the system takes at most 127"),
        ("[limits.tcp]\nuser_timeout = 3e6", "user_timeout is 3000000.0; the system takes at most 2147483"),
        ("[limits.muxed]\nsend_queue_most = 1000", "send_queue_most is 1000; give at least send_queue, 262144"),
        ("[limits.yamux]\nwindow_most = 4294967296", "give at most 4294967295"),
        ("[limits.yamux]\nkeepalive_timeout = 0", "keepalive_timeout is 0"),
        ("[times]\nstop = nan", "times.stop is nan; give a number of seconds"),
        ("sessions = 1", "sessions is 1; give true or false"),
        ("punch.retry = 0.5", "the least is 1 s"),
        ("agent = ", "is no TOML file"),
        ("[relay]", "punchbridge relay"),
    ],
)
def test_what_makes_no_sense_is_told_with_its_key_and_what_to_do(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(text)


def test_variables_and_texts_are_checked_as_well() -> None:
    with pytest.raises(ConfigError, match="PUNCHBRIDGE_TIMES_STOP is 'soon'; give a number of seconds"):
        load("", {"PUNCHBRIDGE_TIMES_STOP": "soon"})
    with pytest.raises(ConfigError, match=r"did you mean times\.stop"):
        from_pairs(["times.stopp=1"], Config(), {})
    with pytest.raises(ConfigError, match="no KEY=VALUE"):
        from_pairs(["times.stop"], Config(), {})
    with pytest.raises(ConfigError, match="--listen does"):
        from_pairs(["listen=/ip4/0.0.0.0/tcp/1"], Config(), {"listen": "--listen"})


def test_an_unknown_field_in_python_is_named_with_its_neighbour() -> None:
    with (
        pytest.raises(ConfigError, match="relays is the list"),
        punchbridge.open(relay=[]),  # type: ignore[call-arg]
    ):
        pass
    with pytest.raises(ConfigError, match="did you mean allow_private"):
        configured(None, {"allow_privat": True})
    with pytest.raises(ConfigError, match=r"write listen=\["):
        Config(listen="/ip4/0.0.0.0/tcp/1")
    with pytest.raises(ConfigError, match="give a Limits"):
        Config(limits=SwarmLimits())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"give a punchbridge\.Config"):
        configured({"listen": []}, {})  # type: ignore[arg-type]


def test_the_keyword_arguments_are_the_fields() -> None:
    names = [name for name in Fields.__annotations__ if name not in ("allow", "deny")]  # short for those of `access`
    assert names == list(Config.__annotations__)


def test_punch_may_be_a_bool() -> None:
    given = Config(punch=Punch(retry=60))
    assert configured(given, {"punch": False}).punch == Punch(enabled=False, retry=60)
    assert Punch(retry=3600).retry_most == 3600


def test_each_setting_has_a_variable_of_its_own_a_unit_and_a_reason() -> None:
    for value in (Config(), RelaySettings(), NodeProgram()):
        found = list(settings(value))
        assert len({one.variable for one in found}) == len(found)
        assert all(one.kind in KINDS or one.kind in ("Addresses", "File", "Key", "Texts") for one in found)
        page = setting_tables(value)
        assert all(f"`{one.variable}`" in page for one in found)


@given(st.dictionaries(st.sampled_from([one.variable for one in settings(Config())]), st.text(max_size=12)))
def test_any_environment_makes_a_value_or_a_config_error(variables: dict[str, str]) -> None:
    try:
        load("", variables)
    except ConfigError:
        pass


def test_a_file_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file"):
        load_config("/nowhere.toml")


def test_what_is_announced_must_lead_here() -> None:
    assert [str(one) for one in host_config(Config(announce=["/dns4/me.example/tcp/1"])).announce] == [
        "/dns4/me.example/tcp/1"
    ]
    relay = "/ip4/192.0.2.9/tcp/1/p2p/12D3KooWFdu8gD1mzqTymB86AvMawyz5YwjFVMYEzwjpiYF9cYxe"
    with pytest.raises(AddressError, match="while it accepts us"):
        host_config(Config(announce=[f"{relay}/p2p-circuit"]))


# --- a relay's connections ----------------------------------------------------------------------------------


def test_a_relay_has_connections_for_what_it_grants() -> None:
    assert RelayLimits().swarm() == SwarmLimits()
    many = RelayLimits(reservations=5000, reservations_per_address=0).swarm()
    assert many.connections >= 5000 + RelayLimits().circuits
    assert many.connections_per_address == 0
    assert many.half_open == 1250
    assert RelayLimits(reservations=0).swarm().connections == 0
    assert RelayLimits(reservations_per_address=300).swarm().connections_per_address > 300


def test_what_the_operator_says_of_connections_is_kept() -> None:
    said = ("limits.swarm.connections=2048", "limits.swarm.connections_per_address=5", "limits.swarm.mailbox=7")
    settings_of = RelayFlags(set=said).settings(LimitFlags(reservations=5000, reservations_per_address=0), Callers())
    assert settings_of.limits.swarm == SwarmLimits(
        connections=2048,
        connections_per_address=5,
        connections_per_24=2259,
        half_open=1250,
        half_open_per_address=0,
        mailbox=7,
    )


def test_a_relay_reads_its_own_table_and_no_other() -> None:
    settings_of = apply(RelaySettings(), {"relay": {"reservations": 9}, "limits": {"swarm": {"half_open": 3}}})
    assert (settings_of.relay.reservations, settings_of.limits.swarm.half_open) == (9, 3)
    variables = {"PUNCHBRIDGE_RELAY_RESERVATIONS": "5", "PUNCHBRIDGE_ALLOW": "10.0.0.0/8 11.0.0.0/8"}
    read = apply(RelaySettings(), from_environment(variables, RelaySettings()))
    assert (read.relay.reservations, read.access.allow) == (5, ("10.0.0.0/8", "11.0.0.0/8"))
    with pytest.raises(ConfigError, match="no setting punch"):
        apply(RelaySettings(), {"punch": {}})


# --- the node's table ---------------------------------------------------------------------------------------


def told(tmp_path: Path, text: str = "", pairs: tuple[str, ...] = (), **flags: Any) -> NodeProgram:
    """What `listen` or `dial` reads from a file, the environment and its flags."""
    file = tmp_path / "node.toml"
    file.write_text(text)
    return NodeFlags(**flags).configuration(NetworkOptions(config=file, set=pairs))


def test_a_file_a_variable_and_a_flag_of_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
        allow_private = true
        [node]
        network = "kaspa-simnet"
        ping_interval = 7
        peer_store = "peers.db"
        min_protocol = 8
        [node.limits]
        peers = 5
        store.queue = 3
    """
    read = told(tmp_path, text)
    assert (read.allow_private, read.node.network, read.node.peer_store) == (True, "kaspa-simnet", "peers.db")
    assert read.node == NodeSettings(
        network="kaspa-simnet",
        ping_interval=7.0,
        peer_store="peers.db",
        min_protocol=8,
        limits=NodeLimits(peers=5, store=StoreLimits(queue=3)),
    )
    monkeypatch.setenv("PUNCHBRIDGE_NETWORK", "kaspa-mainnet")
    monkeypatch.setenv("PUNCHBRIDGE_NODE_LIMITS_PEERS", "6")
    monkeypatch.setenv("PUNCHBRIDGE_REDIAL_MOST", "2.5")
    read = told(tmp_path, text, ("node.limits.store.queue=4",), ping_interval=9.0, peer_store=Path("other.db"))
    assert read.node == NodeSettings(
        network="kaspa-mainnet",
        ping_interval=9.0,
        peer_store="other.db",
        min_protocol=8,
        redial_most=2.5,
        limits=NodeLimits(peers=6, store=StoreLimits(queue=4)),
    )
    made = node_config(read.node)
    assert (made.network, made.min_protocol_version, made.limits.peers) == ("kaspa-mainnet", 8, 6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[node]\nnetwrk = 'kaspa-devnet'", "did you mean node.network"),
        ("[node.limits]\npears = 1", "did you mean node.limits.peers"),
        ("[node]\nduration = -1", "node.duration is -1; give a number of seconds"),
        ("[node]\nrefuse_relayed = 1", "node.refuse_relayed is 1; give true or false"),
        ("node = 1", r"write \[node\]"),
    ],
)
def test_slips_in_the_nodes_table_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        told(tmp_path, text)


def test_the_nodes_table_is_the_nodes_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="belongs to `punchbridge listen`"):
        load("[node]\nnetwork = 'kaspa-devnet'")
    with pytest.raises(ConfigError, match="--network does"):
        told(tmp_path, pairs=("node.network=kaspa-devnet",))


def test_times_reach_the_network_thread() -> None:
    peer = "/p2p/12D3KooWFdu8gD1mzqTymB86AvMawyz5YwjFVMYEzwjpiYF9cYxe"
    with (
        punchbridge.open(listen=(), times=Times(open_path=3.0, direct_wait=2.0)) as b,
        pytest.raises(ConfigError, match="between 0 and 3 seconds"),
    ):
        b.channel(peer, direct_wait=5.0)


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"window_least": 2 << 20, "window_most": 1 << 20}, "give at least window_least, 2097152"),
        ({"replay_most": 1000}, "give at least replay_least, 524288"),
        ({"window_least": 65536}, "ack_bytes is 262144; give at most window_least, 65536"),
        ({"carriers": 1}, "give at least 2"),
        ({"total": 0}, "total is 0"),
        ({"cap_reserve": 1.5}, "give a part from 0 to 1"),
    ],
)
def test_sessions_that_could_not_work_are_refused(fields: dict[str, float], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        SessionLimits(**fields)  # type: ignore[arg-type]
