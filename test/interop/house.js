// A real gatehouse on an empty folder, with two servers that others wrote behind
// it: one over stdio, one over Streamable HTTP.
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { mkdtempSync, mkdirSync, rmSync } from 'node:fs'
import http from 'node:http'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'

const here = import.meta.dirname
const everything = path.join(here, 'node_modules/@modelcontextprotocol/server-everything/dist/index.js')

// startHouse answers once both servers are added and pinned.
export async function startHouse() {
  const tmp = mkdtempSync(path.join(tmpdir(), 'gatehouse-interop-'))
  const house = new House(tmp, await freePort())
  try {
    await house.start()
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
  #children = []
  #recorder

  constructor(tmp, port) {
    this.tmp = tmp
    this.url = `http://localhost:${port}`
    this.data = path.join(tmp, 'data')
  }

  async start() {
    const bin = process.env.GATEHOUSE_BIN ?? (await build(this.tmp))
    const server = this.spawn('gatehouse', bin, ['serve', '--dev', '--listen', new URL(this.url).host, '--data-dir', this.data])
    await ready(`${this.url}/.well-known/oauth-authorization-server`, server)

    const port = await freePort()
    const upstream = this.spawn('everything-http', process.execPath, [everything, 'streamableHttp'], { PORT: String(port) })
    await ready(`http://127.0.0.1:${port}/mcp`, upstream, 400)
    const recorded = await this.record(port)

    const add = (...args) => promisify(execFile)(bin, ['add', ...args], { cwd: here, env: this.env() })
    await add('everything', '--data-dir', this.data, '--', 'npx', '-y', '@modelcontextprotocol/server-everything')
    await add('everything-http', '--data-dir', this.data, recorded)
  }

  // env is what a program of a new user would see, and no more.
  env(more = {}) {
    const home = path.join(this.tmp, 'home')
    mkdirSync(home, { recursive: true })
    return { PATH: process.env.PATH, HOME: home, LANG: 'C.UTF-8', ...more }
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
    for (const child of this.#children.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      const gone = new Promise(done => child.once('exit', done))
      child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), 5000)
      await gone
      clearTimeout(timer)
    }
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

// ready waits until url answers with status; any child that ends first is a failure.
async function ready(url, child, status = 200) {
  for (const end = Date.now() + 20_000; Date.now() < end; await new Promise(r => setTimeout(r, 50))) {
    assert.equal(child.exitCode, null, `${child.spawnfile} ended while it was waited for`)
    const answer = await fetch(url).catch(() => null)
    await answer?.body?.cancel()
    if (answer?.status === status) return
  }
  assert.fail(`${url} did not answer ${status} within 20 s`)
}

async function freePort() {
  const server = createServer()
  await new Promise(done => server.listen(0, '127.0.0.1', done))
  const { port } = server.address()
  await new Promise(done => server.close(done))
  return port
}

// The three ways to the same tools, and what they are called there.
export const ways = [
  { path: '/mcp', prefix: 'everything_', scope: 'mcp:tools' },
  { path: '/s/everything/mcp', prefix: '', scope: 'everything:read everything:write' },
  { path: '/s/everything-http/mcp', prefix: '', scope: 'everything-http:read everything-http:write' },
]
