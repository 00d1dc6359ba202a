// Codex, from an empty state: it signs in, lists the tools, is out once its app is
// removed, comes back, and signs out. What lists them is its app server, which needs
// no model for it. To install it takes 404 MB.
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { confined, inHouse, pinned, run, ways } from './house.js'

const here = path.join(import.meta.dirname, 'codex')
const skip = process.env.GATEHOUSE_TEST_SLOW ? false : 'Codex is large to install: set GATEHOUSE_TEST_SLOW=1'
// Its document as far as its requests tell: they come back to any port of 127.0.0.1.
const document = 'https://chatgpt.com/oauth/codex/client.json'
const documents = { [document]: { client_id: document, client_name: 'Codex', redirect_uris: ['http://127.0.0.1/callback'], token_endpoint_auth_method: 'none' } }

const offered = inHouse({ dev: true, settings: pinned(documents), skip })
const off = inHouse({ dev: true, settings: { GATEHOUSE_CIMD: 'off' }, skip })

off('Codex is installed', async () => {
  await promisify(execFile)('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: here })
  assert.ok(program(), 'its package for this computer did not come')
})

for (const way of ways) {
  offered(`Codex is its document at ${way.path}`, async house => {
    for (const client of await goesThrough(house, way)) assert.equal(client, document)
  })
  off(`Codex registers where documents are off, at ${way.path}`, async house => {
    for (const client of await goesThrough(house, way)) assert.match(client, /^[0-9a-f-]{36}$/)
  })
}

// goesThrough signs Codex in, removes its app, signs it in again and lets it sign
// out, and answers with the client ids it used.
async function goesThrough(house, way) {
  const env = house.newcomer(confined)
  mkdirSync(path.join(env.HOME, '.codex'))
  writeFileSync(path.join(env.HOME, '.codex/config.toml'), 'mcp_oauth_credentials_store = "file"\n') // there is no keyring
  const codex = (...args) => run(program(), ['mcp', ...args], env)
  const listed = async () => Object.keys((await status(env)).tools)
  const before = house.person.visited.length
  const clients = () => house.person.visited.slice(before).map(address => address.searchParams.get('client_id'))

  assert.match(await codex('add', 'house', '--url', house.url + way.path), /Successfully logged in/)
  assert.ok((await listed()).includes(`${way.prefix}echo`))
  await house.command('clients', 'remove', clients()[0], '--data-dir', house.data)
  assert.deepEqual(await listed(), [])

  assert.match(await codex('login', 'house'), /Successfully logged in/)
  assert.ok((await listed()).includes(`${way.prefix}echo`))
  assert.match(await codex('logout', 'house'), /Removed OAuth credentials/)
  const { authStatus, tools } = await status(env)
  assert.deepEqual([authStatus, tools], ['notLoggedIn', {}])

  assert.equal(clients().length, 2, 'the browser was opened once for each')
  assert.deepEqual((await house.events(clients()[1])).slice(-2), ['consent allowed', 'token.issue allowed'], 'it forgets its tokens, and revokes none')
  return clients()
}

function program() {
  const cpus = { x64: 'x86_64', arm64: 'aarch64' }
  return Object.entries(cpus).map(([cpu, name]) => path.join(here, `node_modules/@openai/codex-linux-${cpu}/vendor/${name}-unknown-linux-musl/bin/codex`)).find(existsSync)
}

// status is what Codex says of the house once it has tried to connect.
async function status(env) {
  const server = spawn(program(), ['app-server'], { cwd: env.HOME, env, stdio: ['pipe', 'pipe', 'ignore'] })
  const gone = once(server, 'exit')
  server.stdin.write([
    { id: 1, method: 'initialize', params: { clientInfo: { name: 'interop', version: '1' } } },
    { method: 'initialized' },
    { id: 2, method: 'mcpServerStatus/list', params: {} },
  ].map(message => JSON.stringify(message) + '\n').join(''))
  try {
    for await (const line of createInterface({ input: server.stdout })) {
      const { id, result, error } = JSON.parse(line)
      if (id !== 2) continue
      assert.ok(result, JSON.stringify(error))
      return result.data.find(({ name }) => name === 'house')
    }
    assert.fail('its app server ended without an answer')
  } finally {
    server.kill()
    await gone
  }
}
