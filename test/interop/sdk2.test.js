// The TypeScript SDK's client, version 2, from an empty state. It speaks a newer
// revision first and has to fall back.
import { Client, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client'
import assert from 'node:assert/strict'
import { App } from './app.js'
import { inHouse, ways } from './house.js'

const told = inHouse({ dev: true })

for (const way of ways) {
  told(`the SDK client (v2) signs in and calls at ${way.path}`, async (house, t) => {
    const url = new URL(way.path, house.url)
    const app = new App(house.person)
    const open = () => new Client({ name: 'interop', version: '2' }, { versionNegotiation: { mode: 'auto' } })
    const first = new StreamableHTTPClientTransport(url, { authProvider: app })
    await assert.rejects(open().connect(first), UnauthorizedError)
    await first.finishAuth(app.code, app.iss)

    const client = open()
    t.after(() => client.close())
    await client.connect(new StreamableHTTPClientTransport(url, { authProvider: app }))
    assert.equal(client.getServerVersion().name, 'gatehouse')
    const { tools } = await client.listTools()
    assert.ok(tools.some(tool => tool.name === `${way.prefix}echo`), tools.map(tool => tool.name).join(' '))
    const { content } = await client.callTool({ name: `${way.prefix}echo`, arguments: { message: 'second light' } })
    assert.deepEqual(content, [{ type: 'text', text: 'Echo: second light' }])
    await house.recorded(app.client.client_id, `${way.server}_echo`)
  })
}

told('its token never reaches a server behind', house => house.untold())
