// Claude Code, from an empty state: it signs in, is connected, which it is once
// it has listed the tools, and signs out. It calls only for its own models. It needs
// a terminal, which script(1) gives it. To install it takes 361 MB.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { inHouse, run, ways } from './house.js'

const here = path.join(import.meta.dirname, 'claude-code')
const skip = process.env.GATEHOUSE_TEST_SLOW ? false : 'Claude Code is large to install: set GATEHOUSE_TEST_SLOW=1'
// It prefers its own document, which these tests have no internet to fetch.
const told = inHouse({ dev: true, settings: { GATEHOUSE_CIMD: 'off' }, skip })

told('Claude Code is installed', () => promisify(execFile)('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: here }))

for (const way of ways) {
  told(`Claude Code signs in, is connected and signs out at ${way.path}`, async house => {
    const program = ['x64', 'arm64'].map(cpu => path.join(here, `node_modules/@anthropic-ai/claude-code-linux-${cpu}/claude`)).find(existsSync)
    const env = house.newcomer({ TERM: 'xterm', DISPLAY: ':9', DISABLE_AUTOUPDATER: '1', CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1' })
    const claude = (...args) => run(program, ['mcp', ...args], env)
    const before = house.person.visited.length

    await claude('add', '--transport', 'http', '--scope', 'user', 'house', house.url + way.path)
    const said = await run('script', ['-qfec', `${program} mcp login house`, path.join(env.HOME, 'typescript')], env)
    assert.match(said, /Authenticated with "house"/)
    assert.match(await claude('list'), /house: .* Connected/)
    await claude('logout', 'house')
    assert.match(await claude('list'), /house: .* Needs authentication/)

    const visited = house.person.visited.slice(before)
    assert.equal(visited.length, 1, 'the browser was opened once')
    assert.deepEqual(await house.events(visited[0].searchParams.get('client_id')), ['consent allowed', 'token.issue allowed', 'token.revoke allowed'])
  })
}
