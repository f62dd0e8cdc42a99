"""Bounds of hole punching: observations, candidates, DCUtR, the dials of an attempt."""

from __future__ import annotations

from typing import Final

MAX_OBSERVERS: Final = 32
"""Observations of our address kept; the oldest goes first. Two that differ settle the mapping already."""

STALE_OBSERVATION: Final = 120.0
"""An observation outlives its connection this long (conntrack keeps a half-open or closing mapping 120 s)."""

MAX_CANDIDATES: Final = 16
"""Addresses of one CONNECT that are sent or dialled; go and rust send at most about 20."""

MAX_CANDIDATE_HOSTS: Final = 4
"""Distinct IPs of one remote list: IPv4 and IPv6 of two uplinks. More would let a peer aim our dials."""

MAX_CANDIDATE_PORTS: Final = 4
"""Ports of one IP in a remote list: observed, listening, and two predicted ones."""

DCUTR_EXCHANGE_TIMEOUT: Final = 10.0
"""CONNECT, CONNECT, SYNC over the relay (rust: 10 s, go: 60 s)."""

DCUTR_ATTEMPT_TIMEOUT: Final = 5.0
"""One simultaneous open, from SYNC on: the SYN, and its retransmits after 1 s and 3 s."""

DCUTR_UPGRADE_GRACE: Final = 3.0
"""A socket connected shortly before the attempt's deadline may finish its upgrade within this time."""

DCUTR_SOCKET_PATIENCE: Final = 1.5
"""A TCP connection of a punch that has not finished its handshake after this and 4 relayed round trips is dropped and
dialled anew: a NAT may have lost track of it although connect() succeeded (measured: ICMP-rejecting NATs)."""

DCUTR_ATTEMPTS: Final = 3
"""Each with an exchange of its own (specs/relay/DCUtR.md: two retries)."""

DCUTR_IDENTIFY_TIMEOUT: Final = 5.0
"""Waiting for identify on the relayed connection: candidates and the peer's agent come with it."""

DCUTR_OBSERVED_TIMEOUT: Final = 2.0
"""Waiting for the first observed address of our listening port before CONNECT; the relay tells it at once."""

DCUTR_REVERSAL_HEAD_START: Final = 0.3
"""A dial to public addresses of the peer runs alone this long; then the exchange starts beside it."""

DCUTR_REVERSAL_TIMEOUT: Final = 5.0
DCUTR_REVERSAL_ADDRS: Final = 4

REDIAL_MIN: Final = 0.005
REDIAL_MAX: Final = 0.060
"""From a dial that was refused to the next, drawn at random: a fixed pause locks both sides' phases (measured). None
when the refusal took longer: with an ICMP-rejecting NAT each pause would be a trap for the peer's SYN (measured)."""

MAX_PUNCH_DIALS: Final = 400
"""Dials of one attempt, all candidates together: 5 s of redials to two of them, and no tool for a flood of SYNs."""

MAX_PUNCH_HOSTS: Final = 1024
"""Hosts whose dials are counted together, whatever number of peers names them: each gets MAX_PUNCH_DIALS in the time of
an attempt. Peer ids cost nothing, and many punches at once would make a flood for one victim all the same."""

MAX_PUNCH_SOCKETS: Final = 8
"""Sockets in upgrade at once in one attempt; a flood of accepted ones from the peer's IP is closed beyond it."""

DCUTR_BACKOFF_MIN: Final = 0.2
DCUTR_BACKOFF_MAX: Final = 0.6
"""Pause between the attempts of one run, drawn at random."""

DCUTR_KEEP: Final = 10.0
"""Dials in the air wait this long for the next attempt: the peer's verdict (OBSERVER_TIMEOUT), a pause, an exchange."""

DCUTR_OUTLAST: Final = 120.0
"""After a run its dials stay for the next one if that comes within this time: so long the mappings that they have
opened let the peer's SYN in (conntrack: 120 s). One that meets the listener instead spoils the run (measured)."""

DCUTR_OUTLAST_MARGIN: Final = 20.0
"""From the end of the pause to the next run's dials: identify, the dial before the punch, an exchange."""

DCUTR_MAX_KEPT: Final = 32
"""Peers whose dials are kept between two attempts; each holds a place among MAX_DIVERTERS."""

DCUTR_RETRY_FIRST: Final = 30.0
DCUTR_RETRY_MAX: Final = 600.0
"""After the last attempt of a run the next run waits this long, doubling to the maximum."""

DCUTR_RECORDS: Final = 4096
"""Peers whose punches are remembered (the last outcome, the pause after a failure) beside those with which something is
under way; those whose pause is over are forgotten first."""

DCUTR_SETTLE: Final = 0.5
"""From the loss of a direct connection to the fallback event and the next punch: a peer that leaves closes its
connections one after another, and the relayed one's end needs a trip over the relay."""

DCUTR_GIVE_WAY: Final = 5.0
"""After a refusal by a peer whose own exchange goes before ours: its CONNECT is on its way over another circuit."""

DIAL_ROUND_TRIPS: Final = 4
"""TCP, multistream-select, Noise and the muxer: what a plain dial takes at most until the other side has it."""

DCUTR_LOSER_GRACE: Final = 2.0
"""The responder keeps the connections that the initiator did not choose this long; the initiator closes them."""

OBSERVER_TIMEOUT: Final = 4.0
"""Asking a second observer between an attempt and its verdict: TCP, security and identify, 6 round trips."""

OBSERVER_MAX_PROBES: Final = 2
OBSERVER_HOLD: Final = 600.0
"""How long a second observer's connection is kept: its observation counts only while it stands."""

DCUTR_EXCHANGES_PER_MINUTE: Final = 12
"""Answered on one relayed connection: four runs of three. More would let a peer keep our dials busy for ever."""

DCUTR_MAX_STREAMS: Final = 32
DCUTR_MAX_STREAMS_PER_PEER: Final = 2
"""Inbound exchanges at once (go: 32 and 2)."""
