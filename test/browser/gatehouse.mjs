// What the browser tests share: the real server on a temporary folder, a client
// that listens on this computer, and a browser that reports what its policy
// blocked.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { chromium } from 'playwright-core';

export const owner = 'dana@acme.example';

// timeout is for a whole suite, on a machine that does much else beside it.
export const timeout = 300_000;

// until asks again and again, for ten seconds. Where the answer should come from
// the server, its log says why it did not.
export async function until(what, ask, gatehouse) {
  for (const end = Date.now() + 10_000; Date.now() < end; await sleep(20)) {
    const answer = await ask();
    if (answer) return answer;
  }
  assert.fail(`waited ten seconds for ${what}\n${gatehouse?.log ?? ''}`);
}

async function listen(handler) {
  const server = http.createServer(handler);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, port: server.address().port };
}

// serve starts GATEHOUSE_BIN and waits until it answers. configure is what its
// configuration file holds, made of its address.
export async function serve(configure) {
  const bin = process.env.GATEHOUSE_BIN;
  assert.ok(bin, 'set GATEHOUSE_BIN to the binary: go build -o /tmp/gatehouse ./cmd/gatehouse');
  const { server, port } = await listen();
  await new Promise((done) => server.close(done));
  const dir = await mkdtemp(path.join(tmpdir(), 'gatehouse-browser-'));
  const gatehouse = { base: `http://localhost:${port}`, log: '' };
  const config = path.join(dir, 'gatehouse.yaml');
  if (configure) await writeFile(config, await configure(gatehouse.base));
  const child = spawn(bin, ['serve', '--listen', `localhost:${port}`, '--data-dir', dir, ...(configure ? ['--config', config] : [])], {
    env: { PATH: process.env.PATH, HOME: dir }, stdio: ['ignore', 'pipe', 'pipe'],
  });
  for (const out of [child.stdout, child.stderr]) out.on('data', (text) => { gatehouse.log += text; });
  gatehouse.stop = async () => {
    child.kill();
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    await rm(dir, { recursive: true, force: true });
  };
  // printed is the first text like this in what came after the mark.
  gatehouse.printed = async (like, mark = 0) => (await until(`${like} in the log`, () => like.exec(gatehouse.log.slice(mark)), gatehouse))[1];
  gatehouse.setupCode = () => gatehouse.printed(/\b([A-Z0-9]{4}-[A-Z0-9]{4}-[A-Z0-9]{4})\b/);
  gatehouse.signInLink = (mark) => gatehouse.printed(/(http:\/\/localhost:\d+\/login\/link\S*token\S+)/, mark);
  const answers = () => fetch(gatehouse.base + '/login').then((r) => r.ok, () => false);
  await until('the server to answer', answers, gatehouse).catch(async (e) => { await gatehouse.stop(); throw e; });
  return gatehouse;
}

// setUp makes the owner, in a profile of its own.
export async function setUp(gatehouse, browser) {
  const person = await browser.person();
  const page = await person.newPage();
  await page.goto(gatehouse.base + '/setup');
  await page.getByLabel('Setup code').fill(await gatehouse.setupCode());
  await page.getByLabel('Email').fill(owner);
  await page.getByRole('button', { name: 'Become the owner' }).click();
  await page.getByRole('heading', { level: 1, name: 'This server is yours' }).waitFor();
}

// launch starts Debian's Chromium. Its person() is a fresh profile; `blocked` lists
// what the content security policy stopped on its pages. Nothing is closed before
// the browser is: a page that is closed while it loads may wait for ever.
export async function launch() {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  browser.person = async (options = {}) => {
    const context = await browser.newContext(options);
    context.setDefaultTimeout(10_000);
    context.blocked = [];
    context.on('console', (m) => { if (m.text().includes('Content Security Policy')) context.blocked.push(m.text()); });
    return context;
  };
  return browser;
}

// signIn asks for a link on the page where sign-in is due, takes it from the log
// and opens it.
export async function signIn(gatehouse, page, email = owner) {
  const mark = gatehouse.log.length;
  await page.getByLabel('Email').fill(email);
  await page.getByRole('button', { name: 'Print a sign-in link' }).click();
  await page.getByRole('heading', { name: 'Look in the server’s log' }).waitFor();
  await page.goto(await gatehouse.signInLink(mark));
  await page.getByRole('button', { name: 'Sign in on this browser' }).click();
}

// App is an MCP client on this computer: it registers itself, sends people to
// authorize, and listens for the answer.
export class App {
  static async start(gatehouse, name = 'Claude Code') {
    const app = Object.assign(new App(), { gatehouse, name, heard: [], html: '<title>App</title><h1>Back in the app</h1>', status: 200 });
    const { server, port } = await listen((req, res) => {
      const url = new URL(req.url, app.origin);
      if (url.pathname === '/callback') app.heard.push({ ...Object.fromEntries(url.searchParams), referer: req.headers.referer });
      res.writeHead(app.status, { 'Content-Type': 'text/html' }).end(app.status === 204 ? undefined : app.html);
    });
    Object.assign(app, { server, origin: `http://127.0.0.1:${port}`, redirect: `http://127.0.0.1:${port}/callback` });
    const { client_id } = await app.post('/oauth/register', JSON.stringify({
      client_name: name, redirect_uris: ['http://127.0.0.1/callback'], token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'],
    }), 'application/json', 201);
    app.id = client_id;
    return app;
  }

  async post(path, body, type, status) {
    const res = await fetch(this.gatehouse.base + path, { method: 'POST', body, headers: { 'Content-Type': type } });
    const text = await res.text();
    assert.equal(res.status, status, `${path}: ${text}`);
    return JSON.parse(text);
  }

  // address is where the app sends people, each time with new secrets.
  address(change = {}) {
    this.verifier = randomBytes(32).toString('base64url');
    this.state = randomBytes(16).toString('base64url');
    return this.gatehouse.base + '/oauth/authorize?' + new URLSearchParams({
      response_type: 'code', client_id: this.id, redirect_uri: this.redirect, state: this.state, scope: 'mcp:tools',
      resource: this.gatehouse.base + '/mcp', code_challenge_method: 'S256',
      code_challenge: createHash('sha256').update(this.verifier).digest('base64url'), ...change,
    });
  }

  // answer is what the browser on this page brought back, once it is there; no
  // address leaks with it.
  async answer(page) {
    if (page) await page.getByRole('heading', { name: 'Back in the app' }).waitFor();
    const answer = await until('the browser to come back to the app', () => this.heard.shift());
    assert.equal(answer.state, this.state);
    assert.equal(answer.iss, this.gatehouse.base);
    assert.equal(answer.referer, undefined);
    return answer;
  }

  redeem(code, status = 200) {
    return this.post('/oauth/token', new URLSearchParams({
      grant_type: 'authorization_code', code, client_id: this.id, redirect_uri: this.redirect,
      code_verifier: this.verifier, resource: this.gatehouse.base + '/mcp',
    }), 'application/x-www-form-urlencoded', status);
  }

  // whoami is the status that a call with this token gets.
  async whoami(token) {
    const res = await fetch(this.gatehouse.base + '/mcp/tool/whoami', { method: 'POST', headers: { Authorization: `Bearer ${token.access_token}` } });
    await res.text();
    return res.status;
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((done) => this.server.close(done));
  }
}

// Device is a program that shows a code and waits.
export class Device {
  static async start(gatehouse, name = 'Claude Code') {
    const device = Object.assign(new Device(), { gatehouse });
    const grant = 'urn:ietf:params:oauth:grant-type:device_code';
    const post = App.prototype.post.bind(device);
    device.id = (await post('/oauth/register', JSON.stringify({ client_name: name, redirect_uris: ['http://127.0.0.1/callback'], grant_types: [grant, 'refresh_token'] }), 'application/json', 201)).client_id;
    const asked = await post('/oauth/device', new URLSearchParams({ client_id: device.id }), 'application/x-www-form-urlencoded', 200);
    Object.assign(device, { code: asked.user_code, complete: asked.verification_uri_complete });
    device.poll = (status = 200) => post('/oauth/token', new URLSearchParams({ client_id: device.id, grant_type: grant, device_code: asked.device_code }), 'application/x-www-form-urlencoded', status);
    return device;
  }
}

export const box = (page) => page.getByRole('checkbox', { name: /^Yes, I just started this/ });
export const allow = (page) => page.getByRole('button', { name: 'Allow this app' });
export const deny = (page) => page.getByRole('button', { name: 'Don’t allow' });
