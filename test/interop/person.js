// A person with a browser that has no script: it keeps cookies, follows
// redirects and posts the forms of the house. She allows what she is asked.
import assert from 'node:assert/strict'
import http from 'node:http'

export class Person {
  visited = [] // addresses that programs opened
  shown = [] // pages of the house that she saw, as '200 /consent/FLOW'
  cookies = new Map()
  #door

  constructor(house) {
    this.house = house
  }

  // listen opens the door to which a program's "browser" brings addresses.
  async listen() {
    this.#door = http.createServer(async (req, res) => {
      let address = ''
      for await (const chunk of req) address += chunk
      res.end()
      this.open(address).catch(err => (this.fault = err))
    })
    await new Promise(done => this.#door.listen(0, '127.0.0.1', done))
    this.door = `http://127.0.0.1:${this.#door.address().port}/`
  }

  close() {
    this.#door.closeAllConnections()
    this.#door.close()
  }

  // setUp makes her the owner with the code from the log, and signs her in with
  // the link from the log.
  async setUp() {
    const page = await this.#go(new URL('/setup', this.house.url))
    await this.#submit(page, { code: await this.house.printed(/\b([A-Z0-9]{4}-[A-Z0-9]{4}-[A-Z0-9]{4})\b/), email: 'dana@acme.example' })
    const link = await this.#go(new URL(await this.house.printed(/(http:\/\/localhost:\d+\/login\/link\S*token\S+)/)))
    assert.equal((await this.#submit(link, {})).status, 200)
    this.shown = []
  }

  // open goes where a program sends her, and back to the program.
  async open(address) {
    this.visited.push(new URL(address))
    await fetch(await this.visit(address))
  }

  // visit answers with the address at which she leaves the house.
  async visit(address) {
    let page = await this.#go(new URL(address))
    if (page.text?.includes('action="/consent"')) page = await this.#submit(page, { decision: 'allow', started: 'yes' })
    const [, onward] = /http-equiv="refresh" content="0;url=([^"]+)"/.exec(page.text ?? '') ?? []
    const left = page.left ?? (onward && new URL(unescape(onward)))
    assert.ok(left, `she is stuck at ${page.status} ${page.path}: ${page.text}`)
    return left
  }

  #submit(page, values) {
    const [, action] = /<form[^>]* action="([^"]+)"/.exec(page.text) ?? []
    assert.ok(action, `no form at ${page.status} ${page.path}: ${page.text}`)
    const form = new URLSearchParams()
    for (const [, name, value] of page.text.matchAll(/<input[^>]* name="([^"]+)"[^>]* value="([^"]*)"/g)) form.set(name, unescape(value))
    for (const [name, value] of Object.entries(values)) form.set(name, value)
    return this.#go(new URL(unescape(action), this.house.url), form)
  }

  // #go follows redirects as far as they stay in the house.
  async #go(url, form) {
    while (url.origin === this.house.url) {
      const answer = await fetch(url, { redirect: 'manual', method: form ? 'POST' : 'GET', body: form, headers: {
        accept: 'text/html', 'sec-fetch-dest': 'document', cookie: [...this.cookies].map(c => c.join('=')).join('; '),
        ...(form && { origin: this.house.url, 'sec-fetch-site': 'same-origin' }),
      } })
      for (const cookie of answer.headers.getSetCookie()) this.#keep(cookie)
      const text = await answer.text()
      const to = answer.headers.get('location')
      if (!to) {
        this.shown.push(`${answer.status} ${url.pathname.replace(/flow_\w+/, 'FLOW')}`)
        return { status: answer.status, path: url.pathname, text }
      }
      url = new URL(to, url)
      form = undefined
    }
    return { left: url }
  }

  #keep(cookie) {
    const [, name, value] = /^([^=]+)=([^;]*)/.exec(cookie)
    if (/max-age=0/i.test(cookie)) this.cookies.delete(name)
    else this.cookies.set(name, value)
  }
}

const entities = { amp: '&', lt: '<', gt: '>', quot: '"' }
const unescape = text => text.replace(/&(?:#(\d+)|#x([0-9a-f]+)|(\w+));/gi, (_, dec, hex, name) => (name ? entities[name] : String.fromCodePoint(dec ?? parseInt(hex, 16))))
