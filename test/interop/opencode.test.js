// OpenCode, from an empty state: it signs in at every endpoint, is connected, and
// calls. It calls when a model tells it to, so a model of ours does. It listens at
// 127.0.0.1:19876 for the answer.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { inHouse, packaged, run, ways } from './house.js'

const program = packaged('opencode-linux-x64-baseline/bin/opencode')
const told = inHouse({ dev: true, skip: existsSync(program) ? false : 'OpenCode of this version is packaged for x64 alone' })
const entry = way => way.path.replaceAll(/\W+/g, '-').slice(1) // mcp, s-everything-mcp, …

told('OpenCode signs in, is connected and calls', async (house, t) => {
  const model = await Model.start(ways.map(way => `${entry(way)}_${way.prefix}echo`))
  t.after(() => model.stop())
  const env = house.newcomer({ OPENCODE_DISABLE_AUTOUPDATE: '1', OPENCODE_DISABLE_DEFAULT_PLUGINS: '1', OPENCODE_DISABLE_LSP_DOWNLOAD: '1', OPENCODE_DISABLE_MODELS_FETCH: '1' })
  const opencode = (...args) => run(program, ['--pure', ...args], env)
  writeFileSync(path.join(env.HOME, '.npmrc'), 'offline=true\nfetch-retries=0\n') // it would install a plugin of its own
  writeFileSync(path.join(env.HOME, 'opencode.json'), JSON.stringify({
    mcp: Object.fromEntries(ways.map(way => [entry(way), { type: 'remote', url: house.url + way.path }])),
    provider: { ours: { npm: '@ai-sdk/openai-compatible', name: 'Ours', options: { baseURL: model.url, apiKey: 'none' }, models: { ours: { name: 'Ours', tool_call: true } } } },
    model: 'ours/ours', small_model: 'ours/ours', permission: 'allow',
  }))

  for (const way of ways) assert.match(await opencode('mcp', 'auth', entry(way)), /Authentication successful/)
  const list = await opencode('mcp', 'list')
  for (const way of ways) assert.match(list, new RegExp(`✓ ${entry(way)} .*connected`), list)

  const lines = (await opencode('run', 'call them', '--format', 'json')).trim().split('\n').map(line => JSON.parse(line))
  const calls = lines.filter(line => line.type === 'tool_use').map(({ part }) => [part.tool, part.state.status, part.state.output])
  assert.deepEqual(calls.sort(), model.tools.map(name => [name, 'completed', 'Echo: opened']).sort())

  assert.equal(house.person.visited.length, ways.length, 'the browser was opened once for each')
  for (const [i, way] of ways.entries()) await house.recorded(house.person.visited[i].searchParams.get('client_id'), `${way.server}_echo`)
  house.untold()
})

// A Model answers at the address of an OpenAI-compatible API. To a conversation
// with tools it says to call each of its own; when it sees results, it is done.
class Model {
  static async start(tools) {
    const model = Object.assign(new Model(), { tools })
    model.server = http.createServer(async (req, res) => {
      let body = ''
      for await (const chunk of req) body += chunk
      model.answer(JSON.parse(body), res)
    })
    await once(model.server.listen(0, '127.0.0.1'), 'listening')
    model.url = `http://127.0.0.1:${model.server.address().port}/v1`
    return model
  }

  answer({ tools, messages }, res) {
    const call = tools?.length && messages.at(-1).role !== 'tool'
    const calls = this.tools.map((name, index) => ({ index, id: `call${index}`, type: 'function', function: { name, arguments: '{"message":"opened"}' } }))
    const delta = call ? { role: 'assistant', tool_calls: calls } : { role: 'assistant', content: 'Done.' }
    const chunk = choice => `data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', created: 1, model: 'ours', choices: [{ index: 0, ...choice }] })}\n\n`
    res.writeHead(200, { 'content-type': 'text/event-stream' })
    res.end(`${chunk({ delta })}${chunk({ delta: {}, finish_reason: call ? 'tool_calls' : 'stop' })}data: [DONE]\n\n`)
  }

  stop() {
    this.server.closeAllConnections()
    this.server.close()
  }
}
