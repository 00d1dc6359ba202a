// The TypeScript SDK's own client (v1), from an empty state: discovery,
// registration, OAuth, calls, progress, cancellation.
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, before, test } from 'node:test'
import { startHouse, ways } from './house.js'

let house
before(async () => { house = await startHouse() }, { timeout: 120_000 })
after(() => house?.stop())

// A failure shows what the server said.
const told = (name, fn) => test(name, { timeout: 60_000 }, async t => {
  try {
    await fn(t)
  } catch (err) {
    err.message += house.tail()
    throw err
  }
})

for (const way of ways) {
  told(`a stranger at ${way.path} gets the challenge, also for GET`, async () => {
    for (const method of ['GET', 'POST']) {
      const answer = await fetch(house.url + way.path, { method, headers: { accept: 'application/json, text/event-stream', 'content-type': 'application/json' }, body: method === 'POST' ? '{"jsonrpc":"2.0","id":1,"method":"tools/list"}' : undefined })
      const challenge = answer.headers.get('www-authenticate') ?? ''
      assert.equal(answer.status, 401, `${method} ${way.path}`)
      assert.match(challenge, /^Bearer /)
      assert.ok(challenge.includes(`resource_metadata="${house.url}/.well-known/oauth-protected-resource${way.path}"`), challenge)
      assert.ok(challenge.includes(`scope="${way.scope}"`), challenge)
    }
  })

  told(`the SDK client signs in and calls at ${way.path}`, async t => {
    const { client, person } = await connect(way.path)
    t.after(() => client.close())
    assert.ok(person.client.client_id, 'it registered')
    assert.equal(person.tokens().scope, way.scope)

    // Who has a token learns that there is no stream to open; a stranger does not.
    const stream = await fetch(house.url + way.path, { headers: { authorization: `Bearer ${person.tokens().access_token}`, accept: 'text/event-stream' } })
    assert.equal(stream.status, 405)

    const { tools } = await client.listTools()
    const names = tools.map(tool => tool.name)
    assert.ok(names.includes(`${way.prefix}echo`), names.join(' '))
    if (way.prefix) assert.deepEqual(['echo', 'public_info', 'whoami'].filter(n => !names.includes(n)), [])

    const result = await client.callTool({ name: `${way.prefix}echo`, arguments: { message: 'first light' } })
    assert.deepEqual(result.content, [{ type: 'text', text: 'Echo: first light' }])
  })

  told(`progress arrives while the call runs at ${way.path}`, async t => {
    const { client } = await connect(way.path)
    t.after(() => client.close())
    const progress = []
    const begun = Date.now()
    const result = await client.callTool(long(way, 1.2, 4), undefined, { onprogress: p => progress.push({ ...p, at: Date.now() - begun }) })
    assert.match(result.content[0].text, /completed/)
    assert.deepEqual(progress.map(p => [p.progress, p.total]), [[1, 4], [2, 4], [3, 4], [4, 4]])
    assert.ok(progress[0].at < 1000, `the first came after ${progress[0].at} ms, so they were held back`)
  })

  told(`a cancelled call ends at once at ${way.path}, and the session goes on`, async t => {
    const { client } = await connect(way.path)
    t.after(() => client.close())
    const stop = new AbortController()
    let late = 0
    const begun = Date.now()
    const call = client.callTool(long(way, 20, 100), undefined, { signal: stop.signal, onprogress: () => { if (stop.signal.aborted) late++; else stop.abort('enough') } })
    await assert.rejects(call, /enough/)
    assert.ok(Date.now() - begun < 5000)
    const result = await client.callTool({ name: `${way.prefix}echo`, arguments: { message: 'still here' } })
    assert.equal(result.content[0].text, 'Echo: still here')
    assert.equal(late, 0, 'progress of a cancelled call was delivered')
    if (way.path.includes('-http')) {
      const request = house.seen.findLast(s => s.message?.params?.name === 'trigger-long-running-operation').message
      const cancelled = house.seen.filter(s => s.message?.method === 'notifications/cancelled').map(s => s.message.params.requestId)
      assert.ok(cancelled.includes(request.id), `upstream was told of ${cancelled}, not of ${request.id}`)
    }
  })
}

told('a token of one server opens no other', async () => {
  const { client, person } = await connect('/s/everything/mcp')
  await client.close()
  for (const path of ['/mcp', '/s/everything-http/mcp']) {
    const answer = await fetch(house.url + path, { method: 'POST', headers: { authorization: `Bearer ${person.tokens().access_token}`, 'content-type': 'application/json', accept: 'application/json, text/event-stream' }, body: '{"jsonrpc":"2.0","id":1,"method":"tools/list"}' })
    assert.equal(answer.status, 401, path)
  }
})

told("a client's token never reaches an upstream", async () => {
  assert.ok(house.seen.length > 0)
  for (const { headers } of house.seen) assert.equal(headers.authorization, undefined)
})

const long = (way, duration, steps) => ({ name: `${way.prefix}trigger-long-running-operation`, arguments: { duration, steps } })

// connect does what an application does: try, be refused, sign in, try again.
async function connect(path) {
  const url = new URL(path, house.url)
  const person = new Person()
  const first = new StreamableHTTPClientTransport(url, { authProvider: person })
  await assert.rejects(new Client({ name: 'interop', version: '1' }).connect(first), UnauthorizedError)
  await first.finishAuth(person.code)
  const client = new Client({ name: 'interop', version: '1' })
  await client.connect(new StreamableHTTPClientTransport(url, { authProvider: person }))
  return { client, person }
}

// A Person keeps what the application would keep and is the browser as well.
class Person {
  redirectUrl = 'http://127.0.0.1:39999/callback'
  clientMetadata = { client_name: 'Interop', redirect_uris: [this.redirectUrl], token_endpoint_auth_method: 'none', grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'] }
  #state = randomUUID()
  #verifier
  #tokens
  client

  state() { return this.#state }
  clientInformation() { return this.client }
  saveClientInformation(info) { this.client = info }
  tokens() { return this.#tokens }
  saveTokens(tokens) { this.#tokens = tokens }
  saveCodeVerifier(verifier) { this.#verifier = verifier }
  codeVerifier() { return this.#verifier }

  // With --dev the answer is a redirect straight to the application: no page, no
  // cookie.
  async redirectToAuthorization(url) {
    const answer = await fetch(url, { redirect: 'manual' })
    assert.equal(answer.status, 303, await answer.text())
    assert.equal(answer.headers.get('set-cookie'), null)
    const to = new URL(answer.headers.get('location'))
    assert.equal(to.origin + to.pathname, this.redirectUrl)
    assert.equal(to.searchParams.get('state'), this.#state)
    assert.equal(to.searchParams.get('iss'), house.url)
    this.code = to.searchParams.get('code')
  }
}
