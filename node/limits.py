"""Every bound of the node, each with its reason. Numbers only: this module imports nothing and decides nothing.

"Wire" marks a figure that another implementation relies on (rusty-kaspa's P2P protocol); the others are ours.
Times are in seconds, sizes in bytes, unless the name says otherwise.
"""

from __future__ import annotations

# --- gRPC ---

# Wire: the largest message either side may decode. grpcio's default of 4 MiB is below one full inventory.
MAX_MESSAGE_BYTES = 1 << 30
# Connecting a channel includes the relay dial and the stream below it.
CONNECT_TIMEOUT = 10.0

# --- handshake ---

# Wire: kaspad gives up after these times, so waiting longer only holds a slot.
VERSION_TIMEOUT = 4.0
VERACK_TIMEOUT = 4.0
READY_TIMEOUT = 8.0
# A relayed path adds round trips: the earlier Rust bridge doubled the first two times, and so do we.
SLOW_PATH_MULTIPLIER = 2.0
# Wire: length of Version.id (a UUID).
NODE_ID_BYTES = 16
# Wire: the user agent is cut to this many bytes of UTF-8, at a character boundary.
USER_AGENT_BYTES = 256
# Wire: the part of a Reject reason that is read; longer ones are cut.
REJECT_REASON_CHARS = 2048
# Peers between the first byte and Ready. A handshake is short, so more at once is a flood.
MAX_HANDSHAKES = 64
# Of one peer id, or of one IP address over plain TCP: whoever begins many and says nothing keeps nobody else out.
MAX_HANDSHAKES_PER_PEER = 8
# Peers we keep at once, both directions; kaspad's default is 117 inbound and 8 outbound.
MAX_PEERS = 128

# --- router ---

# Wire: kaspad's capacities. A full inventory route drops the message, any other full route ends the connection.
ROUTE_CAPACITY = 256
INV_TRANSACTIONS_CAPACITY = 4096
TRANSACTION_CAPACITY = 131_072
INV_RELAY_BLOCK_CAPACITY_PER_BPS = 256
# Bytes of a peer's messages that wait in all its routes: seven full inventories. The wire's capacities count messages
# only, and 4096 full inventories are 18 GB.
WAITING_BYTES = 32 << 20
# Wire: 2^17 answers to one full request, and 256 others. A full outgoing queue ends the connection.
OUTGOING_CAPACITY = (1 << 17) + 256
# Waiting bytes at which answers wait for room, so that a slow reader of large blocks costs us this and no more.
OUTGOING_HIGH_WATER_BYTES = 64 << 20
# A peer that takes no message for so long while answers wait is gone or hostile.
OUTGOING_STALL = 120.0

# --- closing ---

# What is queued (a Reject among it) gets this long to leave before the stream is cut.
FLUSH_TIMEOUT = 2.0
# The peer gets this long to end its direction after ours ended.
CLOSE_TIMEOUT = 2.0
# A replaced stream serves answers under way for this long; what is left is asked for again on its successor.
RETIRE_TIMEOUT = 3.0

# --- flows ---

# Wire: seconds between pings, and the longest wait for any answer.
PING_INTERVAL = 120.0
ANSWER_TIMEOUT = 120.0
# Wire: addresses we send at most, and the number at which a received list is an error.
MAX_ADDRESSES_SENT = 1000
MAX_ADDRESSES_RECEIVED = 2500
# Wire: transaction ids in one InvTransactions or RequestTransactions.
MAX_INV_PER_MESSAGE = 131_072
# Answers made before other peers get their turn: about 2 ms.
ANSWERS_PER_TURN = 64
# Blocks in one RequestRelayBlocks: kaspad asks for one at a time; more is allowed, a flood is not.
MAX_BLOCKS_PER_REQUEST = 256
# Wire: shortest spacing of two InvTransactions to a peer.
TRANSACTION_BROADCAST_INTERVAL = 0.5
# Seconds between two FlowStats events of a peer.
STATS_INTERVAL = 5.0

# --- memory of what peers and we have ---

# Ids a peer is known to have: one full inventory, about 10 MiB of Python objects at most.
KNOWN_TRANSACTIONS_PER_PEER = 131_072
KNOWN_BLOCKS_PER_PEER = 8192
# Ids announced lately, announced once more on a re-opened stream: what may have been under way on the old one.
REANNOUNCE_IDS = 4096
REANNOUNCE_AGE = 60.0
# Bodies we hold for others to ask for; the oldest goes first.
STORED_TRANSACTIONS = 50_000
STORED_BLOCKS = 4096
STORED_BYTES = 128 << 20
# Ids requested from some peer and not yet answered, over all peers.
REQUESTED_IDS = 2 * MAX_INV_PER_MESSAGE
# Records of peers that are gone: counters and inventories continue when they return.
DORMANT_PEERS = 64
# Addresses of other nodes kept in memory when no peer store is given.
ADDRESS_BOOK = 5000

# --- peer store ---

STORE_PEERS = 1024
STORE_ADDRESSES_PER_PEER = 16
STORE_NETWORK_ADDRESSES = 5000
# Text fields come from the network: longer ones are refused, not cut.
STORE_TEXT_BYTES = 512
# A peer not seen for a week has most likely moved.
STORE_EXPIRY = 7 * 24 * 3600.0
# Another process of ours may hold the write lock this long (a checkpoint); then the write fails, typed.
STORE_BUSY_TIMEOUT = 2.0
# What still waits when the node stops gets so long: a stuck disk must not hold up the end.
STORE_FLUSH_TIMEOUT = 2 * STORE_BUSY_TIMEOUT
# Entries of the peer store waiting for the writer thread; a slow disk drops the oldest, it never stops the node.
STORE_QUEUE = 256
