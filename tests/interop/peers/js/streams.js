// The stream protocols of the interop suite: echo, count, reset, slow and perf, both sides of each.
// Readers pause the stream while they do not keep up: js-libp2p pushes otherwise.

import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

const PROTOCOLS = {
  echo: '/interop/echo/1.0.0',
  many: '/interop/echo/1.0.0',
  count: '/interop/count/1.0.0',
  reset: '/interop/reset/1.0.0',
  slow: '/interop/slow/1.0.0',
  perf: '/perf/1.0.0',
  flow: '/perf/1.0.0'
}
const PING = '/ipfs/ping/1.0.0'
const PAUSE = 2000
const BLOCK = 65536
const MANY = { maxInboundStreams: 1024, maxOutboundStreams: 1024, runOnLimitedConnection: true }

/** Its Yamux grants up to 16 MiB, but a paused stream with more than 4 MiB unread would be reset. */
export function pausable (stream) {
  stream.maxReadBufferLength = 32 << 20
  return stream
}

/** Pauses while `full()`, but not at once: a pause from within resume() is undone by it (AbstractMessageStream). */
export function hold (stream, full) {
  queueMicrotask(() => { if (full() && stream.readStatus === 'readable') stream.pause() })
}

/** Calls `take` with each piece until the other side's end; rejects when the stream is reset. */
function read (stream, take) {
  return new Promise((resolve, reject) => {
    const finish = (error) => error ? reject(error) : resolve()
    stream.addEventListener('end', () => { if (!['reset', 'aborted'].includes(stream.status)) finish() })
    stream.addEventListener('close', (event) => { if (event.error) finish(event.error) })
    stream.addEventListener('message', (event) => take(event.data))
    // Reset before anyone listened: nothing more will be told.
    if (stream.status === 'reset' || stream.status === 'aborted') finish(new Error(`stream ${stream.status}`))
    else if (stream.readableEnded) finish()
  })
}

/** Exact numbers of bytes from the front, then the rest. */
class Front {
  #stored = Buffer.alloc(0)
  #waiting = null

  constructor (stream) {
    const done = read(stream, (data) => {
      this.#stored = Buffer.concat([this.#stored, data.subarray()])
      this.#serve()
    })
    done.then(() => this.#end(new Error('the stream ended early')), (error) => this.#end(error))
  }

  exactly (size) {
    return new Promise((resolve, reject) => {
      this.#waiting = { size, resolve, reject }
      this.#serve()
    })
  }

  #serve () {
    const one = this.#waiting
    if (one && this.#stored.length >= one.size) {
      this.#waiting = null
      one.resolve(this.#stored.subarray(0, one.size))
      this.#stored = this.#stored.subarray(one.size)
    } else if (this.ended) {
      this.#end(this.ended)
    }
  }

  #end (error) {
    this.ended = error
    this.#waiting?.reject(error)
    this.#waiting = null
  }
}

async function drain (stream) {
  let total = 0
  await read(stream, (data) => { total += data.byteLength })
  return total
}

/** Until the stream takes more. Not its onDrain(): in @libp2p/utils 7.4.1 that waits for the first drain only. */
export async function drained (stream) {
  while (stream.writableNeedsDrain) {
    if (stream.writeStatus === 'closed') throw new Error('the stream was closed') // and will not tell again
    await new Promise((resolve, reject) => {
      const done = (event) => {
        for (const name of ['drain', 'close']) stream.removeEventListener(name, done)
        // What was queued goes first, in a microtask of its own; then it tells whether that was all.
        if (event.type === 'drain') setImmediate(resolve)
        else reject(event.error ?? new Error('the stream was closed'))
      }
      for (const name of ['drain', 'close']) stream.addEventListener(name, done)
    })
  }
}

async function write (stream, data) {
  if (!stream.send(data)) await drained(stream)
}

async function zeros (stream, size, count = () => {}) {
  const block = new Uint8Array(BLOCK)
  for (let left = size; left > 0; left -= BLOCK) {
    const some = left < BLOCK ? block.subarray(0, left) : block
    await write(stream, some)
    count(some.length)
  }
}

function number (value) {
  const data = Buffer.alloc(8)
  data.writeBigUInt64BE(BigInt(value))
  return data
}

async function onEcho (stream) {
  await read(pausable(stream), (data) => {
    if (stream.send(data)) return
    hold(stream, () => stream.writableNeedsDrain)
    drained(stream).then(() => { if (stream.readStatus === 'paused') stream.resume() }, () => {})
  })
  await stream.close()
}

async function onCount (stream) {
  const total = await drain(stream)
  await write(stream, number(total))
  await stream.close()
}

async function onSlow (stream) {
  pausable(stream).pause()
  await sleep(PAUSE)
  stream.resume()
  await onCount(stream)
}

async function onReset (stream) {
  await new Front(stream).exactly(4)
  stream.abort(new Error('the suite wants a reset'))
}

async function onPerf (stream) {
  let head = Buffer.alloc(0)
  await read(stream, (data) => {
    if (head.length < 8) head = Buffer.concat([head, data.subarray()])
  })
  await zeros(stream, Number(head.readBigUInt64BE()))
  await stream.close()
}

export async function serve (node) {
  const handlers = { echo: onEcho, count: onCount, slow: onSlow, reset: onReset, perf: onPerf }
  for (const [name, handler] of Object.entries(handlers)) {
    await node.handle(PROTOCOLS[name], (stream) => handler(stream).catch((error) => stream.abort(error)), MANY)
  }
}

async function echo (stream, size) {
  const began = performance.now()
  const sent = createHash('sha256')
  const received = createHash('sha256')
  const block = randomBytes(BLOCK)
  let bytes = 0
  const back = read(stream, (data) => {
    bytes += data.byteLength
    received.update(data.subarray())
  })
  const forth = async () => {
    for (let at = 0; at < size; at += BLOCK) {
      block.writeUInt32BE(at / BLOCK)
      const some = Buffer.from(block.subarray(0, Math.min(BLOCK, size - at)))
      sent.update(some)
      await write(stream, some)
    }
    await stream.close()
  }
  await Promise.all([forth(), back])
  const same = bytes === size && sent.digest('hex') === received.digest('hex')
  return { bytes, same, seconds: (performance.now() - began) / 1000 }
}

/** Also says how much the other side let us write in the first second. */
async function counted (stream, size) {
  const front = new Front(stream)
  let written = 0
  let early = 0
  const timer = setTimeout(() => { early = written }, 1000)
  try {
    await zeros(stream, size, (some) => { written += some })
    await stream.close()
    const count = Number((await front.exactly(8)).readBigUInt64BE())
    return { count, first_second: early }
  } finally {
    clearTimeout(timer)
  }
}

async function perf (stream, { up, down }) {
  const began = performance.now()
  const back = drain(stream)
  await write(stream, number(down))
  await zeros(stream, up)
  await stream.close()
  return { down: await back, seconds: (performance.now() - began) / 1000 }
}

/** Receives for some seconds, and counts what came after the first `skip` of them. */
async function flow (stream, { seconds, skip }) {
  let counted = 0
  const began = performance.now()
  const over = new Promise((resolve, reject) => {
    read(stream, (data) => {
      const elapsed = (performance.now() - began) / 1000
      if (elapsed >= skip) counted += data.byteLength
      if (elapsed >= seconds) resolve({ rate: counted / 1e6 / (seconds - skip) })
    }).then(() => reject(new Error('the stream ended early')), reject)
  })
  stream.send(number(2 ** 40))
  await stream.close()
  return await over
}

async function reset (stream) {
  const end = drain(stream)
  stream.send(new Uint8Array(4))
  return end.then(() => ({ seen: 'end' }), (error) => ({ seen: error.name === 'StreamResetError' ? 'reset' : error.message }))
}

/** Opens all streams, each known to be served, before it uses any further. */
async function many (open, count) {
  const streams = []
  for (let i = 0; i < count; i++) {
    const stream = await open(PROTOCOLS.many)
    const first = new Promise((resolve) => stream.addEventListener('message', resolve, { once: true }))
    stream.send(new Uint8Array(1))
    await first
    streams.push(stream)
  }
  const results = await Promise.all(streams.map((stream) => echo(stream, 1000)))
  return { good: results.filter((one) => one.same).length }
}

/**
 * Until no ping stream of ours stands on the connection: js-libp2p has one for each connection at most, and counts it
 * until both sides have ended it. A stream whose other half is not ended within PAUSE is reset.
 */
async function unpinged (connection) {
  const standing = connection.streams.filter((one) => one.protocol === PING && one.direction === 'outbound')
  await Promise.all(standing.map((stream) => new Promise((resolve) => {
    const late = setTimeout(() => stream.abort(new Error('the other side did not end its half')), PAUSE)
    stream.addEventListener('close', () => { clearTimeout(late); resolve() }, { once: true })
  })))
}

/**
 * The first one with the ping service of js-libp2p, unless the connection is limited: beside such a one the service
 * dials the peer anew. The others on one stream, timed finer than its milliseconds.
 */
export async function ping (node, connection, open, count) {
  const ms = []
  await unpinged(connection)
  if (!connection.limits) {
    const began = performance.now()
    await node.services.ping.ping(connection.remotePeer)
    ms.push(performance.now() - began)
    await unpinged(connection)
  }
  const stream = await open(PING)
  const front = new Front(stream)
  try {
    while (ms.length < count) {
      const data = randomBytes(32)
      const sent = performance.now()
      stream.send(data)
      if (!data.equals(await front.exactly(32))) throw new Error('another answer than was sent')
      ms.push(performance.now() - sent)
    }
  } finally {
    await stream.close()
  }
  return { ms }
}

export async function perform (connection, order) {
  const open = (protocol) => connection.newStream(protocol, MANY)
  if (!(order.do in PROTOCOLS)) throw new Error(`unknown order ${order.do}`)
  if (order.do === 'many') return await many(open, order.count)
  const stream = await open(PROTOCOLS[order.do])
  try {
    if (order.do === 'echo') return await echo(stream, order.size)
    if (order.do === 'perf') return await perf(stream, order)
    if (order.do === 'flow') return await flow(stream, order)
    return await (order.do === 'reset' ? reset(stream) : counted(stream, order.size))
  } finally {
    if (stream.status === 'open') stream.abort(new Error('done with it'))
  }
}
