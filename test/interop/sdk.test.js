// The TypeScript SDK's own client (v1), from an empty state: discovery,
// registration, OAuth, calls, progress, cancellation.
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { CreateMessageRequestSchema, ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js'
import assert from 'node:assert/strict'
import { App } from './app.js'
import { inHouse, ways } from './house.js'

const told = inHouse({ dev: true })

for (const way of ways) {
  told(`a stranger at ${way.path} gets the challenge, also for GET`, async house => {
    for (const method of ['GET', 'POST']) {
      const answer = await fetch(house.url + way.path, { method, headers: { accept: 'application/json, text/event-stream', 'content-type': 'application/json' }, body: method === 'POST' ? '{"jsonrpc":"2.0","id":1,"method":"tools/list"}' : undefined })
      const challenge = answer.headers.get('www-authenticate') ?? ''
      assert.equal(answer.status, 401, `${method} ${way.path}`)
      assert.match(challenge, /^Bearer /)
      assert.ok(challenge.includes(`resource_metadata="${house.url}/.well-known/oauth-protected-resource${way.path}"`), challenge)
      assert.ok(challenge.includes(`scope="${way.scope}"`), challenge)
    }
  })

  told(`the SDK client signs in and calls at ${way.path}`, async (house, t) => {
    const { client, app } = await connect(house, way.path)
    t.after(() => client.close())
    assert.ok(app.client.client_id, 'it registered')
    assert.equal(app.tokens().scope, way.scope)

    // Who has a token learns that a stream needs a session; a stranger does not.
    const stream = await fetch(house.url + way.path, { headers: { authorization: `Bearer ${app.tokens().access_token}`, accept: 'text/event-stream' } })
    assert.equal(stream.status, 405)

    const { tools } = await client.listTools()
    const names = tools.map(tool => tool.name)
    assert.ok(names.includes(`${way.prefix}echo`), names.join(' '))
    if (way.prefix) assert.deepEqual(['echo', 'public_info', 'whoami'].filter(n => !names.includes(n)), [])

    const result = await client.callTool({ name: `${way.prefix}echo`, arguments: { message: 'first light' } })
    assert.deepEqual(result.content, [{ type: 'text', text: 'Echo: first light' }])
    await house.recorded(app.client.client_id, `${way.server}_echo`)
  })

  told(`resources, prompts and completion are those of the server behind at ${way.path}`, async (house, t) => {
    const { client, app } = await connect(house, way.path)
    t.after(() => client.close())
    const { resources } = await client.listResources()
    const { contents: [content] } = await client.readResource({ uri: resources.find(r => r.name === 'architecture.md').uri })
    assert.match(content.text, /^# Everything Server/)
    const { contents: [made] } = await client.readResource({ uri: 'demo://resource/dynamic/text/7' })
    assert.match(made.text, /^Resource 7/)
    const { messages } = await client.getPrompt({ name: `${way.prefix}args-prompt`, arguments: { city: 'Delft' } })
    assert.match(messages[0].content.text, /Delft/)
    const { completion } = await client.complete({ ref: { type: 'ref/prompt', name: `${way.prefix}completable-prompt` }, argument: { name: 'department', value: 'E' } })
    assert.deepEqual(completion.values, ['Engineering'])
    assert.deepEqual((await house.events(app.client.client_id)).slice(2), ['resource.read allowed', 'resource.read allowed', 'prompt.get allowed', 'completion.complete allowed'])
  })

  told(`what the server behind asks in a call, the person's program answers at ${way.path}`, async (house, t) => {
    const { client } = await connect(house, way.path, { sampling: {}, elicitation: {} })
    t.after(() => client.close())
    client.setRequestHandler(CreateMessageRequestSchema, () => ({ role: 'assistant', model: 'none', content: { type: 'text', text: 'forty-two' } }))
    client.setRequestHandler(ElicitRequestSchema, () => ({ action: 'decline' }))
    const sampled = await client.callTool({ name: `${way.prefix}trigger-sampling-request`, arguments: { prompt: 'what is it?', maxTokens: 10 } })
    assert.match(sampled.content[0].text, /forty-two/)
    const elicited = await client.callTool({ name: `${way.prefix}trigger-elicitation-request`, arguments: {} })
    assert.match(elicited.content[0].text, /declined/)
  })

  told(`progress arrives while the call runs at ${way.path}`, async (house, t) => {
    const { client } = await connect(house, way.path)
    t.after(() => client.close())
    const progress = []
    const begun = Date.now()
    const result = await client.callTool(long(way, 1.2, 4), undefined, { onprogress: p => progress.push({ ...p, at: Date.now() - begun }) })
    assert.match(result.content[0].text, /completed/)
    assert.deepEqual(progress.map(p => [p.progress, p.total]), [[1, 4], [2, 4], [3, 4], [4, 4]])
    assert.ok(progress[0].at < 1000, `the first came after ${progress[0].at} ms, so they were held back`)
  })

  told(`a cancelled call ends at once at ${way.path}, and the session goes on`, async (house, t) => {
    const { client } = await connect(house, way.path)
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

told('a token of one server opens no other', async house => {
  const { client, app } = await connect(house, '/s/everything/mcp')
  await client.close()
  for (const path of ['/mcp', '/s/everything-http/mcp']) {
    const answer = await fetch(house.url + path, { method: 'POST', headers: { authorization: `Bearer ${app.tokens().access_token}`, 'content-type': 'application/json', accept: 'application/json, text/event-stream' }, body: '{"jsonrpc":"2.0","id":1,"method":"tools/list"}' })
    assert.equal(answer.status, 401, path)
  }
})

told('its token never reaches a server behind', house => house.untold())

// With --dev the answer is a redirect straight to the application.
told('there was no page and no cookie', house => {
  assert.deepEqual(house.person.shown, [])
  assert.equal(house.person.cookies.size, 0)
})

const long = (way, duration, steps) => ({ name: `${way.prefix}trigger-long-running-operation`, arguments: { duration, steps } })

// connect does what an application does: try, be refused, sign in, try again.
async function connect(house, path, capabilities = {}) {
  const url = new URL(path, house.url)
  const app = new App(house.person)
  const first = new StreamableHTTPClientTransport(url, { authProvider: app })
  await assert.rejects(new Client({ name: 'interop', version: '1' }).connect(first), UnauthorizedError)
  await first.finishAuth(app.code)
  const client = new Client({ name: 'interop', version: '1' }, { capabilities })
  await client.connect(new StreamableHTTPClientTransport(url, { authProvider: app }))
  return { client, app }
}
