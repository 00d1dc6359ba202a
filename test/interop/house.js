// A real gatehouse on an empty folder, with two servers that others wrote behind
// it: one over stdio, one over Streamable HTTP.
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { Person } from './person.js'
import { end, freePort, ready } from '../processes.mjs'

const here = import.meta.dirname
const everything = packaged('@modelcontextprotocol/server-everything/dist/index.js')

// inHouse makes the tests of a file, which share a house: in development mode,
// or with a person who sets it up and signs in. A failure shows what the server
// said. settings are variables of the server's environment. Some programs of others
// need Node 24, which npm test brings along. skip is the reason for which they cannot
// run, if there is one.
export function inHouse({ dev, settings, skip = false }) {
  if (skip) return name => test(name, { skip })
  let house
  before(async () => {
    assert.ok(parseInt(process.versions.node) >= 24, `run npm test: these clients need Node.js 24, this is ${process.version}`)
    house = await startHouse(dev, settings)
  }, { timeout: 180_000 })
  after(() => house?.stop())
  return (name, fn) => test(name, { timeout: 600_000 }, async t => {
    try {
      await fn(house, t)
    } catch (err) {
      err.message += house.tail()
      throw err
    }
  })
}

// startHouse answers once both servers are added and pinned. settings are
// variables of the environment.
export async function startHouse(dev, settings = {}) {
  const tmp = mkdtempSync(path.join(tmpdir(), 'gatehouse-interop-'))
  const house = new House(tmp, await freePort(), settings)
  try {
    await house.start(dev)
    if (!dev) await house.person.setUp()
  } catch (err) {
    err.message += house.tail()
    await house.stop()
    throw err
  }
  return house
}

class House {
  log = ''
  seen = [] // what arrived at the HTTP upstream: { headers, message }
  person = new Person(this)
  #bin
  #serve
  #server
  #children = []
  #recorder

  constructor(tmp, port, settings) {
    this.tmp = tmp
    this.settings = settings
    this.url = `http://localhost:${port}`
    this.data = path.join(tmp, 'data')
  }

  async start(dev) {
    await this.person.listen()
    this.#bin = process.env.GATEHOUSE_BIN ?? (await build(this.tmp))
    this.#serve = ['serve', ...(dev ? ['--dev'] : []), '--listen', new URL(this.url).host, '--data-dir', this.data]
    await this.#open()

    const port = await freePort()
    const upstream = this.spawn('everything-http', process.execPath, [everything, 'streamableHttp'], { PORT: String(port) })
    await ready(`http://127.0.0.1:${port}/mcp`, upstream, 400)
    const recorded = await this.record(port)

    await this.command('add', 'everything', '--data-dir', this.data, '--', 'npx', '-y', '@modelcontextprotocol/server-everything')
    await this.command('add', 'everything-http', '--data-dir', this.data, recorded)
  }

  async #open() {
    this.#server = this.spawn('gatehouse', this.#bin, this.#serve, this.settings)
    await ready(`${this.url}/.well-known/oauth-protected-resource`, this.#server, 200)
  }

  // restart kills the server and starts it again.
  async restart() {
    const gone = new Promise(done => this.#server.once('exit', done))
    this.#server.kill('SIGKILL')
    await gone
    await this.#open()
  }

  // command runs a gatehouse command beside the server and answers with what it printed.
  async command(...args) {
    return (await promisify(execFile)(this.#bin, args, { cwd: here, env: this.env() })).stdout
  }

  // stdio is how a program starts gatehouse stdio beside the server.
  stdio() {
    return { command: this.#bin, args: ['stdio', '--dev', '--data-dir', this.data, '--public-url', this.url] }
  }

  // events are what the log has of an app, in its order.
  async events(client) {
    const lines = (await this.command('audit', 'tail', '--data-dir', this.data, '--since-seq', '0', '-o', 'json')).trim().split('\n')
    const events = lines.map(line => JSON.parse(line)).filter(e => e.client === client)
    return events.map(e => [e.action, e.outcome, ...(e.action === 'tool.call' ? [e.target] : [])].join(' '))
  }

  // recorded demands that the log has the person's yes to an app, its tokens, and
  // its calls of a tool: each in that order, allowed, and nothing else. Some apps
  // also ask for more or less of a server's log.
  async recorded(client, ...calls) {
    const events = (await this.events(client)).filter(event => event !== 'log.level allowed')
    assert.deepEqual(events, ['consent allowed', 'token.issue allowed', ...calls.map(name => `tool.call allowed ${name}`)])
  }

  // untold demands that the server behind was called, and never saw a bearer.
  untold() {
    assert.ok(this.seen.length > 0)
    for (const { headers } of this.seen) assert.equal(headers.authorization, undefined)
  }

  // printed is the first text like this in the log, for which it waits.
  async printed(like) {
    for (const end = Date.now() + 20_000; Date.now() < end; await new Promise(r => setTimeout(r, 20))) {
      const [, text] = like.exec(this.log) ?? []
      if (text) return text
    }
    assert.fail(`${like} was not printed`)
  }

  // env is what a program of a new user would see, and no more.
  env(more = {}) {
    const home = path.join(this.tmp, 'home')
    mkdirSync(home, { recursive: true })
    return { PATH: process.env.PATH, HOME: home, LANG: 'C.UTF-8', ...more }
  }

  // newcomer is the environment of somebody who never ran anything: an empty home,
  // and a browser that is the person's.
  newcomer(more = {}) {
    const home = mkdtempSync(path.join(this.tmp, 'newcomer-'))
    const bin = path.join(home, 'bin')
    mkdirSync(bin)
    const browser = path.join(bin, 'xdg-open')
    writeFileSync(browser, `#!/bin/sh\nexec curl -sS --noproxy '*' --data-raw "$1" ${this.person.door}\n`, { mode: 0o755 })
    return this.env({ HOME: home, PATH: `${bin}:${process.env.PATH}`, BROWSER: browser, ...more })
  }

  spawn(name, command, args, env) {
    const child = spawn(command, args, { cwd: here, env: this.env(env), stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', text => { if (name === 'gatehouse') this.log += text })
    }
    this.#children.push(child)
    return child
  }

  // record stands in front of the HTTP upstream and keeps what arrives there.
  async record(port) {
    this.#recorder = http.createServer((req, res) => {
      let body = ''
      req.on('data', chunk => (body += chunk))
      req.on('end', () => {
        this.seen.push({ headers: req.headers, message: body && JSON.parse(body) })
        const on = http.request({ port, host: '127.0.0.1', path: req.url, method: req.method, headers: req.headers }, answer => {
          res.writeHead(answer.statusCode, answer.headers).flushHeaders()
          answer.pipe(res)
        })
        on.on('error', () => res.destroy())
        res.on('close', () => on.destroy())
        on.end(body)
      })
    })
    await new Promise(done => this.#recorder.listen(0, '127.0.0.1', done))
    return `http://127.0.0.1:${this.#recorder.address().port}/mcp`
  }

  // tail is the end of the server's log, for the message of a failure.
  tail() {
    return `\n--- the server said last:\n${this.log.split('\n').slice(-40).join('\n')}`
  }

  async stop() {
    await end(this.#children)
    this.person.close()
    this.#recorder?.closeAllConnections()
    this.#recorder?.close()
    rmSync(this.tmp, { recursive: true, force: true })
  }
}

async function build(tmp) {
  const bin = path.join(tmp, 'gatehouse')
  await promisify(execFile)('go', ['build', '-o', bin, './cmd/gatehouse'], { cwd: path.join(here, '../..') })
  return bin
}

// run runs a client's program to its end, in the home of its environment, and
// answers with what it printed. A failure says all that it said.
export async function run(command, args, env) {
  const running = promisify(execFile)(command, args, { cwd: env.HOME, env, timeout: 240_000 })
  running.child.stdin.end()
  try {
    return (await running).stdout
  } catch (err) {
    err.message += `\n--- it said:\n${err.stdout}\n${err.stderr}`
    throw err
  }
}

// pinned are settings under which these documents of apps, by their addresses, are
// known, and no others, because these tests have no internet to fetch them.
export function pinned(documents) {
  const file = path.join(mkdtempSync(path.join(tmpdir(), 'gatehouse-interop-')), 'gatehouse.yaml')
  writeFileSync(file, JSON.stringify({ cimd: 'allowlist', cimd_documents: documents }))
  after(() => rmSync(path.dirname(file), { recursive: true }))
  return { GATEHOUSE_CONFIG: file }
}

// confined are variables for programs that call their makers: whatever is not on this
// computer they ask of a proxy that is not there.
export const confined = { HTTP_PROXY: 'http://127.0.0.1:9', HTTPS_PROXY: 'http://127.0.0.1:9', NO_PROXY: 'localhost,127.0.0.1' }

// packaged is a file of an installed package.
export function packaged(file) {
  return path.join(here, 'node_modules', file)
}

// The three ways to the same tools, and what they are called there and in the log.
export const ways = [
  { path: '/mcp', prefix: 'everything_', scope: 'mcp:tools', server: 'everything' },
  { path: '/s/everything/mcp', prefix: '', scope: 'everything:read everything:write', server: 'everything' },
  { path: '/s/everything-http/mcp', prefix: '', scope: 'everything-http:read everything-http:write', server: 'everything-http' },
]
