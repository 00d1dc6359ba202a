// The suite's scenarios of an authorization server: its metadata, and the code
// grant of an app that is known, with a browser that follows redirects.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { House, conformance } from './house.js'

let house
before(async () => { house = await House.start() }, { timeout: 300_000 })
after(() => house?.stop())

test('the authorization server passes, code grant included', { timeout: 120_000 }, async () => {
  const client = await house.register('http://127.0.0.1:3456/callback')
  const results = path.join(house.tmp, 'results')
  let visit
  const { code, said } = await conformance(['authorization', '--url', house.url, '--client-id', client, '--resource', `${house.url}/mcp`, '--port', '3456', '-o', results], said => {
    const [address] = said.match(/^http\S+\/oauth\/authorize\?\S+$/m) ?? []
    if (address && said.includes('Callback server started')) visit ??= fetch(address)
  })
  assert.equal(code, 0, said + house.tail())
  assert.equal((await visit).status, 200)

  const checks = readdirSync(results).flatMap(folder => JSON.parse(readFileSync(path.join(results, folder, 'checks.json'))))
  assert.deepEqual(checks.map(check => `${check.status} ${check.id}`).sort(), [
    'SUCCESS authorization-code-grant',
    'SUCCESS authorization-server-metadata',
    'SUCCESS authorization-server-metadata-cimd',
  ])
})
