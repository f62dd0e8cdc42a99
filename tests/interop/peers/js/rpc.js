// grpc-js on js-libp2p streams: a server on inbound streams and a client that opens one, with bytes as messages.
// The server takes each stream by its connection injector; the client, which has none, through a port on loopback.

import { once } from 'node:events'
import { createServer } from 'node:net'
import { Duplex, pipeline } from 'node:stream'
import grpc from '@grpc/grpc-js'
import { drained, hold, pausable } from './streams.js'

const PROTOCOL = '/punchbridge/grpc/1.0.0'
const LIMITS = { maxInboundStreams: 1024, maxOutboundStreams: 1024, runOnLimitedConnection: true }
const OPTIONS = { 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 }
const CHATS = 50
const MIB = 1 << 20
const same = (data) => data
const METHODS = { Echo: [false, false], Chat: [true, true], Up: [true, true], Down: [true, true] }
const SERVICE = Object.fromEntries(Object.entries(METHODS).map(([name, [requestStream, responseStream]]) => [name, {
  path: `/interop.Bytes/${name}`,
  requestStream,
  responseStream,
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same
}]))
const Client = grpc.makeGenericClientConstructor(SERVICE, 'interop.Bytes')

function duplex (stream) {
  pausable(stream)
  let full = false
  const made = new Duplex({
    read () {
      full = false
      if (stream.readStatus === 'paused') stream.resume()
    },
    write (chunk, _encoding, done) {
      try {
        if (stream.send(chunk)) done()
        else drained(stream).then(() => done(), done)
      } catch (error) {
        done(error)
      }
    },
    final (done) { stream.close().then(() => done(), done) },
    destroy (error, done) {
      if (stream.status === 'open' || stream.status === 'closing') stream.abort(error ?? new Error('done with it'))
      done(error)
    }
  })
  stream.addEventListener('message', ({ data }) => {
    full = !made.push(Buffer.from(data.subarray()))
    if (full) hold(stream, () => full)
  })
  stream.addEventListener('end', () => { if (!made.destroyed) made.push(null) })
  stream.addEventListener('close', ({ error }) => { if (error) made.destroy(error) })
  return made
}

async function streamed (call, message) {
  if (!call.write(message)) await once(call, 'drain')
}

const HANDLERS = {
  Echo (call, callback) {
    if (call.request.equals(Buffer.from('fail'))) return callback({ code: grpc.status.NOT_FOUND, details: 'nothing here' })
    const trailer = new grpc.Metadata()
    trailer.set('x-size', String(call.request.length))
    callback(null, call.request, trailer)
  },
  Chat (call) {
    call.on('data', (data) => call.write(data))
    call.on('end', () => call.end())
  },
  Up (call) {
    let total = 0
    call.on('data', (data) => { total += data.length })
    call.on('end', () => { call.write(Buffer.from(String(total))); call.end() })
  },
  async Down (call) {
    const [wanted] = await once(call, 'data')
    const block = Buffer.alloc(MIB)
    for (let i = 0; i < Number(wanted) && !call.cancelled; i++) await streamed(call, block)
    call.end()
  }
}

export async function serveRpc (node) {
  const server = new grpc.Server(OPTIONS)
  server.addService(SERVICE, HANDLERS)
  const injector = server.createConnectionInjector(grpc.ServerCredentials.createInsecure())
  await node.handle(PROTOCOL, (stream) => injector.injectConnection(duplex(stream)), LIMITS)
}

/** A client whose every HTTP/2 connection is a stream of this connection. */
async function clientOver (connection) {
  const door = createServer({ noDelay: true }, async (socket) => {
    try {
      const far = duplex(await connection.newStream(PROTOCOL, LIMITS))
      pipeline(socket, far, () => {})
      pipeline(far, socket, () => {})
    } catch (error) {
      socket.destroy(error)
    }
  })
  door.listen(0, '127.0.0.1')
  await once(door, 'listening')
  door.unref()
  return new Client(`127.0.0.1:${door.address().port}`, grpc.credentials.createInsecure(), { ...OPTIONS, 'grpc.use_local_subchannel_pool': 1 })
}

function echo (client, data) {
  return new Promise((resolve) => {
    let found
    const call = client.Echo(data, { deadline: Date.now() + 55_000 }, (_error, answer) => { found = answer })
    call.on('status', ({ code, details, metadata }) => resolve({ answer: found, code, details, metadata }))
  })
}

async function mustEcho (client, data) {
  const got = await echo(client, data)
  if (got.code !== grpc.status.OK) throw new Error(`${grpc.status[got.code]}: ${got.details}`)
  return got
}

/** The interop row: a unary call with its trailer, a status, and messages in turn. */
async function row (client, size) {
  const sent = Buffer.alloc(size, 'a pattern that no page repeats, ')
  const got = await mustEcho(client, sent)
  const failed = await echo(client, Buffer.from('fail'))
  const call = client.Chat()
  let chats = 0
  for (let i = 0; i < CHATS; i++) {
    call.write(Buffer.from(String(i)))
    const [heard] = await once(call, 'data')
    if (heard.equals(Buffer.from(String(i)))) chats++
  }
  call.end()
  call.resume()
  const [{ code }] = await once(call, 'status')
  return {
    same: sent.equals(got.answer),
    trailer: got.metadata.get('x-size'),
    status: grpc.status[failed.code],
    chats,
    ended: code === grpc.status.OK
  }
}

const small = Buffer.alloc(100)
let open = []

async function unaries (client, count) {
  const ms = []
  for (let i = 0; i < count; i++) {
    const began = performance.now()
    await mustEcho(client, small)
    ms.push(performance.now() - began)
  }
  return ms
}

async function received (call, count) {
  let got = 0
  call.on('data', () => { got++ })
  const [{ code }] = await once(call, 'status')
  if (code !== grpc.status.OK || got !== count) throw new Error(`${got} of ${count} messages, then ${grpc.status[code]}`)
}

async function loaded (count) {
  const bulk = open[1].Down()
  let moved = 0
  bulk.on('error', () => {}) // cancelled below
  bulk.on('data', () => { moved++ })
  bulk.write(Buffer.from('1000000'))
  await once(bulk, 'data')
  const began = performance.now()
  const before = moved
  const ms = await unaries(open[0], count)
  const rate = (moved - before) * MIB / 1e6 / ((performance.now() - began) / 1000)
  bulk.cancel()
  return { ms, bulk: rate }
}

/** What the benchmark asks, on two channels that stay open. */
const MEASURES = {
  unary: async ({ count }) => ({ ms: await unaries(open[0], count) }),
  async rate ({ count, flight }) {
    const each = Math.floor(count / flight)
    await Promise.all(Array.from({ length: flight }, () => unaries(open[0], each)))
    return { calls: each * flight }
  },
  async chat ({ count }) {
    const call = open[0].Chat()
    const all = received(call, count)
    for (let i = 0; i < count; i++) await streamed(call, small)
    call.end()
    await all
    return { messages: count }
  },
  async up ({ mib }) {
    const call = open[0].Up()
    const all = received(call, 1)
    const block = Buffer.alloc(MIB)
    for (let i = 0; i < mib; i++) await streamed(call, block)
    call.end()
    await all
    return {}
  },
  async down ({ mib }) {
    const call = open[0].Down()
    call.write(Buffer.from(String(mib)))
    await received(call, mib)
    return {}
  },
  loaded: async ({ count }) => await loaded(count)
}

/** `connect` gives the connection to the order's peer; the measures use the channels that are open. */
export async function obeyRpc (connect, order) {
  if (order.do === 'grpc') {
    const client = await clientOver(connect())
    try {
      return await row(client, order.size)
    } finally {
      client.close()
    }
  }
  if (order.do === 'grpc_channel') {
    open = [await clientOver(connect()), await clientOver(connect())]
    return {}
  }
  const measure = MEASURES[order.do.slice('grpc_'.length)]
  if (!measure || open.length === 0) throw new Error(measure ? 'no channel is open' : `unknown order ${order.do}`)
  const began = performance.now()
  const found = await measure(order)
  return { seconds: (performance.now() - began) / 1000, ...found }
}
