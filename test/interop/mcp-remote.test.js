// mcp-remote, the bridge most stdio-only programs use, from an empty state.
import assert from 'node:assert/strict'
import { inHouse, ways } from './house.js'
import { Remote } from './remote.js'

const told = inHouse({ dev: true })

for (const way of ways) {
  told(`mcp-remote signs in and calls at ${way.path}`, async (house, t) => {
    const before = house.person.visited.length
    const remote = new Remote(house, house.url + way.path)
    t.after(() => remote.stop())
    try {
      await remote.hello()
      const { tools } = await remote.request('tools/list', {})
      assert.ok(tools.some(tool => tool.name === `${way.prefix}echo`), tools.map(tool => tool.name).join(' '))
      await remote.echo(way.prefix, 'through the bridge')

      await remote.request('tools/call', { name: `${way.prefix}trigger-long-running-operation`, arguments: { duration: 0.4, steps: 2 }, _meta: { progressToken: 'p1' } })
      const progress = remote.notes.filter(n => n.method === 'notifications/progress').map(n => n.params)
      assert.deepEqual(progress.map(p => [p.progressToken, p.progress]), [['p1', 1], ['p1', 2]])

      const visited = house.person.visited.slice(before)
      assert.equal(visited.length, 1, 'the browser was opened once')
      await house.recorded(visited[0].searchParams.get('client_id'), `${way.server}_echo`, `${way.server}_trigger-long-running-operation`)
    } catch (err) {
      err.message += remote.tail()
      throw err
    }
  })
}

told('its token never reaches a server behind', house => house.untold())
