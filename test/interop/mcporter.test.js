// mcporter, from an empty state: it signs in by one command and calls by another.
import assert from 'node:assert/strict'
import { inHouse, packaged, run, ways } from './house.js'

const told = inHouse({ dev: true })

for (const way of ways) {
  told(`mcporter signs in and calls at ${way.path}`, async house => {
    const env = house.newcomer()
    const server = ['--http-url', house.url + way.path, '--allow-http', '--name', 'house']
    const mcporter = (...args) => run(process.execPath, [packaged('mcporter/dist/cli.js'), ...args], env)
    const before = house.person.visited.length

    await mcporter('auth', ...server)
    const said = await mcporter('call', ...server, `house.${way.prefix}echo`, 'message=carried')
    assert.equal(said.trim(), 'Echo: carried')

    const visited = house.person.visited.slice(before)
    assert.equal(visited.length, 1, 'the browser was opened once')
    await house.recorded(visited[0].searchParams.get('client_id'), `${way.server}_echo`)
  })
}

told('its token never reaches a server behind', house => house.untold())
