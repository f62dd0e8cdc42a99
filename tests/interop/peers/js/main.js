// A js-libp2p peer for the interop suite: options as flags, orders and answers as JSON lines on stdin and stdout.
// It judges nothing; each answer says what this side saw.

import { readFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { quic } from '@chainsafe/libp2p-quic'
import { autoNATv2 } from '@libp2p/autonat-v2'
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { dcutr } from '@libp2p/dcutr'
import { identify, identifyPush } from '@libp2p/identify'
import { defaultLogger } from '@libp2p/logger'
import { noise } from '@libp2p/noise'
import { peerIdFromString } from '@libp2p/peer-id'
import { ping as pingService } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { obeyRpc, serveRpc } from './rpc.js'
import { perform, ping, serve } from './streams.js'

const ORDER_TIMEOUT = 60_000
const IDENTIFY_TIMEOUT = 6_000 // more than the 5 s that js-libp2p gives it
const VERSION = JSON.parse(readFileSync(new URL('node_modules/libp2p/package.json', import.meta.url))).version
const DAY = 24 * 3600

function say (line) {
  process.stdout.write(JSON.stringify(line) + '\n')
}

/** Flags as Go has them: one dash or two. */
function flags () {
  const text = (value) => ({ type: 'string', default: value })
  const { values } = parseArgs({
    args: process.argv.slice(2).map((one) => one.replace(/^-(?=[a-z])/, '--')),
    options: {
      listen: { type: 'string', multiple: true, default: [] },
      relay: { type: 'boolean', default: false },
      punch: { type: 'boolean', default: false },
      autonat: { type: 'boolean', default: false },
      'limit-bytes': text('0'),
      'limit-seconds': text('0'),
      reservations: text('128'),
      circuits: text('0'),
      ttl: text('3600'),
      observers: text('4')
    }
  })
  return values
}

const given = flags()
/** By peer: whether the muxer came with Noise. */
const early = new Map()
/** By peer: what its last identify said. */
const known = new Map()

/** Noise, with a note of what came of the early muxer negotiation. */
function notedNoise (components) {
  const inner = noise()(components)
  for (const name of ['secureInbound', 'secureOutbound']) {
    const secure = inner[name].bind(inner)
    inner[name] = async (...all) => {
      const made = await secure(...all)
      early.set(made.remotePeer.toString(), made.streamMuxer != null)
      return made
    }
  }
  return inner
}

/** What the DCUtR service logs, as events: it has no others. */
function punchLogger () {
  const inner = defaultLogger()
  const told = (kind) => (text, ...details) => {
    say({ event: 'punch', kind, detail: [text, ...details.map(String)].join(' ') })
  }
  return {
    forComponent (name) {
      if (name !== 'libp2p:dcutr' || !given.punch) return inner.forComponent(name)
      return Object.assign(told('log'), { error: told('error'), trace: () => {}, enabled: true, newScope: () => told('log') })
    }
  }
}

/** js-libp2p keeps a public address to itself until AutoNAT has confirmed it; its docs advise appendAnnounce. */
function announced () {
  const own = Object.values(networkInterfaces()).flat().filter((one) => one.family === 'IPv4' && !one.internal)
  return given.listen.flatMap((addr) => {
    if (given.autonat || /\/(tcp|udp)\/0(\/|$)/.test(addr)) return []
    return addr.includes('/0.0.0.0/') ? own.map((one) => addr.replace('0.0.0.0', one.address)) : [addr]
  })
}

function relayServer () {
  const limited = Number(given['limit-bytes']) > 0 || Number(given['limit-seconds']) > 0
  return circuitRelayServer({
    maxInboundHopStreams: 1024,
    maxOutboundStopStreams: 1024,
    reservations: {
      maxReservations: Number(given.reservations),
      reservationTtl: Number(given.ttl) * 1000,
      applyDefaultLimit: limited,
      defaultDataLimit: BigInt(given['limit-bytes']) || 1n << 40n,
      defaultDurationLimit: (Number(given['limit-seconds']) || DAY) * 1000
    }
  })
}

/** It reserves where it is told to, and nowhere else. */
const NO_DISCOVERY = { has: () => true, add: () => {}, remove: () => {} }

function start () {
  const circuits = { maxInboundStopStreams: 1024, maxOutboundStopStreams: 1024, discoveryFilter: NO_DISCOVERY }
  return createLibp2p({
    addresses: { listen: given.listen, appendAnnounce: announced() },
    transports: [tcp(), quic(), circuitRelayTransport(circuits)],
    connectionEncrypters: [notedNoise],
    streamMuxers: [yamux()],
    nodeInfo: { name: 'js-libp2p', version: VERSION, userAgent: `js-libp2p/${VERSION}` },
    connectionManager: { inboundConnectionThreshold: 1000, maxIncomingPendingConnections: 1000, maxConnections: 2000 },
    // Each 10 s it pings on a stream of its own, of which js-libp2p has one for each connection: beside an order's
    // it would fail, and close the connection.
    connectionMonitor: { enabled: false },
    logger: punchLogger(),
    services: {
      identify: identify(),
      identifyPush: identifyPush(),
      ping: pingService({ runOnLimitedConnection: true }),
      ...(given.relay ? { relay: relayServer() } : {}),
      ...(given.punch ? { dcutr: dcutr() } : {}),
      ...(given.autonat ? { autoNAT: autoNATv2() } : {})
    }
  })
}

function describe (connection) {
  return {
    peer: connection.remotePeer.toString(),
    remote: connection.remoteAddr.toString(),
    relay: isRelayed(connection),
    inbound: connection.direction === 'inbound',
    early_muxer: early.get(connection.remotePeer.toString()) ?? false
  }
}

function isRelayed (connection) {
  return connection.remoteAddr.toString().includes('/p2p-circuit')
}

function watch (node) {
  node.addEventListener('connection:open', ({ detail }) => say({ event: 'opened', ...describe(detail) }))
  node.addEventListener('connection:close', ({ detail }) => say({ event: 'closed', ...describe(detail) }))
  node.addEventListener('peer:identify', ({ detail }) => {
    known.set(detail.peerId.toString(), {
      agent: detail.agentVersion,
      protocols: detail.protocols,
      listen: detail.listenAddrs.map(String),
      observed: detail.observedAddr?.toString() ?? ''
    })
  })
  const reserved = new Set()
  circuits(node).addEventListener('relay:created-reservation', ({ detail }) => {
    const relay = detail.relay.toString()
    say({ event: 'reservation', relay, renewal: reserved.has(relay) })
    reserved.add(relay)
  })
  if (given.autonat) setInterval(() => reachability(node), 200).unref()
}

function circuits (node) {
  return node.components.transportManager.getTransports().find((one) => one.reservationStore).reservationStore
}

const told = new Map()

/** js-libp2p has no event for it: what its address manager believes, whenever that changes. */
function reachability (node) {
  for (const one of node.components.addressManager.getAddressesWithMetadata()) {
    const addr = one.multiaddr.toString()
    if (one.lastVerified && told.get(addr) !== one.verified) {
      told.set(addr, one.verified)
      say({ event: 'autonat', addr, ok: one.verified })
    }
  }
}

/** Open connections to a peer, direct ones first, of those the newest first. */
function connections (node, order) {
  const open = node.getConnections(peerIdFromString(order.peer)).filter((one) => one.status === 'open')
  return open.reverse().sort((one, other) => isRelayed(one) - isRelayed(other))
}

function connection (node, order) {
  const [first] = connections(node, order)
  if (!first) throw new Error(`no connection to ${order.peer}`)
  return first
}

async function identified (order) {
  const until = Date.now() + IDENTIFY_TIMEOUT
  while (!known.has(order.peer)) {
    if (Date.now() > until) throw new Error('no identify')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return known.get(order.peer)
}

/** A further listening address; circuits count once the relay granted the reservation. */
async function listen (node, addr) {
  const before = new Set(node.components.transportManager.getAddrs().map(String))
  await node.components.transportManager.listen([addr])
  return node.components.transportManager.getAddrs().map(String).filter((one) => !before.has(one))
}

async function obey (node, order, signal) {
  switch (order.do) {
    case 'dial': {
      // force: the address that was given, even beside a connection that stands.
      const made = await node.dial(multiaddr(order.addr), { force: true, signal })
      return { peer: made.remotePeer.toString() }
    }
    case 'reserve': {
      const relay = multiaddr(order.addr)
      const addrs = await listen(node, relay.encapsulate('/p2p-circuit'))
      const id = relay.getComponents().find((one) => one.name === 'p2p').value
      const got = circuits(node).getReservation(peerIdFromString(id))
      // Its client drops the limit from the answer.
      return { addrs: addrs.map((one) => `${one}/p2p/${node.peerId}`), expires: Number(got.expire), voucher: got.voucher != null }
    }
    case 'listen':
      return { addr: (await listen(node, multiaddr(order.addr)))[0] }
    case 'conns':
      return { conns: connections(node, order).map(describe) }
    case 'forget':
      known.delete(order.peer)
      return {}
    case 'close':
      await node.hangUp(peerIdFromString(order.peer), { signal })
      return {}
    case 'identify':
      return await identified(order)
    case 'ping': {
      const one = connection(node, order)
      const open = (protocol) => one.newStream(protocol, { runOnLimitedConnection: true, signal })
      return await ping(node, one, open, order.count)
    }
  }
  if (order.do.startsWith('grpc')) return await obeyRpc(() => connection(node, order), order)
  return await perform(connection(node, order), order)
}

/** An error with its causes: the status of a relay is deep in it. */
function chain (error) {
  const inner = [...(error.errors ?? []), ...(error.cause ? [error.cause] : [])]
  return [`${error.name}: ${error.message}`, ...inner.map(chain)].join('; ')
}

async function answer (node, order) {
  const signal = AbortSignal.timeout(ORDER_TIMEOUT)
  const late = new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(new Error(`${order.do} took longer than 60 s`)), { once: true })
  })
  try {
    say({ id: order.id, ok: await Promise.race([obey(node, order, signal), late]) })
  } catch (error) {
    say({ id: order.id, error: chain(error) })
  }
}

const node = await start()
watch(node)
await serve(node)
await serveRpc(node)
const addrs = node.components.transportManager.getAddrs().map((one) => `${one}/p2p/${node.peerId}`)
say({ event: 'ready', peer: node.peerId.toString(), addrs, version: `js-libp2p ${VERSION}, Node ${process.version.slice(1)}` })
createInterface({ input: process.stdin }).on('line', (line) => { answer(node, JSON.parse(line)) }).on('close', () => process.exit(0))
