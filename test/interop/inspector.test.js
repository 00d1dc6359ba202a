// The command line of the MCP Inspector, from an empty state. It listens at
// 127.0.0.1:6276 for the answer. With "auto" it speaks a newer revision first and
// has to fall back.
import assert from 'node:assert/strict'
import { inHouse, packaged, run, ways } from './house.js'

const told = inHouse({ dev: true })

for (const way of ways) {
  for (const era of ['legacy', 'auto']) {
    told(`the Inspector (${era}) signs in and calls at ${way.path}`, async house => {
      const before = house.person.visited.length
      const said = await run(process.execPath, [
        packaged('@modelcontextprotocol/inspector/clients/launcher/build/index.js'), '--cli', '--server-url', house.url + way.path, '--protocol-era', era,
        '--method', 'tools/call', '--tool-name', `${way.prefix}echo`, '--tool-arg', 'message=inspected', '--format', 'json',
      ], house.newcomer({ MCP_AUTO_OPEN_ENABLED: 'true' }))
      assert.deepEqual(JSON.parse(said).result.content, [{ type: 'text', text: 'Echo: inspected' }])

      const visited = house.person.visited.slice(before)
      assert.equal(visited.length, 1, 'the browser was opened once')
      await house.recorded(visited[0].searchParams.get('client_id'), `${way.server}_echo`)
    })
  }
}

told('its token never reaches a server behind', house => house.untold())
