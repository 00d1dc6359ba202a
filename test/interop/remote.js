// A Remote is a running mcp-remote, spoken to over its standard input.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { packaged } from './house.js'

export class Remote {
  notes = []
  said = ''
  #waiting = new Map()
  #id = 0
  #child

  constructor(house, url) {
    const env = house.newcomer()
    this.#child = spawn(process.execPath, [packaged('mcp-remote/dist/proxy.js'), url], { env: { ...env, MCP_REMOTE_CONFIG_DIR: path.join(env.HOME, 'config') } })
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

  // hello is the handshake.
  async hello() {
    const { protocolVersion } = await this.request('initialize', { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'interop', version: '1' } })
    assert.equal(protocolVersion, '2025-11-25')
    this.send({ method: 'notifications/initialized' })
  }

  // echo calls the tool of that name, under its prefix.
  async echo(prefix, message) {
    const { content } = await this.request('tools/call', { name: `${prefix}echo`, arguments: { message } })
    assert.deepEqual(content, [{ type: 'text', text: `Echo: ${message}` }])
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

  // tail is the end of what it said, for the message of a failure.
  tail() {
    return `\n--- mcp-remote said last:\n${this.said.split('\n').slice(-30).join('\n')}`
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
