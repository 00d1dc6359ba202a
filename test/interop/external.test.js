// The authorization server is somebody else's: Gatehouse only checks what it
// signed (R517, R518). It is a real one, oidc-provider, with whom a client
// registers and signs in as it would with us.
import { Client, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client'
import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import http from 'node:http'
import { after, before, test } from 'node:test'
import { Provider } from 'oidc-provider'
import { freePort } from '../processes.mjs'
import { App } from './app.js'
import { startHouse } from './house.js'

const scopes = 'mcp:read mcp:tools everything:read everything:write'
let elsewhere, house

function key(kid) {
  return { ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }), kid, alg: 'RS256', use: 'sig' }
}

// Elsewhere is the other server. Whoever comes is the person that it was told last,
// and allows everything.
class Elsewhere {
  person = 'alice'
  groups = {}
  #server

  constructor(port) {
    this.port = port
    this.url = `http://localhost:${port}`
  }

  async start(jwk) {
    const provider = new Provider(this.url, {
      jwks: { keys: [jwk] },
      scopes: ['openid', ...scopes.split(' ')],
      findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
      extraTokenClaims: (_, token) => ({ groups: this.groups[token.accountId] ?? [] }),
      interactions: { url: (_, { uid }) => `/asked/${uid}` },
      pkce: { required: () => true },
      cookies: { keys: ['test'] },
      features: {
        devInteractions: { enabled: false },
        registration: { enabled: true },
        resourceIndicators: {
          enabled: true,
          defaultResource: () => undefined,
          useGrantedResource: () => true,
          getResourceServerInfo: (_, resource) => ({ scope: scopes, audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: 600 }),
        },
      },
    })
    const app = provider.callback()
    this.#server = http.createServer(async (req, res) => {
      if (!req.url.startsWith('/asked/')) return app(req, res)
      const { params, session } = await provider.interactionDetails(req, res)
      const grant = new provider.Grant({ accountId: this.person, clientId: params.client_id })
      grant.addOIDCScope(params.scope)
      grant.addResourceScope(params.resource, params.scope)
      await provider.interactionFinished(req, res, { login: { accountId: session?.accountId ?? this.person }, consent: { grantId: await grant.save() } })
    })
    await new Promise(done => this.#server.listen(this.port, 'localhost', done))
  }

  async stop() {
    this.#server?.closeAllConnections()
    await new Promise(done => this.#server?.close(done) ?? done())
  }
}

// Follower is an app whose browser follows the other server to the end.
class Follower extends App {
  constructor(person) {
    super(person)
    this.clientMetadata.grant_types = ['authorization_code'] // all that this server lets it register for
  }

  async redirectToAuthorization(url) {
    const jar = new Map()
    for (let hops = 0; hops < 10 && url.origin === elsewhere.url; hops++) {
      const answer = await fetch(url, { redirect: 'manual', headers: { Cookie: [...jar.values()].join('; ') } })
      for (const cookie of answer.headers.getSetCookie()) jar.set(cookie.split('=')[0], cookie.split(';')[0])
      assert.ok(answer.headers.has('location'), `${url.pathname} answers ${answer.status}: ${await answer.text()}`)
      url = new URL(answer.headers.get('location'), url)
    }
    assert.equal(url.origin + url.pathname, this.redirectUrl)
    this.code = url.searchParams.get('code')
    this.iss = url.searchParams.get('iss')
    assert.equal(this.iss, elsewhere.url)
  }
}

before(async () => {
  elsewhere = new Elsewhere(await freePort())
  await elsewhere.start(key('first'))
  house = await startHouse(false, {
    GATEHOUSE_EXTERNAL__ISSUERS: elsewhere.url, GATEHOUSE_EXTERNAL__RANK_CLAIM: 'groups', GATEHOUSE_EXTERNAL__STANDARDS: 'engineering',
  })
}, { timeout: 180_000 })

after(async () => {
  await house?.stop()
  await elsewhere?.stop()
})

// signIn is an app through which a person acts, and what it may then do.
async function signIn(person, path = '/mcp') {
  elsewhere.person = person
  const url = new URL(path, house.url)
  const app = new Follower(house.person)
  const open = () => new Client({ name: 'external', version: '1' }, { versionNegotiation: { mode: 'auto' } })
  const first = new StreamableHTTPClientTransport(url, { authProvider: app })
  await assert.rejects(open().connect(first), UnauthorizedError)
  await first.finishAuth(app.code, app.iss)
  const asked = async use => {
    const client = open()
    await client.connect(new StreamableHTTPClientTransport(url, { authProvider: app }))
    try {
      return await use(client)
    } finally {
      await client.close()
    }
  }
  return Object.assign(asked, { token: app.tokens().access_token })
}

const whoami = async client => JSON.parse((await client.callTool({ name: 'whoami', arguments: {} })).content[0].text)

test('a client registers and signs in elsewhere, and calls here', { timeout: 120_000 }, async () => {
  elsewhere.groups.dana = ['engineering']
  const dana = await signIn('dana')
  await dana(async client => {
    const { tools } = await client.listTools()
    assert.ok(tools.some(tool => tool.name === 'everything_echo'), tools.map(tool => tool.name).join(' '))
    const { content } = await client.callTool({ name: 'everything_echo', arguments: { message: 'from elsewhere' } })
    assert.deepEqual(content, [{ type: 'text', text: 'Echo: from elsewhere' }])
    assert.equal((await whoami(client)).rank, 'standard')
  })
  house.untold()
})

test('issuer and subject are one person, whatever the app; another subject is another', { timeout: 120_000 }, async () => {
  const [dana, again, erin] = [await signIn('dana'), await signIn('dana'), await signIn('erin')]
  const first = await dana(whoami)
  assert.equal((await again(whoami)).user, first.user)
  const other = await erin(whoami)
  assert.notEqual(other.user, first.user)
  assert.equal(other.rank, 'readonly')
})

test('a token is good at the endpoint that it was made for, and at no other', { timeout: 120_000 }, async () => {
  const { token } = await signIn('dana', '/s/everything/mcp')
  const status = async path => {
    const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'x', version: '1' } } })
    const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream' }
    const answer = await fetch(new URL(path, house.url), { method: 'POST', headers, body })
    await answer.body?.cancel()
    return answer.status
  }
  assert.equal(await status('/s/everything/mcp'), 200)
  assert.equal(await status('/s/everything-http/mcp'), 401)
  assert.equal(await status('/mcp'), 401)
})

test('the other server changes its key, and is away for a while', { timeout: 180_000 }, async () => {
  const unseen = await signIn('dana') // signed with the first key
  await elsewhere.stop()
  assert.equal((await unseen(whoami)).rank, 'standard')
  await elsewhere.start(key('second'))
  for (const end = Date.now() + 60_000; ; await new Promise(r => setTimeout(r, 1000))) {
    try {
      const fresh = await signIn('dana')
      assert.equal((await fresh(whoami)).rank, 'standard')
      break
    } catch (err) {
      if (Date.now() > end) throw err
    }
  }
})
