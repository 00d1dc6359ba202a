// A real gatehouse with the suite's own fixture behind it, and a proxy on loopback
// that adds the access token, which the suite has no way to send.
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, mkdirSync, rmSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { end, freePort, ready } from '../processes.mjs'

const here = import.meta.dirname
const run = promisify(execFile)
const fixture = 'github.com/modelcontextprotocol/go-sdk/conformance/everything-server@v1.8.0'
const redirect = 'http://127.0.0.1:39998/callback'

export class House {
  log = ''
  #children = []
  #proxy

  // start answers once the fixture is behind the house, as the server "fixture".
  static async start() {
    const house = new House()
    house.tmp = mkdtempSync(path.join(tmpdir(), 'gatehouse-conformance-'))
    try {
      await house.#furnish()
    } catch (err) {
      err.message += house.tail()
      await house.stop()
      throw err
    }
    return house
  }

  async #furnish() {
    mkdirSync(path.join(this.tmp, 'home'))
    await run('go', ['install', fixture], { env: { ...process.env, GOBIN: this.tmp } })
    this.bin = process.env.GATEHOUSE_BIN ?? path.join(this.tmp, 'gatehouse')
    if (!process.env.GATEHOUSE_BIN) await run('go', ['build', '-o', this.bin, './cmd/gatehouse'], { cwd: path.join(here, '../..') })

    const port = await freePort()
    this.fixture = `http://localhost:${port}/mcp`
    const server = this.#spawn(path.join(this.tmp, 'everything-server'), ['-http', `localhost:${port}`, '-stateless=false'])
    await ready(this.fixture, server)

    this.url = `http://localhost:${await freePort()}`
    const data = path.join(this.tmp, 'data')
    const gatehouse = this.#spawn(this.bin, ['serve', '--dev', '--listen', new URL(this.url).host, '--data-dir', data])
    await ready(`${this.url}/.well-known/oauth-authorization-server`, gatehouse)
    await run(this.bin, ['add', 'fixture', this.fixture, '--data-dir', data], { env: this.#env() })
  }

  #env() { return { PATH: process.env.PATH, HOME: path.join(this.tmp, 'home'), LANG: 'C.UTF-8' } }

  #spawn(command, args) {
    const child = spawn(command, args, { env: this.#env(), stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', text => { this.log += text })
    this.#children.push(child)
    return child
  }

  // register makes a public app known.
  async register(redirect) {
    const answer = await fetch(`${this.url}/oauth/register`, {
      method: 'POST', headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ client_name: 'Conformance', redirect_uris: [redirect], token_endpoint_auth_method: 'none' }),
    })
    assert.equal(answer.status, 201)
    return (await answer.json()).client_id
  }

  // token signs in as the development identity, for everything at one endpoint.
  async token(at) {
    const client = await this.register(redirect)
    const verifier = randomBytes(32).toString('base64url')
    const query = new URLSearchParams({
      response_type: 'code', client_id: client, redirect_uri: redirect, scope: 'mcp:admin', resource: this.url + at, state: 'x',
      code_challenge: createHash('sha256').update(verifier).digest('base64url'), code_challenge_method: 'S256',
    })
    const answer = await fetch(`${this.url}/oauth/authorize?${query}`, { redirect: 'manual' })
    const code = new URL(answer.headers.get('location')).searchParams.get('code')
    const form = new URLSearchParams({ grant_type: 'authorization_code', client_id: client, code, redirect_uri: redirect, code_verifier: verifier })
    const tokens = await (await fetch(`${this.url}/oauth/token`, { method: 'POST', body: form })).json()
    assert.ok(tokens.access_token, JSON.stringify(tokens))
    return tokens.access_token
  }

  // open is an address at which the endpoint needs no token. Its own Host becomes
  // the house's; any other stays, so that the house judges it.
  async open(at) {
    const token = await this.token(at)
    const { host, hostname, port } = new URL(this.url)
    this.#proxy = http.createServer((req, res) => {
      const headers = { ...req.headers, authorization: `Bearer ${token}` }
      if (headers.host === new URL(address).host) headers.host = host
      const on = http.request({ hostname, port, path: req.url, method: req.method, headers }, answer => {
        res.writeHead(answer.statusCode, answer.headers).flushHeaders()
        answer.pipe(res)
      })
      on.on('error', () => res.destroy())
      res.on('close', () => on.destroy())
      req.pipe(on)
    })
    await new Promise(done => this.#proxy.listen(0, 'localhost', done))
    const address = `http://localhost:${this.#proxy.address().port}${at}`
    return address
  }

  // tail is the end of the logs, for the message of a failure.
  tail() { return `\n--- the servers said last:\n${this.log.split('\n').slice(-40).join('\n')}` }

  async stop() {
    this.#proxy?.closeAllConnections()
    this.#proxy?.close()
    await end(this.#children)
    rmSync(this.tmp, { recursive: true, force: true })
  }
}

// conformance runs the suite, which needs a newer Node.js than this one may be.
// All that it has said so far is heard whenever it says more.
export function conformance(args, hear = () => {}) {
  const bin = path.join(here, 'node_modules/.bin')
  return new Promise((done, failed) => {
    const child = spawn(path.join(bin, 'conformance'), args, { cwd: here, env: { ...process.env, PATH: `${bin}:${process.env.PATH}` } })
    let said = ''
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', text => hear(said += text))
    child.on('error', failed).on('close', code => done({ code, said }))
  })
}
