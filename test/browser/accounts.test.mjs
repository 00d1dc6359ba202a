// The way to a service of others and back, in a real browser: the example in
// examples/knowledge behind the server, with script on and off.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { App, allow, box, launch, serve, setUp, signIn, timeout, until } from './gatehouse.mjs';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const shots = new URL('screenshots/', import.meta.url).pathname;
const root = new URL('../..', import.meta.url).pathname;
let browser, gatehouse, knowledge, dir, api;

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

before(async () => {
  await mkdir(shots, { recursive: true });
  dir = await mkdtemp(path.join(tmpdir(), 'knowledge-'));
  await promisify(execFile)('go', ['build', '-o', path.join(dir, 'knowledge'), './examples/knowledge'], { cwd: root });
  browser = await launch();
  gatehouse = await serve(async (base) => {
    api = `127.0.0.1:${await freePort()}`;
    let said = '';
    knowledge = spawn(path.join(dir, 'knowledge'), ['--gatehouse', base, '--api', api, '--mcp', `127.0.0.1:${await freePort()}`]);
    knowledge.stdout.on('data', (text) => { said += text; });
    return (await until('the example to say what to configure', () => /^providers:[^]*(?=\n\nCtrl)/m.exec(said)))[0];
  });
  const described = () => fetch(gatehouse.base + '/.well-known/oauth-protected-resource/s/knowledge/mcp').then((r) => r.ok);
  await until('the knowledge base to be served', described, gatehouse);
  await setUp(gatehouse, browser);
});
after(async () => {
  await browser?.close();
  await gatehouse?.stop();
  knowledge?.kill();
  await rm(dir, { recursive: true, force: true });
});

// look judges the page as it stands, where scripts run.
async function look(page, name) {
  for (const width of [1180, 360]) {
    await page.setViewportSize({ width, height: 700 });
    await page.screenshot({ path: `${shots}${name}-${width}.png`, fullPage: true });
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => window.axe.run());
    assert.deepEqual(violations.map((v) => `${v.id}: ${v.help}`), [], `${name} at ${width} px`);
  }
}

async function search(token) {
  const res = await fetch(gatehouse.base + '/mcp/tool/knowledge_kb_search', { method: 'POST', body: '{"query":"invoices"}', headers: { Authorization: `Bearer ${token.access_token}`, 'Content-Type': 'application/json' } });
  return res.text();
}

for (const javaScriptEnabled of [true, false]) {
  test(`an account is connected, lost, connected again and removed, scripts ${javaScriptEnabled ? 'on' : 'off'}`, { timeout }, async () => {
    const person = await browser.person({ javaScriptEnabled });
    const page = await person.newPage();
    const judge = (name) => javaScriptEnabled && look(page, name);
    const app = await App.start(gatehouse);
    await page.goto(app.address());
    await signIn(gatehouse, page);
    await box(page).check();
    await allow(page).click();
    await page.getByRole('heading', { name: 'Connect your account at knowledge' }).waitFor();
    await judge('connect');
    await page.getByRole('link', { name: `Continue to ${api}` }).click();
    await page.getByRole('combobox', { name: 'You are' }).selectOption('mira');
    await page.getByRole('button', { name: 'Allow', exact: true }).click();
    const token = await app.redeem((await app.answer(page)).code);
    assert.match(await search(token), /support/);

    await fetch(`http://${api}/people/mira/forget`, { method: 'POST' });
    const told = await search(token);
    assert.match(told, /CONNECTION_LOST/);
    await page.goto(gatehouse.base + '/me');
    await page.getByRole('link', { name: 'See and change them' }).click();
    await page.getByText('Connection lost').waitFor();
    await judge('connections-lost');
    await page.goto(/http:\/\/localhost:\d+\/connect\/knowledge/.exec(told)[0]);
    await page.getByRole('link', { name: `Continue to ${api}` }).click();
    await page.getByRole('button', { name: 'Allow', exact: true }).click();
    await page.getByRole('heading', { name: 'Your account at knowledge is connected' }).waitFor();
    await judge('connected');
    assert.match(await search(token), /support/);

    await page.getByRole('link', { name: 'connections' }).click();
    await page.getByText('Connected', { exact: true }).first().waitFor();
    await judge('connections');
    await page.getByRole('button', { name: 'Remove' }).click();
    await page.getByText('Not connected').waitFor();
    await judge('connections-none');
    assert.match(await search(token), /CONNECTION_NEEDED/);
    assert.deepEqual(person.blocked, []);
    await app.stop();
  });
}
