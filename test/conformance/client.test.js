// The suite's client scenarios, with package client against the official Go SDK's
// own client. Nothing fails, scored or not: the ways in without a person and tokens
// that are bound to a key are extensions that the fixture does not pass.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { conformance } from './house.js'

const run = promisify(execFile)
const fixture = 'github.com/modelcontextprotocol/go-sdk/conformance/everything-client@v1.8.0'
const extensions = [
  'auth/client-credentials-basic', 'auth/client-credentials-jwt', 'auth/enterprise-managed-authorization', 'auth/wif-jwt-bearer', 'auth/dpop', 'auth/dpop-nonce',
]

const tmp = mkdtempSync(path.join(tmpdir(), 'gatehouse-conformance-'))
before(async () => {
  await run('go', ['install', fixture], { env: { ...process.env, GOBIN: tmp } })
  await run('go', ['build', '-o', path.join(tmp, 'client'), './client'], { cwd: import.meta.dirname })
}, { timeout: 300_000 })
after(() => rmSync(tmp, { recursive: true, force: true }))

for (const revision of ['2025-11-25', '2026-07-28']) {
  test(`the client passes the set of ${revision}, and all that the fixture passes`, { timeout: 300_000 }, async t => {
    const args = ['client', '--requirements', revision, '--command']
    const theirs = await conformance([...args, path.join(tmp, 'everything-client')])
    const ours = await conformance([...args, path.join(tmp, 'client')])
    t.diagnostic(`fixture: ${total(theirs.said)}; ours: ${total(ours.said)}`)
    assert.equal(ours.code, 0, ours.said)
    assert.match(total(ours.said), /^\d+ passed, 0 failed/, ours.said)
    const passed = scenarios(ours.said)
    for (const name of [...scenarios(theirs.said), ...extensions]) assert.ok(passed.has(name), `${name} fails:\n${ours.said}`)
  })
}

const total = said => said.match(/^Total: (.*)$/m)?.[1] ?? assert.fail(said)
const scenarios = said => new Set([...said.matchAll(/^✓ (\S+): \d+ passed, 0 failed/gm)].map(([, name]) => name))
