// The suite's server scenarios of the last revision with a handshake, at the
// fixture alone and through gatehouse: what stands between must lose nothing.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { House, conformance } from './house.js'

const set = ['--requirements', '2025-11-25']

let house
before(async () => { house = await House.start() }, { timeout: 300_000 })
after(() => house?.stop())

let alone
test('the fixture alone passes', { timeout: 120_000 }, async t => {
  const { code, said } = await conformance(['server', '--url', house.fixture, ...set])
  alone = total(said)
  t.diagnostic(`fixture alone: ${alone.passed} passed, ${alone.failed} failed`)
  assert.equal(code, 0, said)
})

test('through gatehouse it passes what it passes alone, but for the baseline', { timeout: 240_000 }, async t => {
  const url = await house.open('/s/fixture/mcp')
  const { code, said } = await conformance(['server', '--url', url, ...set, '--expected-failures', 'baseline.yml'])
  const through = total(said)
  t.diagnostic(`through gatehouse: ${through.passed} passed, ${through.failed} failed`)
  assert.equal(code, 0, said + house.tail())
  assert.equal(through.passed + through.failed, alone.passed + alone.failed, 'as many checks were made')
})

function total(said) {
  const [, passed, failed] = said.match(/^Total: (\d+) passed, (\d+) failed/m) ?? assert.fail(said)
  return { passed: Number(passed), failed: Number(failed) }
}
