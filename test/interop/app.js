// An App keeps what an application of the TypeScript SDK (v1 or v2) would keep;
// its browser is a person.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'

export class App {
  redirectUrl = 'http://127.0.0.1:39999/callback'
  clientMetadata = { client_name: 'Interop', redirect_uris: [this.redirectUrl], token_endpoint_auth_method: 'none', grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'] }
  #state = randomUUID()
  #verifier
  #tokens
  client

  constructor(person) {
    this.person = person
  }

  state() { return this.#state }
  clientInformation() { return this.client }
  saveClientInformation(info) { this.client = info }
  tokens() { return this.#tokens }
  saveTokens(tokens) { this.#tokens = tokens }
  saveCodeVerifier(verifier) { this.#verifier = verifier }
  codeVerifier() { return this.#verifier }
  discoveryState() { return this.discovery }
  saveDiscoveryState(discovery) { this.discovery = discovery }

  // invalidateCredentials forgets what the server no longer takes.
  invalidateCredentials(what) {
    if (what === 'all' || what === 'tokens') this.#tokens = undefined
    if (what === 'all' || what === 'client') this.client = undefined
  }

  async redirectToAuthorization(url) {
    const back = await this.person.visit(url)
    assert.equal(back.origin + back.pathname, this.redirectUrl)
    assert.equal(back.searchParams.get('state'), this.#state)
    this.code = back.searchParams.get('code')
    this.iss = back.searchParams.get('iss')
    assert.equal(this.iss, this.person.house.url)
  }
}
