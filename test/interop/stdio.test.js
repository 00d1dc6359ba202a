// The TypeScript SDK's own clients over stdio, each starting gatehouse stdio beside a
// server: with a token, with the sign-in of gatehouse login, with nothing.
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js'
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js'
import { Client as Client2 } from '@modelcontextprotocol/client'
import { StdioClientTransport as StdioClientTransport2 } from '@modelcontextprotocol/client/stdio'
import assert from 'node:assert/strict'
import { App } from './app.js'
import { inHouse } from './house.js'

const told = inHouse({ dev: true })

for (const [version, Transport, Program] of [['v1', StdioClientTransport, Client], ['v2', StdioClientTransport2, Client2]]) {
  told(`the SDK client ${version} lists and calls over stdio`, async (house, t) => {
    const app = await signIn(house)
    const { client, said } = await start(house, t, Transport, Program, { GATEHOUSE_TOKEN: app.tokens().access_token })
    const { tools } = await client.listTools()
    const names = tools.map(tool => tool.name)
    for (const name of ['echo', 'public_info', 'whoami', 'everything_echo']) assert.ok(names.includes(name), names.join(' '))
    const result = await client.callTool({ name: 'everything_echo', arguments: { message: 'first light' } })
    assert.deepEqual(result.content, [{ type: 'text', text: 'Echo: first light' }])
    const { resources } = await client.listResources()
    assert.ok(resources.length > 0)
    await client.close()
    assert.ok(!said().includes(app.tokens().access_token))
    assert.match(said(), /"call":"tools\/call everything_echo"/)
  })

  told(`without a token the SDK client ${version} calls what anyone may call`, async (house, t) => {
    const { client } = await start(house, t, Transport, Program, {})
    assert.deepEqual((await client.listTools()).tools.map(tool => tool.name), ['public_info'])
    assert.equal((await client.callTool({ name: 'public_info', arguments: {} })).structuredContent.server, 'gatehouse')
    await assert.rejects(client.callTool({ name: 'echo', arguments: { message: 'x' } }), /missing_token/)
    const app = await signIn(house)
    const result = await client.callTool({ name: 'echo', arguments: { message: 'x', access_token: app.tokens().access_token } })
    assert.equal(result.structuredContent.authorized, true)
    await assert.rejects(client.callTool({ name: 'echo', arguments: { message: 'x', access_token: 'made-up' } }), /invalid_token/)
  })
}

told('what the server behind asks in a call, the program answers over stdio', async (house, t) => {
  const app = await signIn(house)
  const { client } = await start(house, t, StdioClientTransport, Client, { GATEHOUSE_TOKEN: app.tokens().access_token }, { capabilities: { elicitation: {} } })
  let asked
  client.setRequestHandler(ElicitRequestSchema, ({ params }) => {
    asked = params.message
    return { action: 'decline' }
  })
  await client.callTool({ name: 'everything_trigger-elicitation-request', arguments: {} })
  assert.ok(asked)
})

// signIn is an app with a token for /mcp.
async function signIn(house) {
  const app = new App(house.person)
  const client = new Client({ name: 'interop', version: '1' })
  const address = new URL(house.url + '/mcp')
  const first = new StreamableHTTPClientTransport(address, { authProvider: app })
  await assert.rejects(client.connect(first), UnauthorizedError)
  await first.finishAuth(app.code)
  return app
}

// start lets a client start the process, in an empty home.
async function start(house, t, Transport, Program, env, options) {
  const transport = new Transport({ ...house.stdio(), env: house.newcomer(env), stderr: 'pipe' })
  let said = ''
  transport.stderr.setEncoding('utf8').on('data', text => { said += text })
  const client = new Program({ name: 'interop', version: '1' }, options)
  await client.connect(transport)
  t.after(() => client.close())
  return { client, said: () => said }
}
