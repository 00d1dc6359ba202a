// Every page, looked at: no finding of axe (WCAG 2.2 A and AA) in light and
// dark, no sideways scrolling at 320 px, targets large enough; screenshots go to
// screenshots/ for a person to look at.
import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';
import { App, Device, allow, box, deny, launch, owner, serve, signIn, timeout } from './gatehouse.mjs';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const shots = new URL('screenshots/', import.meta.url).pathname;
let browser, gatehouse, app, person, page;

before(async () => {
  await mkdir(shots, { recursive: true });
  browser = await launch();
  gatehouse = await serve();
  app = await App.start(gatehouse);
  person = await browser.person();
  page = await person.newPage();
});
after(async () => {
  await browser?.close();
  await app?.stop();
  await gatehouse?.stop();
});

// look judges the page as it stands, without loading it again.
async function look(name) {
  for (const width of [1180, 360]) {
    for (const colorScheme of ['light', 'dark']) {
      await page.setViewportSize({ width, height: 700 });
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: `${shots}${name}-${width}-${colorScheme}.png`, fullPage: true });
      assert.deepEqual(await findings(), [], `${name} at ${width} px, ${colorScheme}`);
    }
  }
  await page.setViewportSize({ width: 320, height: 600 });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(wide, 0, `${name} scrolls sideways at 320 px`);
  const small = await page.evaluate(() => [...document.querySelectorAll('button, .button, input:not([type=hidden], [type=checkbox], [type=radio]), .tick')]
    .filter((e) => e.getBoundingClientRect().height < 44).map((e) => e.outerHTML));
  assert.deepEqual(small, [], `${name} has controls under 44 px`);
  assert.deepEqual(person.blocked, [], `${name} needs what its policy blocks`);
}

async function findings() {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run());
  return violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.html).join(' ')}`);
}

// The tests follow one person from the first start, so their order matters.
test('home before setup', { timeout }, async () => {
  await page.goto(gatehouse.base + '/');
  await look('home-first');
});

test('setup, a wrong code, and its end', { timeout }, async () => {
  await page.goto(gatehouse.base + '/setup');
  await look('setup');
  await page.getByLabel('Setup code').fill('AAAA-BBBB-CCCC');
  await page.getByLabel('Email').fill(owner);
  await page.getByRole('button', { name: 'Become the owner' }).click();
  await page.getByRole('alert').waitFor();
  assert.equal(await page.getByLabel('Email').inputValue(), owner, 'what was typed is kept');
  await look('setup-fault');
  await page.getByLabel('Setup code').fill((await gatehouse.setupCode()).toLowerCase().replaceAll('-', ' '));
  await page.getByRole('button', { name: 'Become the owner' }).click();
  await page.getByRole('heading', { name: 'This server is yours' }).waitFor();
  await look('setup-done');
});

test('sign-in, its answer, the link, and the end', { timeout }, async () => {
  const mark = gatehouse.log.length;
  await page.goto(gatehouse.base + '/login');
  await look('sign-in');
  await page.getByLabel('Email').fill(owner);
  await page.getByRole('button', { name: 'Print a sign-in link' }).click();
  await page.getByRole('heading', { name: 'Look in the server’s log' }).waitFor();
  await look('sign-in-sent');
  await page.goto(await gatehouse.signInLink(mark));
  await look('sign-in-link');
  await page.getByRole('button', { name: 'Sign in on this browser' }).click();
  await page.getByRole('heading', { name: 'You are signed in' }).waitFor();
  await look('signed-in');
});

test('home', { timeout }, async () => {
  await page.goto(gatehouse.base + '/');
  await look('home');
});

test('sign-in while an app waits', { timeout }, async () => {
  const known = page;
  const stranger = await browser.person();
  page = await stranger.newPage();
  await page.goto(app.address());
  await page.getByText('is waiting to connect').waitFor();
  await look('sign-in-waiting');
  await signIn(gatehouse, page);
  await deny(page).waitFor();
  page = known;
});

test('consent, hand-back and what was decided', { timeout }, async () => {
  await page.goto(app.address());
  await look('consent');
  for (const tools of await page.locator('summary').all()) await tools.click();
  await look('consent-open');
  await box(page).check();
  app.status = 204; // the browser stays on the hand-back page
  await allow(page).click();
  await app.answer();
  await page.getByRole('link', { name: 'Continue' }).waitFor();
  await look('hand-back');
  app.status = 200;
  await page.getByRole('link', { name: 'Continue' }).click();
  await app.answer(page);
  await page.goBack();
  await page.getByRole('heading', { name: 'You already allowed' }).waitFor();
  await look('already-allowed');
});

test('consent for more than before, and what does not count', { timeout }, async () => {
  const careful = await App.start(gatehouse, 'Careful');
  await page.goto(careful.address({ scope: 'apps:read' }));
  await box(page).check();
  await allow(page).click();
  await careful.redeem((await careful.answer(page)).code);
  await page.goto(careful.address({ scope: 'apps:read audit:read servers:read' }));
  await page.getByRole('heading', { name: 'What is new' }).waitFor();
  await page.getByText('Already allowed').click();
  await look('consent-wider');
  await page.getByRole('checkbox', { name: 'See what every app did' }).uncheck();
  await page.getByRole('radio', { name: '1 hour' }).check();
  await page.locator('input[name=started]').evaluate((e) => { e.required = false; });
  await allow(page).click();
  await page.getByRole('alert').waitFor();
  assert.ok(await page.getByRole('radio', { name: '1 hour' }).isChecked(), 'what was chosen is kept');
  assert.ok(!await page.getByRole('checkbox', { name: 'See what every app did' }).isChecked(), 'what was not ticked stays so');
  await look('consent-fault');
  await deny(page).click();
  await careful.answer(page);
  await careful.stop();
});

test('connected apps, before and after everything is stopped', { timeout }, async () => {
  const rude = await App.start(gatehouse, 'W'.repeat(60) + ' \u202e<b>').catch(() => App.start(gatehouse, 'W'.repeat(60)));
  await page.goto(rude.address());
  await page.getByRole('radio', { name: 'Until I remove it' }).check();
  await box(page).check();
  await allow(page).click();
  await rude.redeem((await rude.answer(page)).code);
  await rude.stop();
  await page.goto(gatehouse.base + '/me');
  await look('me');
  await page.getByRole('button', { name: 'Remove' }).first().click();
  await page.getByRole('status').waitFor();
  await page.getByText('Ended in the last 90 days').click();
  await look('me-removed');
  await page.getByRole('link', { name: 'Stop everything' }).click();
  await page.getByRole('heading', { name: 'Stop everything?' }).waitFor();
  await look('stop');
  await page.getByRole('button', { name: 'Stop everything' }).click();
  await page.getByText('Nothing is connected now').waitFor();
  await look('me-empty');
});

test('apps that may ask, one of them, and what is decided', { timeout }, async () => {
  await page.goto(gatehouse.base + '/admin/clients');
  await page.getByRole('heading', { level: 1, name: 'Apps that may ask' }).waitFor();
  await look('clients');
  await page.getByLabel('Name').fill('Wiki');
  await page.getByLabel('Addresses it sends people back to').fill('http://wiki.example/cb');
  await page.getByRole('button', { name: 'Add this app' }).click();
  await page.getByRole('alert').waitFor();
  await look('clients-fault');
  await page.getByLabel('Addresses it sends people back to').fill('https://wiki.example/cb');
  await page.getByRole('checkbox', { name: 'It runs on a server' }).check();
  await page.getByRole('button', { name: 'Add this app' }).click();
  await page.getByText('Client secret, shown this once').waitFor();
  await look('clients-added');
  await page.getByRole('link', { name: 'Unverified' }).click();
  await page.getByRole('link', { name: 'Claude Code' }).first().click();
  await page.getByText('What it says of itself').click();
  await look('client');
  await page.getByRole('button', { name: 'Approve' }).click();
  await page.getByRole('status').waitFor();
  await look('client-approved');
  await page.getByLabel('Reason, which people see').fill('see ticket 12');
  await page.getByRole('button', { name: 'Block' }).click();
  await page.getByRole('heading', { name: 'Let it ask again' }).waitFor();
  await look('client-blocked');
  await page.getByRole('button', { name: 'Unblock' }).click();
  await page.getByRole('heading', { name: 'Vouch for it' }).waitFor();
});

test('consent for an app with the name of an approved one', { timeout }, async () => {
  const other = await App.start(gatehouse, 'Wiki');
  await page.goto(other.address());
  await page.getByText('This is not the app called').waitFor();
  await look('consent-imitation');
  await other.stop();
});

test('a device: the code, a wrong one, the question, and the end', { timeout }, async () => {
  const device = await Device.start(gatehouse);
  await page.goto(gatehouse.base + '/device');
  await look('device');
  await page.getByLabel('Code that the device').fill('BBBB-BBBB');
  await page.getByRole('button', { name: 'Continue' }).click();
  await page.getByRole('alert').waitFor();
  await look('device-wrong');
  await page.getByLabel('Code that the device').fill(device.code.toLowerCase().replace('-', ' '));
  await page.getByRole('button', { name: 'Continue' }).click();
  await page.getByRole('heading', { level: 1, name: 'on another device wants to use' }).waitFor();
  await look('device-consent');
  await page.getByRole('checkbox', { name: /^Yes, my device shows/ }).check();
  await allow(page).click();
  await page.getByRole('heading', { level: 1, name: 'Done' }).waitFor();
  await look('device-done');
  const refused = await Device.start(gatehouse);
  await page.goto(refused.complete);
  await page.getByRole('button', { name: 'Continue' }).click();
  await deny(page).click();
  await page.getByRole('heading', { level: 1, name: 'You didn’t allow it' }).waitFor();
  await look('device-denied');
});

test('not allowed', { timeout }, async () => {
  await page.goto(app.address());
  await deny(page).click();
  await app.answer(page);
  await page.goBack();
  await page.getByRole('heading', { name: 'You didn’t allow it' }).waitFor();
  await look('not-allowed');
});

test('an app with a long and hostile name', { timeout }, async () => {
  const name = `<script>alert(1)</script>\u202e${'W'.repeat(60)}`;
  const rude = await App.start(gatehouse, name).catch((e) => { assert.match(e.message, /invalid_client_metadata/); });
  if (!rude) return; // refused at the door
  await page.goto(rude.address());
  await look('consent-hostile');
  await rude.stop();
});

test('errors', { timeout }, async () => {
  for (const [name, address] of Object.entries({
    'error-client': app.address({ client_id: 'nobody' }),
    'error-redirect': app.address({ redirect_uri: app.origin + '/elsewhere' }),
    'error-not-found': gatehouse.base + '/nothing-here',
    'error-link': gatehouse.base + '/login/link?token=lnk_gone',
  })) {
    await page.goto(address);
    await page.getByRole('heading', { level: 1 }).waitFor();
    for (const details of await page.locator('summary').all()) await details.click();
    await look(name);
  }
});
