"""Bounds of sessions, and of the paths that carry them.

The other end relies on some of these bounds (docs/spec-session.md marks them *both*): they may be made larger, and
should not be made smaller. The sizes of frames are no configuration; they stand beside their codec.
"""

from __future__ import annotations

from dataclasses import dataclass

from punchbridge.config.values import KIB, MIB, Bytes, Checked, Count, Seconds, Share
from punchbridge.errors import ConfigError

__all__ = ["PathLimits", "SessionLimits"]


@dataclass(frozen=True, kw_only=True)
class SessionLimits(Checked):
    """Sessions: how many there are, what each keeps, and when its carrier counts as dead."""

    total: Count = 1024
    """Sessions of a host. It opens so many, and takes none from a peer while so many live, whoever opened them."""

    per_peer: Count = 256
    """Sessions that one peer has opened here. Each is one connection of gRPC: so many client programs (or h2load's -c)
    behind one `forward`. When they all move at once their carriers, the old and the next ones, still fit into one
    connection's streams."""

    per_address: Count = 512
    """Sessions accepted from one IPv4 address or IPv6 /64 over direct connections: peer ids cost nothing, and a session
    that lost its carrier is kept for `resume_timeout`, so one address could hold all places for ever."""

    per_ipv6_56: Count = 640
    """The same from one IPv6 /56: providers hand these out to one customer."""

    per_ipv6_48: Count = 768
    """The same from one IPv6 /48, the widest net of one customer."""

    relayed: Count = 512
    """Sessions that were opened over relays, from all of them together: nobody's address is seen there, so these leave
    a half to callers who come directly."""

    per_relay: Count = 384
    """The same over one relay, which leaves places to callers over another one."""

    grace: Seconds = 3.0
    """Where places are short, a session that carries nothing goes; but not for this long in favour of somebody who has
    no fewer: the first byte of a caller may be on its way, or its next carrier."""

    budget: Bytes = 512 * MIB
    """What all sessions of a host together may hold beyond their `floor`: sixteen of full size both ways. The peer
    decides how fast it reads and acknowledges, so one peer could otherwise fill `per_peer` of them."""

    budget_per_origin: Bytes = 64 * MIB
    """What sessions that were accepted from one address, IPv6 /56 or relay may take of `budget`: two of full size both
    ways. Whoever lets sessions stand still uses up this share and no other one."""

    floor: Bytes = 64 * KIB
    """What a session may hold each way when nothing is left of the budget: a whole frame, so that it goes on."""

    replay_least: Bytes = 512 * KIB
    """Bytes written and not yet received by the peer that a session keeps from the beginning, while `budget` lasts."""

    replay_most: Bytes = 16 * MIB
    """The same when it has grown: 16 MiB is 160 MB/s at 100 ms round trip (go's Yamux window)."""

    window_least: Bytes = 1 * MIB
    """Bytes received and not yet read by the application, those ahead of their turn included, from the beginning, while
    `budget` lasts."""

    window_most: Bytes = 16 * MIB
    """The same when the window has grown."""

    pieces: Count = 4096
    """Writes that are kept one by one; more are joined, since each costs some 300 bytes beside its own."""

    ahead: Count = 4096
    """Frames kept ahead of their turn: an honest peer needs the frames in flight on one carrier."""

    carriers: Count = 4
    """Carriers of one session at once: an active one, one being attached, and those that drain. At least 2."""

    pongs: Count = 64
    """Answers to a carrier's pings that wait for its stream; further pings stay unanswered. An honest peer asks for
    one."""

    resume_timeout: Seconds = 30.0
    """A session without a carrier waits this long before it fails: three times the longest outage that is promised."""

    mute_timeout: Seconds = 5.0
    """The same for an accepted session that has carried nothing yet, in neither direction: it costs its opener nothing
    to hold its place, and nothing to open another one."""

    progress_timeout: Seconds = 60.0
    """A session ends when nothing new was received, read or acknowledged for this long and the peer did not answer
    pings either; while sent bytes wait for an acknowledgement, answers count for nothing. No less than `resume_timeout`
    and two times `keepalive` together."""

    silence: Seconds = 1.0
    """With traffic waiting, a carrier silent for this long (or three round trips) is dead."""

    probe: Seconds = 0.25
    """While traffic runs, a carrier quiet for this long is pinged: an end that only receives must notice a cut too."""

    busy: Seconds = 5.0
    """Traffic within this long counts as running."""

    keepalive: Seconds = 10.0
    """An idle carrier is pinged this often, so that its silent death shows before the connection's own keepalive."""

    stall: Seconds = 0.3
    """A timer that is served this late tells of a process that was held up, not of a silent peer: it is asked again.
    The session's timer is not brought forward for less than `probe`, so that much is no delay."""

    ack_delay: Seconds = 0.02
    """Received bytes are acknowledged after this long, or with the next data that goes the other way."""

    ack_bytes: Bytes = 256 * KIB
    """So many received bytes are acknowledged at once (a quarter of the window where that is more). No more than
    `window_least`: a peer would wait for room that it is not told of."""

    trip_least: Seconds = 0.005
    """Windows are sized for no shorter a round trip: on a busy machine the two ends answer each other no faster, and
    each acknowledgement costs as much as 64 KiB of data."""

    cap_reserve: Share = 0.12
    """A carrier over a relay sends nothing more when less than this share of the cap is left: the rest is for what is
    in flight, for Noise and Yamux, and for goodbyes."""

    first_frame_timeout: Seconds = 10.0
    """What an inbound carrier has to say which session it is for."""

    linger: Seconds = 2.0
    """What a session that is done has to hand over its last acknowledgement."""

    goodbye_timeout: Seconds = 0.5
    """What a host that stops has to tell the peers of all its sessions; those not told wait their `resume_timeout`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for least, most in (("replay_least", "replay_most"), ("window_least", "window_most")):
            if getattr(self, most) < getattr(self, least):
                raise ConfigError(f"{most} is {getattr(self, most)}; give at least {least}, {getattr(self, least)}")
        if self.ack_bytes > self.window_least:
            raise ConfigError(f"ack_bytes is {self.ack_bytes}; give at most window_least, {self.window_least}")
        if self.carriers < 2:
            raise ConfigError("carriers is 1; give at least 2, since a session moves from one to another")


@dataclass(frozen=True, kw_only=True)
class PathLimits(Checked):
    """How the connections that carry sessions are found, compared, renewed and given back."""

    retry: Seconds = 0.05
    """The pause before a path is looked for again for a session without a carrier; it doubles each time."""

    retry_most: Seconds = 1.0
    """The longest such pause: an outage ends within a second of it."""

    fruitful: Bytes = 16 * KIB
    """A carrier that brought so many bytes both ways, or stood for `retry_most`, counts as one that carried. After the
    second in a row that did neither the pause is `retry_most` at once: each attach may cost the sending of all that the
    peer has not received, and a peer that takes carriers and drops them would have that at the rate of the round
    trip."""

    dial_timeout: Seconds = 5.0
    """One attempt to find a path: a circuit over a 1 s round trip takes four of them."""

    measure_timeout: Seconds = 3.0
    """A path whose ping is not answered within this long is not moved to."""

    measures: Count = 3
    """Round trips of both paths, side by side, before a direct path that is not clearly faster is taken: one alone may
    be half as long again on a busy machine."""

    answer_slack: Seconds = 0.05
    """When a path has gone silent, the other direct ones have a round trip and a half and this long to answer before a
    relayed connection that stands is taken."""

    sample: Seconds = 1.0
    """How often what a path carries and loses is read, where there is another one to go to."""

    sample_idle: Seconds = 10.0
    """The same while nothing is carried."""

    watch: Seconds = 2.0
    """A direct path that was left for the relay in good order is asked this often whether it still stands, so that its
    end is known at both ends, and punching begins anew."""

    release_after: Seconds = 2.0
    """A relayed connection that carries nothing is closed after this long once its peer is reached directly."""

    cap_poll: Seconds = 0.02
    """How often a capped circuit's use is looked at while it carries: 128 KiB pass in 10 ms at 100 Mbit/s."""

    spare_below: Share = 0.6
    """A capped circuit with less than this share left gets a successor, in time for the move."""

    spares: Count = 2
    """Fresh circuits held ready while a capped one carries: a relay gives a peer 4 (rust) to 16 (go) at once."""

    silence_pause: Seconds = 2.0
    """After a round of questions in which another peer answered, the silence of the same peer starts no further round
    for this long, doubling: it could otherwise have every connection of the host questioned again and again."""

    silence_pause_most: Seconds = 60.0
    """The longest such pause."""

    silent_peers: Count = 256
    """Peers whose last silence was their own alone, remembered; the oldest are forgotten."""
