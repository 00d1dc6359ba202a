// Claude Code, from an empty state: it signs in, is connected, which it is once
// it has listed the tools, and signs out. It calls only for its own models. It needs
// a terminal, which script(1) gives it. To install it takes 361 MB.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { confined, inHouse, pinned, run, ways } from './house.js'

const here = path.join(import.meta.dirname, 'claude-code')
const skip = process.env.GATEHOUSE_TEST_SLOW ? false : 'Claude Code is large to install: set GATEHOUSE_TEST_SLOW=1'
const document = 'https://claude.ai/oauth/claude-code-client-metadata'
const documents = { [document]: { client_id: document, client_name: 'Claude Code', redirect_uris: ['http://localhost/callback', 'http://127.0.0.1/callback'], token_endpoint_auth_method: 'none' } }

const offered = inHouse({ dev: true, settings: pinned(documents), skip })
const off = inHouse({ dev: true, settings: { GATEHOUSE_CIMD: 'off' }, skip })

off('Claude Code is installed', async () => {
  await promisify(execFile)('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: here })
  assert.ok(program(), 'its package for this computer did not come')
})

for (const way of ways) {
  offered(`Claude Code is its document at ${way.path}`, async house => assert.equal(await goesThrough(house, way), document))
  off(`Claude Code registers where documents are off, at ${way.path}`, async house => assert.match(await goesThrough(house, way), /^[0-9a-f-]{36}$/))
}

// goesThrough signs Claude Code in and out, and answers with the client id it used.
async function goesThrough(house, way) {
  const env = house.newcomer({ ...confined, TERM: 'xterm', DISPLAY: ':9', DISABLE_AUTOUPDATER: '1', CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1' })
  const claude = (...args) => run(program(), ['mcp', ...args], env)
  const before = house.person.visited.length

  await claude('add', '--transport', 'http', '--scope', 'user', 'house', house.url + way.path)
  const said = await run('script', ['-qfec', `${program()} mcp login house`, path.join(env.HOME, 'typescript')], env)
  assert.match(said, /Authenticated with "house"/)
  assert.match(await claude('list'), /house: .* Connected/)
  await claude('logout', 'house')
  assert.match(await claude('list'), /house: .* Needs authentication/)

  const visited = house.person.visited.slice(before)
  assert.equal(visited.length, 1, 'the browser was opened once')
  const client = visited[0].searchParams.get('client_id')
  assert.deepEqual((await house.events(client)).slice(-3), ['consent allowed', 'token.issue allowed', 'token.revoke allowed'])
  return client
}

function program() {
  return ['x64', 'arm64'].map(cpu => path.join(here, `node_modules/@anthropic-ai/claude-code-linux-${cpu}/claude`)).find(existsSync)
}
