"""Every bound of the library, each with its reason. Bytes and seconds unless the name says otherwise.

Rooms with many bounds of their own (relay/, node/) keep a limits.py of the same form.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# --- connecting -------------------------------------------------------------------------------------------

CONNECT_TIMEOUT: Final = 5.0
"""TCP connect of an ordinary dial: four SYNs (initial RTO 1 s, doubling) have gone out by then."""

UPGRADE_TIMEOUT: Final = 10.0
"""Security and muxer together: 3 round trips, generous for 1 s of round trip over a slow relay."""

NEGOTIATE_TIMEOUT: Final = 10.0
"""multistream-select on one stream; go and rust use 10 s."""

MAX_PARALLEL_DIALS: Final = 8
"""Addresses of one peer tried at once."""

# --- accepting --------------------------------------------------------------------------------------------

MAX_CONNECTIONS: Final = 2048
"""Connections in all; idle ones cost about 40 KiB each."""

MAX_CONNECTIONS_PER_ADDRESS: Final = 64
"""From one IPv4 address or one IPv6 /64: a carrier-grade NAT holds several honest peers (go: 8 concurrent)."""

MAX_CONNECTIONS_PER_PEER: Final = 8
"""A relayed one, a direct one, and a few in the act of replacing each other."""

MAX_HALF_OPEN: Final = 256
"""Accepted, but not yet authenticated. Each lives at most UPGRADE_TIMEOUT."""

ACCEPT_BACKLOG: Final = 128

# --- commands and events ----------------------------------------------------------------------------------

MAILBOX: Final = 256
"""Commands waiting for the swarm actor; a caller waits when it is full."""

EVENT_QUEUE: Final = 1024
"""Events waiting for a slow subscriber; beyond it the oldest is dropped and counted."""

# --- streams ----------------------------------------------------------------------------------------------

MAX_STREAMS_PER_CONNECTION: Final = 1024
ACCEPT_STREAMS_BACKLOG: Final = 256
"""Inbound streams not yet taken; beyond it they are reset (rust-yamux: 256)."""

MAX_MESSAGE: Final = 4096
"""circuit, DCUtR (MUST), identify (rust's limit): length prefix not counted."""

MAX_MULTISTREAM_LINE: Final = 1024
"""A protocol id. rust reads at most 16383."""

# --- liveness ---------------------------------------------------------------------------------------------

KEEPALIVE_INTERVAL: Final = 15.0
"""Yamux ping on an idle connection: below the shortest common NAT time-outs, finds silent deaths."""

KEEPALIVE_TIMEOUT: Final = 10.0
"""A ping unanswered for this long: the connection is dead."""

TCP_USER_TIMEOUT_MS: Final = 30_000
"""Unacknowledged data for this long ends the TCP connection (RFC 5482)."""

# --- identify ---------------------------------------------------------------------------------------------

IDENTIFY_TIMEOUT: Final = 5.0
MAX_IDENTIFY_ADDRS: Final = 64
MAX_IDENTIFY_PROTOCOLS: Final = 256

# --- gRPC -------------------------------------------------------------------------------------------------

MAX_GRPC_MESSAGE: Final = 1024 * MIB
"""Kaspa's own bound for one message."""

PUMP_READ: Final = 256 * KIB
"""One read of the pump; beyond it throughput no longer rises (measured: 64 KiB has half the rate)."""

PUMP_TURNS: Final = 2
"""Operations that did not block before a pump lets other tasks run: half a MiB, about 1 ms, which is what a small
call beside a bulk transfer waits for each task of the bulk."""

PUMP_LINGER: Final = 5.0
"""The local program is gone: the remote side may still end its direction cleanly this long, then it is reset."""

OPEN_PATH_TIMEOUT: Final = 18.0
"""From a channel's connect to an open stream: dial, circuit, upgrade. Below gRPC's connect time-out of 20 s."""

DIRECT_WAIT: Final = 10.0
"""A channel that insists on a direct path waits this long for the punch: three attempts and their pauses."""

MAX_CHANNEL_ENDPOINTS: Final = 1024
"""Unix listeners of channels, one for each target, protocol and path; they live as long as the bridge."""

MAX_ENDPOINT_STREAMS: Final = 64
"""Connections that gRPC holds at once through one endpoint: one for each channel with its own subchannel pool."""

MAX_SERVED_STREAMS: Final = 1024
MAX_SERVED_STREAMS_PER_PEER: Final = 64
"""Inbound streams handed to one server, each a connection of it: in all, and from one peer."""

MAX_FORWARDED: Final = 512
"""Connections through one `forward` listener at once; each is one stream."""

MAX_REMEMBERED_ERRORS: Final = 1024
"""Peers whose last failure `last_error` can tell; the oldest is forgotten."""

ACCEPT_PAUSE: Final = 0.1
"""After accept fails for want of descriptors or memory: time for others to give some back."""

LOCAL_CONNECT_TIMEOUT: Final = 5.0
"""To the program behind `serve` or `expose`, on this machine or next to it."""

BRIDGE_START_TIMEOUT: Final = 30.0
BRIDGE_STOP_TIMEOUT: Final = 10.0
"""Start and stop of the network thread; at stop, connections get this long to say goodbye."""

# --- punching -------------------------------------------------------------------------------------------------

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
"""Pause before a redial on a fresh socket, drawn at random: a fixed one locks both sides' phases (measured)."""

MAX_PUNCH_DIALS: Final = 400
"""Dials of one attempt, all candidates together: 5 s of redials to two of them, and no tool for a flood of SYNs."""

MAX_PUNCH_SOCKETS: Final = 8
"""Sockets in upgrade at once in one attempt; a flood of accepted ones from the peer's IP is closed beyond it."""

DCUTR_BACKOFF_MIN: Final = 0.2
DCUTR_BACKOFF_MAX: Final = 0.6
"""Pause between the attempts of one run, drawn at random."""

DCUTR_RETRY_FIRST: Final = 30.0
DCUTR_RETRY_MAX: Final = 600.0
"""After the last attempt of a run the next run waits this long, doubling to the maximum."""

DCUTR_RETRY_MIN: Final = 1.0
"""The shortest pause that may be asked for: the peer answers DCUTR_EXCHANGES_PER_MINUTE."""

DCUTR_HOLDS: Final = 4096
"""Peers whose pause after a failed punch is remembered; those whose pause is over are forgotten first."""

DCUTR_SETTLE: Final = 0.5
"""From the loss of a direct connection to the fallback event and the next punch: a peer that leaves closes its
connections one after another, and the relayed one's end needs a trip over the relay."""

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

MAX_PUNCH_OUTCOMES: Final = 1024
"""Peers whose last outcome is remembered; the oldest is forgotten."""

# --- AutoNAT v2 -----------------------------------------------------------------------------------------------

AUTONAT_MESSAGE: Final = 8192
"""A DialRequest of 50 addresses (go: 8192)."""

AUTONAT_MAX_ADDRS: Final = 50
AUTONAT_MIN_DATA: Final = 30_000
AUTONAT_MAX_DATA: Final = 100_000
"""Bytes a client pays before a dial to an IP that is not its own (specs/autonat: 30 000 to 100 000)."""

AUTONAT_DATA_CHUNK: Final = 4096
AUTONAT_STREAM_TIMEOUT: Final = 20.0
"""One request: dial data, dial, dial-back, response (go: 15 s stream plus 10 s dial)."""

AUTONAT_DIAL_TIMEOUT: Final = 5.0
AUTONAT_DIAL_BACK_TIMEOUT: Final = 5.0
AUTONAT_REQUESTS_PER_MINUTE: Final = 60
AUTONAT_REQUESTS_PER_PEER: Final = 12
AUTONAT_DATA_REQUESTS_PER_MINUTE: Final = 12
"""As go-libp2p."""

AUTONAT_CONCURRENT_PER_PEER: Final = 1
AUTONAT_MAX_STREAMS: Final = 32
AUTONAT_CONFIRMATIONS: Final = 3
"""Agreeing answers that settle an address beyond doubt; one decides already when no other server disagrees."""

AUTONAT_BOOT_DELAY: Final = 2.0
"""First probe after a server is known: the punch goes first."""

AUTONAT_REFRESH: Final = 900.0
AUTONAT_RETRY: Final = 90.0
AUTONAT_MAX_SERVERS: Final = 4
AUTONAT_MAX_PROBES: Final = 4
"""Servers asked in one round, and addresses asked about at each."""

AUTONAT_MAX_TRACKED: Final = 32
"""Own addresses whose reachability is remembered."""

# --- reports ----------------------------------------------------------------------------------------------

REPORT_FLUSH_TIMEOUT: Final = 5.0
"""At its end a program waits this long for a slow reader of its JSON lines."""

DRAIN_TIMEOUT: Final = 10.0
"""After SIGTERM: peers are told, queues are flushed; whoever is not done by then is cut."""

# --- swarm ------------------------------------------------------------------------------------------------

MAX_COMMANDS: Final = 4096
"""Commands in progress; each holds a task. Beyond it a command fails at once instead of waiting on others."""

MAX_LISTENERS: Final = 16
"""Listening sockets: a few interfaces in both IP versions."""

ACCEPT_BACKOFF: Final = 0.1
"""Pause after accept() failed for want of descriptors or memory: long enough for some to be freed."""

DIAL_STAGGER: Final = 0.25
"""Head start of one address over the next (RFC 8305 section 5: 250 ms)."""

MAX_DIAL_ADDRESSES: Final = 32
"""Addresses tried in one dial, names resolved: at 8 at once and 15 s each this ends within a minute."""

TRANSPORT_DIAL_TIMEOUT: Final = 30.0
"""A circuit: connecting and upgrading to the relay (15 s), CONNECT, and STOP on the far side."""

CLOSE_TIMEOUT: Final = 1.0
"""GoAway and the flush of what is queued; after it the connection is cut."""

DIVERT_QUEUE: Final = 16
"""Accepted sockets waiting for the puncher; one attempt yields one or two."""

MAX_DIVERTERS: Final = 64
"""Punches that wait for accepted sockets at the same time."""

# --- identify and ping ------------------------------------------------------------------------------------

MAX_IDENTIFY_READ: Final = 8 * KIB
"""One identify message from others (go sends up to 8 KiB); ours stays below MAX_MESSAGE."""

MAX_IDENTIFY_MESSAGES: Final = 10
"""Messages merged from one identify stream (go: 10)."""

IDENTIFY_PUSH_DELAY: Final = 0.2
"""Changes within this time go out in one push: a reservation brings several addresses at once."""

INTERFACE_CHECK: Final = 30.0
"""How soon a change of the interfaces' addresses is told to peers; reading them costs under a millisecond."""

MAX_PARALLEL_PUSHES: Final = 32
"""Peers told of a change at the same time."""

MAX_IDENTIFY_STREAMS: Final = 512
MAX_IDENTIFY_STREAMS_PER_PEER: Final = 8
"""Inbound identify and push streams: one for each of a peer's connections."""

PING_TIMEOUT: Final = 10.0
"""One echo of /ipfs/ping/1.0.0 (go: 10 s)."""

PING_IDLE_TIMEOUT: Final = 60.0
"""An inbound ping stream without a ping for this long is closed."""

MAX_PING_STREAMS: Final = 256
MAX_PING_STREAMS_PER_PEER: Final = 2
"""specs/ping: accept at most two streams of one peer."""

# --- Noise, Yamux and multistream-select ------------------------------------------------------------------

MAX_NOISE_MESSAGE: Final = 65535
"""Noise spec, section 3; on the wire behind a length of two bytes."""

MAX_NOISE_PLAINTEXT: Final = MAX_NOISE_MESSAGE - 16
"""The authentication tag of ChaCha20-Poly1305 takes 16 bytes."""

MAX_FRAME_PAYLOAD: Final = MAX_NOISE_PLAINTEXT - 12
"""65507: with the Yamux header one frame fills one Noise message, which is one send."""

MAX_RSA_BITS: Final = 8192
"""Larger keys cost the verifier too much (CVE-2023-39533)."""

MAX_IDENTITY_KEY: Final = 2 * KIB
"""A serialized public key; an RSA key of 8192 bits takes about 1100 bytes."""

MAX_EARLY_MUXERS: Final = 100
"""Longer lists in the Noise extensions are ignored, as go does."""

MAX_PROPOSALS: Final = 64
"""Protocols refused on one stream before the proposer is cut off."""

RECEIVE_SIZE: Final = 256 * KIB
"""One read of the socket: four full Noise messages."""

SEND_QUEUE: Final = 256 * KIB
"""Bytes of frames waiting for a socket that would block; senders wait beyond it. What waits here delays the small
frames of other streams, and the kernel has a buffer of its own."""

SEND_UNSENT: Final = 256 * KIB
"""Bytes the kernel holds that are not on the wire yet (TCP_NOTSENT_LOWAT), for the same reason."""

SEND_QUEUE_HARD: Final = 2 * MIB
"""With the answers that the peer's own frames demand: a peer that asks on and never reads is cut off."""

SEND_BURST: Final = 256 * KIB
"""Bytes one call sends before the other tasks get their turn."""

INITIAL_WINDOW: Final = 256 * KIB
"""Yamux spec: the window of each stream and direction at the start."""

MAX_WINDOW: Final = 16 * MIB
"""A stream's receive window never grows beyond (go: 16 MiB): 160 MB/s at 100 ms."""

WINDOW_BUDGET: Final = 64 * MIB
"""What all streams of one connection may have granted above their initial windows."""

MAX_UNACKED_STREAMS: Final = 256
"""Own streams the peer has not acknowledged yet (Yamux Y7; rust resets beyond)."""

MAX_PINGS_IN_FLIGHT: Final = 16
"""Own Yamux pings waiting for their answer."""

MAX_PING_ANSWERS: Final = 64
"""Answers waiting for the socket; further pings stay unanswered until they are sent."""

MAX_REFUSALS: Final = 1024
"""Refused streams whose reset waits for the socket; a peer that goes on is cut off."""

DISCARD_AFTER_CLOSE: Final = 128 * KIB
"""Data that arrives after we closed a stream is dropped up to here, then the stream is reset."""

LINGER: Final = 30.0
"""How long a stream we closed waits for the peer's end before it is reset."""

RTT_SAMPLES: Final = 4
"""Round trips measured one after another on a fresh connection; the lowest counts for the window growth."""

RTT_LEAST: Final = 0.0005
"""Shorter round trips count as this for the window growth: below it the two processes' turns on the processor decide,
and a stream whose window follows a loopback's 60 µs stands still whenever the reader has to wait for its turn."""

RTT_INTERVAL: Final = 60.0
"""A busy connection measures its round trip this often, for the window growth."""

CLOSE_FLUSH: Final = 2.0
"""How long closing a connection waits for queued frames to leave."""

RESOLVE_TIMEOUT: Final = 5.0
"""One name lookup through the system resolver."""

MAX_RESOLVED: Final = 16
"""Addresses taken from one name."""

# --- programs ---------------------------------------------------------------------------------------------

REDIAL_BACKOFF_FIRST: Final = 0.25
"""A dialer whose paths are all gone waits this long before it asks again; then twice as long each time."""

REDIAL_BACKOFF_MOST: Final = 5.0
"""The longest of these pauses: a relay that restarts is found within it."""

# --- relay client -----------------------------------------------------------------------------------------

MIN_LEASE: Final = 60.0
"""A reservation of less is renewed as if it had this: clocks differ, and nobody renews each second."""

MAX_LEASE: Final = 24 * 3600.0
"""A reservation of more is renewed as if it had this: u64 seconds fit no timer."""

RESERVE_TIMEOUT: Final = 15.0
"""One RESERVE on a connection that stands: three round trips and a signature (go: 60)."""

RELAY_DIAL_TIMEOUT: Final = 20.0
"""Reaching the relay itself: name lookup, CONNECT_TIMEOUT and UPGRADE_TIMEOUT."""

HOP_TIMEOUT: Final = 20.0
"""One CONNECT: the relay asks the target meanwhile, ours for up to 18 s (go: 60). Below TRANSPORT_DIAL_TIMEOUT."""

STOP_TIMEOUT: Final = 10.0
"""From a relay's offer to our answer; the message arrives with the stream (go: 10 on the target)."""

RESERVE_BACKOFF_FIRST: Final = 0.2
RESERVE_BACKOFF_FACTOR: Final = 1.6
RESERVE_BACKOFF_MAX: Final = 60.0
"""Waiting before the next try: a relay back after t seconds is found within about 0.6 t more."""

RESERVE_REFUSED_WAIT: Final = 5.0
"""At least this after a refusal: the relay is there, and asking fast only feeds its rate limit."""

RESERVE_STABLE: Final = 30.0
"""A reservation held for this long resets the back-off; a relay that drops us at once does not."""

MAX_RELAYS: Final = 16
"""Relays kept at once (go: 2 wanted)."""

MAX_INBOUND_CIRCUITS: Final = 256
MAX_INBOUND_CIRCUITS_PER_RELAY: Final = 128
"""Circuits offered to us that live at once; each is a whole connection."""

# --- sessions ---------------------------------------------------------------------------------------------

SESSION_REPLAY_MIN: Final = 512 * KIB
SESSION_REPLAY_MAX: Final = 16 * MIB
"""Bytes written and not yet received by the peer: 16 MiB is 160 MB/s at 100 ms round trip (go's Yamux window)."""

SESSION_WINDOW_MIN: Final = 1 * MIB
SESSION_WINDOW_MAX: Final = 16 * MIB
"""Bytes received and not yet read by the application, those ahead of their turn included."""

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

SESSION_BUSY: Final = 5.0
"""Traffic within this long counts as running."""

SESSION_KEEPALIVE: Final = 10.0
"""An idle carrier is pinged this often, so that its silent death shows within KEEPALIVE_INTERVAL."""

SESSION_ACK_DELAY: Final = 0.02
SESSION_ACK_BYTES: Final = 256 * KIB
"""Received bytes are acknowledged after this time or amount, or with the next data that goes the other way."""

CARRIER_READ: Final = 4 * MAX_FRAME_PAYLOAD
CARRIER_BURST: Final = 256 * KIB
"""One read, and one batch of frames: several Noise messages, so that the per-call cost is shared. A read of whole
frames of the largest size leaves no half one behind, which would have to be copied."""

CARRIER_TURNS: Final = 2
"""Reads of a carrier before the other tasks get their turn, as PUMP_TURNS."""

CARRIER_CAP_USE: Final = 0.12
"""A carrier over a relay sends nothing more when less than this share of the cap is left: the rest is for what is in
flight, for Noise and Yamux, and for goodbyes."""

SESSIONS_PER_PEER: Final = 64
SESSIONS: Final = 1024
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

# --- perf -------------------------------------------------------------------------------------------------

PERF_BLOCK: Final = 256 * KIB
"""One write of a measurement: what the pump reads at once."""

PERF_TIMEOUT: Final = 300.0
"""One exchange; the cap of libp2p's own perf tests."""

MAX_PERF_STREAMS: Final = 64
MAX_PERF_STREAMS_PER_PEER: Final = 64
"""Exchanges at once. Perf is off by default; who turns it on measures."""
