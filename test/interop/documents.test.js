// Apps that are known by a document of their maker: where it is offered, with the
// documents pinned because these tests have no internet, they use it and register
// nowhere; where it is off, the same apps register.
import { Client as Client1 } from '@modelcontextprotocol/sdk/client/index.js'
import { UnauthorizedError as Unauthorized1 } from '@modelcontextprotocol/sdk/client/auth.js'
import { StreamableHTTPClientTransport as Transport1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { Client as Client2, StreamableHTTPClientTransport as Transport2, UnauthorizedError as Unauthorized2 } from '@modelcontextprotocol/client'
import assert from 'node:assert/strict'
import { App } from './app.js'
import { inHouse, packaged, pinned, run, ways } from './house.js'

const document = 'https://interop.example/client.json'
const inspected = 'https://inspector.example/client.json'
const documents = {
  [document]: { client_id: document, client_name: 'Interop', redirect_uris: ['http://127.0.0.1:39999/callback'], token_endpoint_auth_method: 'none' },
  [inspected]: { client_id: inspected, client_name: 'Inspector', redirect_uris: ['http://127.0.0.1:6276/oauth/callback'] },
}

class Described extends App {
  clientMetadataUrl = document
}

const sdks = {
  v1: { open: () => new Client1({ name: 'interop', version: '1' }), Transport: Transport1, Unauthorized: Unauthorized1 },
  v2: { open: () => new Client2({ name: 'interop', version: '2' }, { versionNegotiation: { mode: 'auto' } }), Transport: Transport2, Unauthorized: Unauthorized2 },
}

// signsIn goes through everything with an SDK and answers with the client id it used.
async function signsIn(house, t, { open, Transport, Unauthorized }, way) {
  const url = new URL(way.path, house.url)
  const app = new Described(house.person)
  const first = new Transport(url, { authProvider: app })
  await assert.rejects(open().connect(first), Unauthorized)
  await first.finishAuth(app.code, app.iss)
  const client = open()
  t.after(() => client.close())
  await client.connect(new Transport(url, { authProvider: app }))
  const { content } = await client.callTool({ name: `${way.prefix}echo`, arguments: { message: 'described' } })
  assert.deepEqual(content, [{ type: 'text', text: 'Echo: described' }])
  return app.client.client_id
}

// inspects does the same with the Inspector.
async function inspects(house, way) {
  const before = house.person.visited.length
  const said = await run(process.execPath, [
    packaged('@modelcontextprotocol/inspector/clients/launcher/build/index.js'), '--cli', '--server-url', house.url + way.path, '--protocol-era', 'auto',
    '--client-metadata-url', inspected, '--method', 'tools/call', '--tool-name', `${way.prefix}echo`, '--tool-arg', 'message=inspected', '--format', 'json',
  ], house.newcomer({ MCP_AUTO_OPEN_ENABLED: 'true' }))
  assert.deepEqual(JSON.parse(said).result.content, [{ type: 'text', text: 'Echo: inspected' }])
  return house.person.visited[before].searchParams.get('client_id')
}

const offered = inHouse({ dev: true, settings: pinned(documents) })
const off = inHouse({ dev: true, settings: { GATEHOUSE_CIMD: 'off' } })

offered('documents are offered', async house => {
  const metadata = await (await fetch(`${house.url}/.well-known/oauth-authorization-server`)).json()
  assert.equal(metadata.client_id_metadata_document_supported, true)
})

for (const way of ways) {
  for (const [name, sdk] of Object.entries(sdks)) {
    offered(`the SDK client (${name}) is its document at ${way.path}`, async (house, t) => {
      assert.equal(await signsIn(house, t, sdk, way), document)
    })
    off(`the SDK client (${name}) registers where documents are off, at ${way.path}`, async (house, t) => {
      assert.match(await signsIn(house, t, sdk, way), /^[0-9a-f-]{36}$/)
    })
  }
}

offered('the Inspector is its document', async house => assert.equal(await inspects(house, ways[0]), inspected))
off('the Inspector registers where documents are off', async house => assert.match(await inspects(house, ways[0]), /^[0-9a-f-]{36}$/))

offered('nobody registered', async house => {
  const { clients } = JSON.parse(await house.command('clients', 'ls', '--data-dir', house.data, '-o', 'json'))
  assert.deepEqual(clients.map(client => [client.kind, client.state, client.id]).sort(), [['document', 'approved', inspected], ['document', 'approved', document]].sort())
})
