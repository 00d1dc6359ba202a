// Without --dev: a person sets the house up, signs in with the link from the log,
// and reads and posts every page that programs of others send her to.
import { auth, refreshAuthorization, UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import assert from 'node:assert/strict'
import { App } from './app.js'
import { inHouse, ways } from './house.js'
import { Remote } from './remote.js'

const told = inHouse({ dev: false })

for (const way of ways) {
  told(`the SDK client, allowed by a person, calls at ${way.path}`, async (house, t) => {
    house.person.shown = []
    const app = await allowed(house, way)
    const client = await open(house, way, app)
    t.after(() => client.close())
    assert.equal(await echo(client, way, 'by hand'), 'Echo: by hand')
    assert.deepEqual(house.person.shown, ['200 /consent/FLOW', '200 /return/FLOW'])
    await house.recorded(app.client.client_id, `${way.server}_echo`)
  })

  told(`mcp-remote, allowed by a person, calls at ${way.path}`, async (house, t) => {
    house.person.shown = []
    house.person.visited = []
    const remote = new Remote(house, house.url + way.path)
    t.after(() => remote.stop())
    try {
      await remote.hello()
      await remote.echo(way.prefix, 'by hand')
    } catch (err) {
      err.message += remote.tail()
      throw err
    }
    assert.deepEqual(house.person.shown, ['200 /consent/FLOW', '200 /return/FLOW'])
    await house.recorded(house.person.visited[0].searchParams.get('client_id'), `${way.server}_echo`)
  })
}

// R413: two processes of one program share what one of them kept. The first
// refreshes; the second, which knows nothing of that, gets in with the old one.
told('a second process refreshes with a token that the first has spent', async (house, t) => {
  const [way] = ways
  const app = await allowed(house, way)
  const kept = app.tokens().refresh_token
  assert.ok(kept)

  assert.equal(await auth(app, { serverUrl: house.url + way.path }), 'AUTHORIZED')
  assert.notEqual(app.tokens().refresh_token, kept)
  const second = Object.assign(new App(house.person), { client: app.client })
  second.saveTokens(await refreshAuthorization(house.url, {
    metadata: await (await fetch(`${house.url}/.well-known/oauth-authorization-server`)).json(),
    clientInformation: app.client, refreshToken: kept, resource: new URL(way.path, house.url),
  }))

  for (const process of [app, second]) {
    const client = await open(house, way, process)
    t.after(() => client.close())
    assert.equal(await echo(client, way, 'still in'), 'Echo: still in')
  }
  assert.notEqual(app.tokens().access_token, second.tokens().access_token)
})

for (const way of ways) {
  told(`who is connected at ${way.path} does not notice that the server was killed and came back`, async (house, t) => {
    const client = await open(house, way, await allowed(house, way))
    t.after(() => client.close())
    const remote = new Remote(house, house.url + way.path)
    t.after(() => remote.stop())
    await remote.hello()
    house.person.shown = []
    for (const when of ['before', 'after']) {
      if (when === 'after') await house.restart()
      assert.equal(await echo(client, way, when), `Echo: ${when}`)
      await remote.echo(way.prefix, when)
    }
    assert.deepEqual(house.person.shown, [])
  })
}

told('an app that she removes is out at its next call, and in again when she allows it again', async (house, t) => {
  const [way] = ways
  const app = await allowed(house, way)
  const client = await open(house, way, app)
  t.after(() => client.close())
  assert.equal(await echo(client, way, 'connected'), 'Echo: connected')

  const { apps } = JSON.parse(await house.command('apps', '--data-dir', house.data, '-o', 'json'))
  await house.command('apps', 'remove', apps.find(a => a.client === app.client.client_id).id, '--data-dir', house.data)
  house.person.shown = []
  await assert.rejects(echo(client, way, 'removed'), UnauthorizedError)
  assert.deepEqual(house.person.shown, ['200 /consent/FLOW', '200 /return/FLOW'])

  assert.equal(await auth(app, { serverUrl: house.url + way.path, authorizationCode: app.code }), 'AUTHORIZED')
  assert.equal(await echo(client, way, 'back'), 'Echo: back')
})

told('their tokens never reach a server behind', house => house.untold())

// allowed is an application that its person has allowed.
async function allowed(house, way) {
  const app = new App(house.person)
  const serverUrl = house.url + way.path
  assert.equal(await auth(app, { serverUrl, scope: way.scope }), 'REDIRECT')
  assert.equal(await auth(app, { serverUrl, authorizationCode: app.code }), 'AUTHORIZED')
  return app
}

async function open(house, way, app) {
  const client = new Client({ name: 'interop', version: '1' })
  await client.connect(new StreamableHTTPClientTransport(new URL(way.path, house.url), { authProvider: app }))
  return client
}

async function echo(client, way, message) {
  return (await client.callTool({ name: `${way.prefix}echo`, arguments: { message } })).content[0].text
}
