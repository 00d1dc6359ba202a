// mcp-remote, the bridge most stdio-only programs use, from an empty state. Its
// browser is a script that follows redirects.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, test } from 'node:test'
import { startHouse, ways } from './house.js'

let house
before(async () => { house = await startHouse() }, { timeout: 120_000 })
after(() => house?.stop())

for (const way of ways) {
  test(`mcp-remote signs in and calls at ${way.path}`, { timeout: 90_000 }, async t => {
    const remote = new Remote(house.url + way.path)
    t.after(() => remote.stop())
    try {
      const hello = await remote.request('initialize', { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'interop', version: '1' } })
      assert.equal(hello.protocolVersion, '2025-11-25')
      remote.send({ method: 'notifications/initialized' })

      const { tools } = await remote.request('tools/list', {})
      assert.ok(tools.some(tool => tool.name === `${way.prefix}echo`), tools.map(tool => tool.name).join(' '))

      const result = await remote.request('tools/call', { name: `${way.prefix}echo`, arguments: { message: 'through the bridge' } })
      assert.deepEqual(result.content, [{ type: 'text', text: 'Echo: through the bridge' }])

      await remote.request('tools/call', { name: `${way.prefix}trigger-long-running-operation`, arguments: { duration: 0.4, steps: 2 }, _meta: { progressToken: 'p1' } })
      const progress = remote.notes.filter(n => n.method === 'notifications/progress').map(n => n.params)
      assert.deepEqual(progress.map(p => [p.progressToken, p.progress]), [['p1', 1], ['p1', 2]])
      assert.equal(readdirSync(remote.visited).length, 1, 'the browser was opened once')
    } catch (err) {
      err.message += house.tail() + `\n--- mcp-remote said last:\n${remote.said.split('\n').slice(-30).join('\n')}`
      throw err
    }
  })
}

// A Remote is a running mcp-remote, spoken to over its standard input.
class Remote {
  notes = []
  said = ''
  #waiting = new Map()
  #id = 0
  #child

  constructor(url) {
    const home = mkdtempSync(path.join(house.tmp, 'remote-'))
    const bin = path.join(home, 'bin')
    this.visited = path.join(home, 'visited')
    for (const folder of [bin, this.visited]) mkdirSync(folder)
    const browser = path.join(bin, 'xdg-open')
    writeFileSync(browser, `#!/bin/sh\nexec curl -sSL --noproxy '*' -o "${this.visited}/$$" "$1"\n`, { mode: 0o755 })
    const proxy = path.join(import.meta.dirname, 'node_modules/mcp-remote/dist/proxy.js')
    this.#child = spawn(process.execPath, [proxy, url], {
      env: house.env({ HOME: home, MCP_REMOTE_CONFIG_DIR: path.join(home, 'config'), PATH: `${bin}:${process.env.PATH}`, BROWSER: browser }),
    })
    this.#child.stderr.setEncoding('utf8').on('data', text => (this.said += text))
    createInterface({ input: this.#child.stdout }).on('line', line => this.#receive(JSON.parse(line)))
    this.#child.on('exit', code => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`mcp-remote ended with ${code}`))
    })
  }

  #receive(message) {
    if (message.id === undefined) return this.notes.push(message)
    const { resolve, reject } = this.#waiting.get(message.id)
    this.#waiting.delete(message.id)
    if (message.error) reject(new Error(JSON.stringify(message.error)))
    else resolve(message.result)
  }

  send(message) {
    this.#child.stdin.write(JSON.stringify({ jsonrpc: '2.0', ...message }) + '\n')
  }

  // request waits for the answer, for half a minute at most.
  request(method, params) {
    const id = ++this.#id
    this.send({ id, method, params })
    return new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error(`no answer to ${method}`)), 30_000).unref()
      this.#waiting.set(id, { resolve, reject })
    })
  }

  async stop() {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const gone = new Promise(done => this.#child.once('exit', done))
    this.#child.kill('SIGTERM')
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 3000)
    await gone
    clearTimeout(timer)
  }
}
