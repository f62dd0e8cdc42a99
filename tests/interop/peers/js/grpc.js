// grpc-js on plain TCP for the interop suite: a server, and a client that carries out orders given as JSON lines.
// Messages are bytes. It knows no libp2p: whoever calls it, or whom it calls, comes through a port on loopback.

import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import grpc from '@grpc/grpc-js'

const VERSION = JSON.parse(readFileSync(new URL('node_modules/@grpc/grpc-js/package.json', import.meta.url))).version
const OPTIONS = { 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 }
const same = (data) => data
const SERVICE = Object.fromEntries([
  ['Echo', false, false], ['Status', false, false], ['Wait', false, false], ['Cancelled', false, false],
  ['Collect', true, false], ['Spread', false, true], ['Drip', false, true], ['Chat', true, true]
].map(([name, requestStream, responseStream]) => [name, {
  path: `/interop.Bytes/${name}`,
  requestStream,
  responseStream,
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same
}]))
/** Milliseconds in which the server must have learnt that a call is over. */
const SEEN_WITHIN = 10_000

function say (line) {
  process.stdout.write(JSON.stringify(line) + '\n')
}

function metadata (key, value) {
  const made = new grpc.Metadata()
  made.set(key, value)
  return made
}

let cancelled = 0

/** The server's side of each method; `Drip` sends one message and waits, `Wait` sends none. */
const HANDLERS = {
  Echo (call, callback) {
    call.sendMetadata(metadata('x-initial', call.metadata.get('x-initial')[0] ?? ''))
    callback(null, call.request, metadata('x-size', String(call.request.length)))
  },
  Status (call, callback) {
    const { code, details } = JSON.parse(call.request)
    callback({ code, details, metadata: metadata('x-code', String(code)) })
  },
  Wait (call) {
    call.on('cancelled', () => { cancelled++ })
  },
  Drip (call) {
    call.on('cancelled', () => { cancelled++ })
    call.write(Buffer.from('first'))
  },
  Cancelled (_call, callback) {
    callback(null, Buffer.from(String(cancelled)))
  },
  Collect (call, callback) {
    let total = 0
    call.on('data', (data) => { total += data.length })
    call.on('end', () => callback(null, Buffer.from(String(total))))
  },
  async Spread (call) {
    const { count, size } = JSON.parse(call.request)
    for (let i = 0; i < count; i++) {
      if (!call.write(Buffer.alloc(size, i))) await new Promise((resolve) => call.once('drain', resolve))
    }
    call.end()
  },
  Chat (call) {
    call.on('data', (data) => call.write(data))
    call.on('end', () => call.end())
  }
}

function serve () {
  const server = new grpc.Server(OPTIONS)
  server.addService(SERVICE, HANDLERS)
  return new Promise((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => error ? reject(error) : resolve(port))
  })
}

const Client = grpc.makeGenericClientConstructor(SERVICE, 'interop.Bytes')
const clients = new Map()

function clientTo (addr) {
  if (!clients.has(addr)) clients.set(addr, new Client(addr, grpc.credentials.createInsecure(), OPTIONS))
  return clients.get(addr)
}

function unary (client, name, request, sent = new grpc.Metadata(), options = { deadline: Date.now() + 50_000 }) {
  return new Promise((resolve) => {
    const found = {}
    const call = client[name](request, sent, options, (_error, answer) => { found.answer = answer })
    call.on('metadata', (got) => { found.initial = got })
    // The last event of a call, after the answer.
    call.on('status', ({ code, details, metadata }) => resolve({ ...found, code: grpc.status[code], details, trailer: metadata }))
  })
}

/** All that a stream answered, and its status; the messages of `requests` are sent one after the other. */
function stream (client, name, requests, { request, lockstep = false } = {}) {
  return new Promise((resolve) => {
    const heard = []
    const call = request ? client[name](request) : client[name]()
    const next = () => {
      if (heard.length < requests.length) call.write(requests[heard.length])
      else call.end()
    }
    call.on('data', (data) => { heard.push(data); if (lockstep) next() })
    call.on('error', () => {}) // the status tells it
    call.on('status', ({ code }) => resolve({ heard, code: grpc.status[code] }))
    if (lockstep) next()
  })
}

function bytes (size) {
  return Buffer.alloc(size, 'a pattern that no page repeats, ')
}

async function cancels (client, before, wanted) {
  for (const until = Date.now() + SEEN_WITHIN; Date.now() < until; await sleep(20)) {
    if (Number((await unary(client, 'Cancelled', Buffer.alloc(0))).answer) >= before + wanted) return true
  }
  return false
}

const ORDERS = {
  async unary (client, { size }) {
    const sent = bytes(size)
    const got = await unary(client, 'Echo', sent, metadata('x-initial', 'asked'))
    return { code: got.code, same: sent.equals(got.answer), initial: got.initial.get('x-initial'), trailer: got.trailer.get('x-size') }
  },
  async many (client, { count }) {
    const all = Array.from({ length: count }, (_, i) => unary(client, 'Echo', Buffer.from(`call ${i}`)))
    const got = await Promise.all(all)
    return { good: got.filter((one, i) => one.code === 'OK' && one.answer.equals(Buffer.from(`call ${i}`))).length }
  },
  async collect (client, { count, size }) {
    return await new Promise((resolve, reject) => {
      const call = client.Collect((error, answer) => error ? reject(error) : resolve({ total: Number(answer) }))
      for (let i = 0; i < count; i++) call.write(bytes(size))
      call.end()
    })
  },
  async spread (client, { count, size }) {
    const { heard, code } = await stream(client, 'Spread', [], { request: Buffer.from(JSON.stringify({ count, size })) })
    return { code, good: heard.filter((one, i) => one.equals(Buffer.alloc(size, i))).length }
  },
  async chat (client, { count, size }) {
    const said = Array.from({ length: count }, (_, i) => Buffer.concat([Buffer.from(`${i} `), bytes(size)]))
    const { heard, code } = await stream(client, 'Chat', said, { lockstep: true })
    return { code, good: heard.filter((one, i) => one.equals(said[i])).length, heard: heard.length }
  },
  async status (client, { code, details }) {
    const got = await unary(client, 'Status', Buffer.from(JSON.stringify({ code, details })))
    return { code: got.code, details: got.details, trailer: got.trailer.get('x-code') }
  },
  async unimplemented (client) {
    return await new Promise((resolve) => {
      client.makeUnaryRequest('/interop.Bytes/Nothing', same, same, Buffer.alloc(0), (error) => {
        resolve({ code: grpc.status[error?.code ?? 0] })
      })
    })
  },
  async cancel (client, { after }) {
    const before = Number((await unary(client, 'Cancelled', Buffer.alloc(0))).answer)
    const code = await new Promise((resolve) => {
      const call = after === 'first message' ? client.Drip(Buffer.alloc(0)) : client.Wait(Buffer.alloc(0), () => {})
      call.on('error', () => {})
      call.on('status', (status) => resolve(grpc.status[status.code]))
      if (after === 'first message') call.on('data', () => call.cancel())
      else setTimeout(() => call.cancel(), 300)
    })
    return { code, seen: await cancels(client, before, 1) }
  },
  async deadline (client, { seconds }) {
    const before = Number((await unary(client, 'Cancelled', Buffer.alloc(0))).answer)
    const options = { deadline: Date.now() + 1000 * seconds }
    const { code } = await unary(client, 'Wait', Buffer.alloc(0), new grpc.Metadata(), options)
    return { code, seen: await cancels(client, before, 1) }
  }
}

async function answer (order) {
  try {
    if (!(order.do in ORDERS)) throw new Error(`unknown order ${order.do}`)
    say({ id: order.id, ok: await ORDERS[order.do](clientTo(order.addr), order) })
  } catch (error) {
    say({ id: order.id, error: `${error.name}: ${error.message}` })
  }
}

const port = await serve()
say({ event: 'ready', peer: '', addrs: [`127.0.0.1:${port}`], version: `grpc-js ${VERSION}` })
createInterface({ input: process.stdin }).on('line', (line) => { answer(JSON.parse(line)) }).on('close', () => process.exit(0))
