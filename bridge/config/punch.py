"""What can be chosen about hole punching, and the bounds of it.

`Punch` is what an operator chooses; `PunchLimits` holds the bounds and the waits of its protocol and of its dials.
"""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.config.values import Checked, Count, Seconds
from punchbridge.errors import ConfigError

__all__ = ["Punch", "PunchLimits"]

RETRY_LEAST = 1.0
"""The shortest pause between runs that may be asked for: the peer bounds how often it answers."""


@dataclass(frozen=True, kw_only=True)
class Punch(Checked):
    """Whether, how often and how long a direct connection is punched."""

    enabled: bool = True
    """False sends no DCUtR message and answers none, and tells peers on circuits no address to dial back."""

    attempts: Count = 3
    """Simultaneous opens of one run, each with an exchange of its own (specs/relay/DCUtR.md: two retries)."""

    attempt_timeout: Seconds = 5.0
    """One simultaneous open, from SYNC on: the SYN, and its retransmits after 1 s and 3 s."""

    pause_least: Seconds = 0.2
    """The shortest pause between the attempts of one run."""

    pause_most: Seconds = 0.6
    """The longest such pause. Each is drawn at random, so that two sides do not stay in step."""

    retry: Seconds = 30.0
    """After a run that failed the next run waits this long, and twice as long each time after that."""

    retry_most: Seconds = 600.0
    """The longest pause between runs; a longer `retry` is its own longest."""

    reversal: bool = True
    """Dial the peer's public addresses before the exchange (D2)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retry < RETRY_LEAST:
            raise ConfigError(f"a pause of {self.retry:g} s between runs of punches; the least is {RETRY_LEAST:g} s")
        if self.pause_most < self.pause_least:
            raise ConfigError(f"pause_most is {self.pause_most:g} s; give at least pause_least, {self.pause_least:g} s")
        if self.retry_most < self.retry:
            object.__setattr__(self, "retry_most", self.retry)


@dataclass(frozen=True, kw_only=True)
class PunchLimits(Checked):
    """DCUtR, the dials of an attempt, and what is kept between attempts."""

    candidates: Count = 16
    """Addresses of one transport in one CONNECT that are sent or dialled; go and rust send at most about 20."""

    candidate_hosts: Count = 4
    """Distinct IPs of one transport in one remote list: IPv4 and IPv6 of two uplinks. More would let a peer aim our
    dials."""

    candidate_ports: Count = 4
    """Ports of one IP in a remote list: observed, listening, and two predicted ones."""

    identify_timeout: Seconds = 5.0
    """Waiting for identify on the relayed connection: candidates and the peer's agent come with it."""

    observed_timeout: Seconds = 2.0
    """Waiting for the first observed address of our listening port before CONNECT; the relay tells it at once."""

    exchange_timeout: Seconds = 10.0
    """CONNECT, CONNECT, SYNC over the relay (rust: 10 s, go: 60 s)."""

    reversal_head_start: Seconds = 0.3
    """A dial to public addresses of the peer runs alone this long; then the exchange starts beside it."""

    reversal_timeout: Seconds = 5.0
    """Such a dial that has connected within its head start may finish its upgrade within this time."""

    reversal_addresses: Count = 4
    """Public addresses of the peer that are dialled before the exchange."""

    redial_least: Seconds = 0.005
    """The shortest time from a dial that was refused to the next."""

    redial_most: Seconds = 0.060
    """The longest such time. Each is drawn at random: a fixed pause locks both sides' phases (measured). A refusal that
    took longer is followed by the next dial at once: with an ICMP-rejecting NAT each pause would be a trap for the
    peer's SYN (measured)."""

    dials: Count = 400
    """Dials of one attempt, all candidates together: 5 s of redials to two of them. Beyond the numbers for strangers
    below they go only to an IP at which a relay that the user named saw the peer."""

    dial_hosts: Count = 1024
    """Hosts whose dials are counted together, whatever number of peers names them: each gets `dials` in the time of an
    attempt. Peer ids cost nothing, and many punches at once would make a flood for one victim all the same. As many
    are remembered for each of the bounds for strangers."""

    datagram_least: Seconds = 0.010
    """The shortest time from one datagram that opens our NAT for QUIC to the next (go-libp2p: 10 ms)."""

    datagram_most: Seconds = 0.200
    """The longest such time. Each is drawn at random, from a range that grows to this within four datagrams."""

    datagram_bytes: Count = 64
    """Random bytes in each of them (go-libp2p: 64)."""

    aims: Count = 4
    """Dials of one attempt to where such datagrams came from. Their source can be forged."""

    stranger_dials_per_attempt: Count = 16
    """Dials of one attempt over one transport to one IP that no relay of ours attests: it may be a third party's. A
    datagram that opens our NAT counts as a dial, and a QUIC dial for as many as it sends packets."""

    stranger_dials_per_run: Count = 48
    """The same of one run, and of all peers together within a short time."""

    stranger_host_interval: Seconds = 1.5
    """Such an IP gets one dial more each time that this has passed, whoever names it."""

    stranger_refusals: Count = 16
    """After so many refusals (RST, ICMP) in one run such an IP is given up, unless the peer was once seen there. A NAT
    that refuses early SYNs lets one through within these when both sides dial."""

    stranger_origin_dials: Count = 96
    """Dials to such IPs for all peers that come from one address, or over one relay that does not tell where from."""

    stranger_origin_interval: Seconds = 1.0
    """They get one dial more each time that this has passed."""

    stranger_dials: Count = 400
    """Dials to such IPs that the whole host makes."""

    stranger_interval: Seconds = 0.25
    """It gets one dial more each time that this has passed."""

    seen_addresses: Count = 8
    """IPs of one peer that are remembered as its own, since it has proven itself there."""

    named_relays: Count = 1024
    """Relays that are remembered as named by the user; those named longest ago are forgotten first."""

    sockets: Count = 8
    """Sockets in upgrade at once in one attempt; a flood of accepted ones from the peer's IP is closed beyond it."""

    socket_patience: Seconds = 1.5
    """A TCP connection of a punch that has not finished its handshake after this and 4 relayed round trips is dropped
    and dialled anew: a NAT may have lost track of it although connect() succeeded (measured: ICMP-rejecting NATs)."""

    upgrade_grace: Seconds = 3.0
    """A socket connected shortly before the attempt's deadline may finish its upgrade within this time."""

    loser_grace: Seconds = 2.0
    """The responder keeps the connections that the initiator did not choose this long; the initiator closes them."""

    give_way: Seconds = 5.0
    """After a refusal by a peer whose own exchange goes before ours: its CONNECT is on its way over another circuit."""

    settle: Seconds = 0.5
    """From the loss of a direct connection to the fallback event and the next punch: a peer that leaves closes its
    connections one after another, and the relayed one's end needs a trip over the relay."""

    kept_peers: Count = 32
    """Peers whose dials are kept between two attempts; each holds a place among the punches that wait for accepted
    sockets."""

    keep_for_attempt: Seconds = 10.0
    """Dials in the air wait this long for the next attempt: the peer's verdict (`limits.nat.observer_timeout`), a
    pause, an exchange."""

    keep_for_run: Seconds = 120.0
    """After a run its dials stay for the next one if that comes within this time: so long the mappings that they have
    opened let the peer's SYN in (conntrack: 120 s). One that meets the listener instead spoils the run (measured)."""

    keep_margin: Seconds = 20.0
    """From the end of the pause to the next run's dials: identify, the dial before the punch, an exchange."""

    records: Count = 4096
    """Peers whose punches are remembered (the last outcome, the pause after a failure) beside those with which
    something is under way; those whose pause is over are forgotten first."""

    exchanges_per_minute: Count = 12
    """Answered on one relayed connection: four runs of three. More would let a peer keep our dials busy for ever."""

    streams: Count = 32
    """Inbound exchanges at once (go: 32)."""

    streams_per_peer: Count = 2
    """The same of one peer (go: 2)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.redial_most < self.redial_least:
            least = f"at least redial_least, {self.redial_least:g} s"
            raise ConfigError(f"redial_most is {self.redial_most:g} s; give {least}")
        if self.datagram_most < self.datagram_least:
            least = f"at least datagram_least, {self.datagram_least:g} s"
            raise ConfigError(f"datagram_most is {self.datagram_most:g} s; give {least}")
