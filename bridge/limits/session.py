"""Bounds of sessions and their carriers."""

from __future__ import annotations

from typing import Final

from punchbridge.limits import KIB, MIB

SESSION_REPLAY_MIN: Final = 512 * KIB
SESSION_REPLAY_MAX: Final = 16 * MIB
"""Bytes written and not yet received by the peer: 16 MiB is 160 MB/s at 100 ms round trip (go's Yamux window)."""

SESSION_PIECES: Final = 4096
"""Writes that are kept one by one; more are joined, since each costs some 300 bytes beside its own."""

SESSION_WINDOW_MIN: Final = 1 * MIB
SESSION_WINDOW_MAX: Final = 16 * MIB
"""Bytes received and not yet read by the application, those ahead of their turn included."""

SESSION_BUDGET: Final = 512 * MIB
"""All sessions of a host together may grow by this much beyond their least sizes: sixteen of full size both ways. The
peer decides how fast it reads and acknowledges, so one peer could otherwise fill SESSIONS_PER_PEER of them."""

SESSION_AHEAD_FRAMES: Final = 4096
"""Frames kept ahead of their turn: an honest peer needs the frames in flight on one carrier."""

SESSION_CARRIERS: Final = 4
"""Carriers of one session at once: an active one, one being attached, and those that drain."""

SESSION_RESUME_TIMEOUT: Final = 30.0
"""A session without a carrier waits this long before it fails: three times the longest outage that is promised."""

SESSION_SILENCE: Final = 1.0
"""With traffic waiting, a carrier silent for this long (or three round trips) is dead."""

SESSION_PROBE: Final = 0.25
"""While traffic runs, a carrier quiet for this long is pinged: an end that only receives must notice a cut too."""

SESSION_STALL: Final = 0.3
"""A timer that is served this late tells of a process that was held up, not of a silent peer: it is asked again. The
session's timer is not brought forward for less than SESSION_PROBE, so that much is no delay."""

SILENCE_PAUSE_FIRST: Final = 2.0
SILENCE_PAUSE_MAX: Final = 60.0
"""After a round of questions in which another peer answered, the silence of the same peer starts no further round for
this long, doubling: it could otherwise have every connection of the host questioned again and again."""

SILENCE_ASKERS: Final = 256
"""Peers whose last silence was their own alone, remembered; the oldest are forgotten."""

SESSION_BUSY: Final = 5.0
"""Traffic within this long counts as running."""

SESSION_PONGS: Final = 64
"""Answers to a carrier's pings that wait for its stream; further pings stay unanswered. An honest peer asks for one."""

SESSION_KEEPALIVE: Final = 10.0
"""An idle carrier is pinged this often, so that its silent death shows within KEEPALIVE_INTERVAL."""

SESSION_ACK_DELAY: Final = 0.02
SESSION_ACK_BYTES: Final = 256 * KIB
"""Received bytes are acknowledged after this time or amount (a quarter of the window where that is more), or with the
next data that goes the other way."""

SESSION_TRIP_LEAST: Final = 0.005
"""Windows are sized for no shorter a round trip: on a busy machine the two ends answer each other no faster, and each
acknowledgement costs as much as 64 KiB of data."""

CARRIER_READ: Final = 4 * 65507
CARRIER_BURST: Final = 256 * KIB
"""One read, and one batch of frames: several Noise messages, so that the per-call cost is shared. A read of whole
frames of the largest size (yamux.frames.MAX_FRAME_PAYLOAD) leaves no half one behind, which would have to be copied."""

CARRIER_CAP_USE: Final = 0.12
"""A carrier over a relay sends nothing more when less than this share of the cap is left: the rest is for what is in
flight, for Noise and Yamux, and for goodbyes."""

SESSIONS: Final = 1024
SESSIONS_PER_PEER: Final = SESSIONS // 4
"""Each is one connection of gRPC: so many client programs (or h2load's -c) behind one `forward`. When they all move at
once their carriers, the old and the next ones, still fit into one connection's streams."""

SESSIONS_PER_ADDRESS: Final = SESSIONS // 2
"""Accepted from one IPv4 address or IPv6 /64 over direct connections: peer ids cost nothing, and a session that lost
its carrier is kept for SESSION_RESUME_TIMEOUT, so one address could hold all places for ever."""

SESSION_FIRST_FRAME: Final = 10.0
"""Seconds an inbound carrier has to say which session it is for."""

SESSION_LINGER: Final = 2.0
"""Seconds to hand over the last acknowledgement when a session is done."""

SESSION_GOODBYE: Final = 0.5
"""Seconds to tell the peers of all sessions that this host stops; those not told wait SESSION_RESUME_TIMEOUT."""

SESSION_RETRY_FIRST: Final = 0.05
SESSION_RETRY_MAX: Final = 1.0
"""Pauses between attempts to find a path for a session without a carrier: an outage ends within a second of these."""

SESSION_DIAL: Final = 5.0
"""One attempt to find a path: a circuit over a 1 s round trip takes four of them."""

RELEASE_GRACE: Final = 2.0
"""A relayed connection that carries nothing is closed after this long once its peer is reached directly."""

CARRIER_CAP_POLL: Final = 0.02
"""How often a capped circuit's use is looked at while it carries: 128 KiB pass in 10 ms at 100 Mbit/s."""

SPARE_BELOW: Final = 0.6
"""A capped circuit with less than this share left gets a successor, in time for the move."""

SPARE_CIRCUITS: Final = 2
"""Fresh circuits held ready while a capped one carries: a relay gives a peer 4 (rust) to 16 (go) at once."""

SESSION_MEASURE: Final = 3.0
"""A path whose ping is not answered within this long is not moved to."""

SESSION_MEASURES: Final = 3
"""Round trips of both paths, side by side, before a direct path that is not clearly faster is taken: one alone may be
half as long again on a busy machine."""
