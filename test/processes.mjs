// Programs that a test starts: free ports for them, waiting until they answer, and
// their end.
import assert from 'node:assert/strict'
import { createServer } from 'node:net'

export async function freePort() {
  const server = createServer()
  await new Promise(done => server.listen(0, '127.0.0.1', done))
  const { port } = server.address()
  await new Promise(done => server.close(done))
  return port
}

// ready waits until url answers with status, or at all without one; a child that
// ends first is a failure.
export async function ready(url, child, status) {
  for (const end = Date.now() + 30_000; Date.now() < end; await new Promise(r => setTimeout(r, 50))) {
    assert.equal(child.exitCode, null, `${child.spawnfile} ended while it was waited for`)
    const answer = await fetch(url).catch(() => null)
    await answer?.body?.cancel()
    if (answer && (status ?? answer.status) === answer.status) return
  }
  assert.fail(`${url} did not answer ${status ?? ''} within 30 s`)
}

// end ends what still runs, the last first: it is asked, and after five seconds
// not asked any more.
export async function end(children) {
  for (const child of children.toReversed()) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    const gone = new Promise(done => child.once('exit', done))
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), 5000)
    await gone
    clearTimeout(timer)
  }
}
