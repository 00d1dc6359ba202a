// One authorization in a real browser, with script on and off: from the setup
// code to a token, and every way out on the road.
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { App, Device, allow, box, deny, launch, owner, serve, setUp, signIn, timeout, until } from './gatehouse.mjs';

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

for (const javaScriptEnabled of [true, false]) {
  describe(`with script ${javaScriptEnabled ? 'on' : 'off'}`, { timeout }, () => {
    let gatehouse, app, person, page;

    // asked brings a signed-in person to the question.
    const asked = async () => {
      await page.goto(app.address());
      await page.getByRole('heading', { level: 1, name: 'An app calling itself “Claude Code” wants to use' }).waitFor();
    };

    before(async () => {
      gatehouse = await serve();
      app = await App.start(gatehouse);
      person = await browser.person({ javaScriptEnabled });
    });
    beforeEach(async () => { page = await person.newPage(); });
    afterEach(() => { assert.deepEqual(person.blocked, [], 'a page needs what its policy blocks'); });
    after(async () => {
      await app?.stop();
      await gatehouse?.stop();
    });

    test('a newcomer sets up, signs in with the link from the log, allows, and the app has a token', async () => {
      await page.goto(gatehouse.base + '/');
      await page.getByRole('link', { name: 'Set it up' }).click();
      await page.getByLabel('Setup code').fill(await gatehouse.setupCode());
      await page.getByLabel('Email').fill(owner);
      await page.getByRole('button', { name: 'Become the owner' }).click();
      await page.getByRole('heading', { name: 'This server is yours' }).waitFor();

      await page.goto(app.address());
      await page.getByText('An app on this computer is waiting to connect.').waitFor();
      await signIn(gatehouse, page);
      await page.getByText('Signed in as ' + owner).waitFor();
      await page.getByText('A program on this computer').waitFor();
      await page.getByText('127.0.0.1, port ' + new URL(app.origin).port).waitFor();
      await box(page).check();
      await allow(page).click();
      const { code } = await app.answer(page);
      const token = await app.redeem(code);
      assert.equal(token.token_type, 'Bearer');
      assert.ok(token.access_token && token.refresh_token && token.expires_in > 0);
      assert.equal((await app.redeem(code, 400)).error, 'invalid_grant');
    });

    test('setup happens once', async () => {
      const answer = await page.goto(gatehouse.base + '/setup');
      assert.equal(answer.status(), 404);
    });

    test('the question starts at its title, and a stray Enter refuses (R1204)', async () => {
      await asked();
      assert.equal(await page.locator(':focus').evaluate((e) => e.tagName), 'H1');
      await box(page).focus();
      await page.keyboard.press('Enter');
      assert.equal((await app.answer(page)).error, 'access_denied');
    });

    test('Allow waits for the box (R316)', async () => {
      await asked();
      await allow(page).click();
      assert.ok(await allow(page).isVisible());
      assert.equal(app.heard.length, 0);
      await box(page).check();
      await allow(page).click();
      assert.ok((await app.answer(page)).code);
    });

    test('Don’t allow tells the app (R309), box or no box', async () => {
      await asked();
      await deny(page).click();
      const answer = await app.answer();
      assert.equal(answer.error, 'access_denied');
      assert.equal(answer.code, undefined);
    });

    test('Back after Allow shows what was decided, and sends on again', async () => {
      await asked();
      await box(page).check();
      await allow(page).click();
      const { code } = await app.answer(page);
      await page.goBack();
      await page.getByRole('heading', { level: 1, name: 'You already allowed “Claude Code”' }).waitFor();
      assert.equal(await page.getByRole('textbox').inputValue().then((a) => new URL(a).searchParams.get('code')), code);
      await page.getByRole('link', { name: 'Send me back again' }).click();
      assert.equal((await app.answer(page)).code, code);
    });

    test('Back after Don’t allow shows what was decided', async () => {
      await asked();
      await deny(page).click();
      await app.answer(page);
      await page.goBack();
      await page.getByRole('heading', { level: 1, name: 'You didn’t allow it' }).waitFor();
    });

    test('a device gets its token after its code is typed and the question answered (R914)', async () => {
      const device = await Device.start(gatehouse);
      await page.goto(device.complete);
      assert.equal(await page.getByLabel('Code that the device').inputValue(), device.code);
      assert.equal((await device.poll(400)).error, 'authorization_pending');
      await page.getByRole('button', { name: 'Continue' }).click();
      await allow(page).click(); // waits for the box
      assert.ok(await allow(page).isVisible());
      await page.getByRole('checkbox', { name: new RegExp(`^Yes, my device shows ${device.code}`) }).check();
      await allow(page).click();
      await page.getByRole('heading', { level: 1, name: 'Done' }).waitFor();
      assert.equal((await device.poll()).token_type, 'Bearer');
      await page.goBack();
      await page.getByRole('heading', { level: 1, name: 'Done' }).waitFor();
    });

    test('Back from an app that no longer listens shows the address to copy', async () => {
      const gone = await App.start(gatehouse);
      await page.goto(gone.address());
      await box(page).check();
      await gone.stop();
      await allow(page).click();
      await until('the browser’s own error page', () => page.url().startsWith('chrome-error:'));
      await until('a way back', () => page.goBack().then(() => true, () => false)); // not at once from such a page
      await page.getByRole('heading', { level: 1, name: 'You already allowed' }).waitFor();
      assert.match(await page.getByRole('textbox').inputValue(), /^http:\/\/127\.0\.0\.1:\d+\/callback\?.*code=/);
    });

    test('Not you? signs somebody in and keeps the question', async () => {
      await asked();
      await page.getByRole('link', { name: 'Not you?' }).click();
      await page.getByText('An app on this computer is waiting to connect.').waitFor();
      await signIn(gatehouse, page);
      await deny(page).click();
      assert.equal((await app.answer(page)).error, 'access_denied');
    });

    test('what was allowed is removed on a page of one’s own (R1212)', async () => {
      await asked();
      await page.getByRole('radio', { name: 'Until I remove it' }).check();
      await box(page).check();
      await allow(page).click();
      const token = await app.redeem((await app.answer(page)).code);
      assert.equal(await app.whoami(token), 200);
      await page.goto(gatehouse.base + '/');
      await page.getByRole('link', { name: 'Connected apps' }).click();
      const remove = page.getByRole('button', { name: 'Remove' }); // also for what the tests before this one allowed
      for (let left = await remove.count(); left > 0; left = await remove.count()) {
        await remove.first().click();
        await until('one less', async () => await remove.count() < left);
        await page.getByText('Removed. It stopped working at once.').waitFor();
      }
      assert.equal(await app.whoami(token), 401);
      await asked(); // and it asks again
    });

    test('stop everything asks first, and then stops (attack 38)', async () => {
      await asked();
      await box(page).check();
      await allow(page).click();
      const token = await app.redeem((await app.answer(page)).code);
      await page.goto(gatehouse.base + '/me');
      await page.getByRole('link', { name: 'Stop everything' }).click();
      await page.getByRole('heading', { level: 1, name: 'Stop everything?' }).waitFor();
      assert.equal(await app.whoami(token), 200);
      await page.getByRole('link', { name: 'Keep them' }).click();
      await page.getByRole('heading', { level: 1, name: 'Connected apps' }).waitFor();
      await page.getByRole('link', { name: 'Stop everything' }).click();
      await page.getByRole('button', { name: 'Stop everything' }).click();
      await page.getByText('Everything is stopped.').waitFor();
      assert.equal(await app.whoami(token), 401);
    });

    test('an hour is an hour: no refresh token', async () => {
      await asked();
      assert.ok(await page.getByRole('radio', { name: '30 days' }).isChecked());
      await page.getByRole('radio', { name: '1 hour' }).check();
      await box(page).check();
      await allow(page).click();
      const token = await app.redeem((await app.answer(page)).code);
      assert.equal(token.refresh_token, undefined);
      assert.equal(await app.whoami(token), 200);
    });

    test('two tabs each finish their own question (attack 69)', async () => {
      await asked();
      const first = { state: app.state };
      const second = await person.newPage();
      await second.goto(app.address());
      await deny(second).click();
      assert.equal((await app.answer(second)).error, 'access_denied');
      app.state = first.state;
      await deny(page).click();
      assert.equal((await app.answer(page)).error, 'access_denied');
    });
  });
}

describe('around the question', { timeout }, () => {
  let gatehouse, app, person, page;
  before(async () => {
    gatehouse = await serve();
    await setUp(gatehouse, browser);
    app = await App.start(gatehouse);
    person = await browser.person();
    page = await person.newPage();
    await page.goto(gatehouse.base + '/login');
    await signIn(gatehouse, page);
    await page.getByRole('heading', { name: 'You are signed in' }).waitFor();
  });
  beforeEach(async () => { page = await person.newPage(); });
  after(async () => {
    await app?.stop();
    await gatehouse?.stop();
  });

  test('looking at a sign-in link never spends it, using it does (attack 116)', async () => {
    const stranger = await browser.person();
    const visitor = await stranger.newPage();
    await visitor.goto(gatehouse.base + '/login');
    const mark = gatehouse.log.length;
    await visitor.getByLabel('Email').fill(owner);
    await visitor.getByRole('button', { name: 'Print a sign-in link' }).click();
    const link = await gatehouse.signInLink(mark);
    for (const method of ['HEAD', 'GET', 'GET']) await (await fetch(link, { method })).text();
    await visitor.goto(link);
    await visitor.goto(link);
    await visitor.getByRole('button', { name: 'Sign in on this browser' }).click();
    await visitor.getByRole('heading', { name: 'You are signed in' }).waitFor();

    const other = await browser.person();
    const second = await other.newPage();
    await second.goto(link);
    const button = second.getByRole('button', { name: 'Sign in on this browser' });
    if (await button.isVisible()) await button.click();
    await second.getByRole('heading', { level: 1 }).waitFor();
    assert.equal(await second.getByText('You are signed in').count(), 0);
  });

  test('known and unknown addresses get the same page', async () => {
    const stranger = await browser.person();
    const visitor = await stranger.newPage();
    await visitor.goto(gatehouse.base + '/login');
    const mark = gatehouse.log.length;
    await visitor.getByLabel('Email').fill('nobody@acme.example');
    await visitor.getByRole('button', { name: 'Print a sign-in link' }).click();
    await visitor.getByRole('heading', { name: 'Look in the server’s log' }).waitFor();
    assert.doesNotMatch(gatehouse.log.slice(mark), /login\/link/);
  });

  test('unknown apps and unregistered addresses get a page here, never a redirect (R305)', async () => {
    for (const change of [{ client_id: 'nobody' }, { redirect_uri: app.origin + '/elsewhere' }]) {
      const answer = await page.goto(app.address(change));
      assert.ok(answer.status() >= 400 && answer.status() < 500, `status ${answer.status()}`);
      assert.ok(page.url().startsWith(gatehouse.base));
      assert.match(await page.locator('footer').innerText(), /Reference\s+req_/);
    }
  });

  test('the page that opened us in a popup keeps its popup', async () => {
    await page.goto(app.origin + '/');
    const [popup] = await Promise.all([page.waitForEvent('popup'), page.evaluate((to) => { window.p = window.open(to, 'p', 'popup'); }, app.address())]);
    await box(popup).check();
    assert.equal(await page.evaluate(() => window.p.closed), false);
    await allow(popup).click();
    await popup.waitForURL(app.redirect + '*');
    assert.equal(await page.evaluate(() => window.p.closed), false);
    assert.ok((await app.answer(popup)).code);
  });

  test('the answer is shown only to the browser that was asked', async () => {
    await page.goto(app.address());
    await box(page).check();
    await allow(page).click();
    const { code } = await app.answer(page);
    await page.goBack();
    await page.getByRole('heading', { name: 'You already allowed' }).waitFor();
    const stranger = await browser.person();
    const answer = await (await stranger.newPage()).goto(page.url());
    assert.ok(!(await answer.text()).includes(code));
  });

  // own are the fields of the form on our own page.
  const own = () => page.locator('input[name]').evaluateAll((all) => all.map((i) => [i.name, i.value]));

  // Attack 60. The forms carry what our own pages would send, so that only where
  // they come from is wrong.
  for (const action of ['/login', '/login/link', '/consent', '/setup', '/logout', '/me/remove', '/me/stop', '/me/sign-out']) {
    for (const host of ['127.0.0.1', 'localhost']) {
      test(`a form on a foreign page at ${host} that posts to ${action} is refused`, async () => {
        await page.goto(action === '/consent' ? app.address() : gatehouse.base + '/login?switch=1');
        const fields = [...await own(), ['decision', 'allow'], ['code', 'AAAA-BBBB-CCCC'], ['token', 'lnk_x'], ['email', owner]];
        app.html = `<title>Win</title><form method="post" action="${gatehouse.base}${action}">
          ${fields.map(([name, value]) => `<input name="${name}" value="${value}">`).join('')}<button>Win a prize</button></form>`;
        await page.goto(app.origin.replace('127.0.0.1', host));
        const posted = page.waitForResponse((r) => r.request().method() === 'POST');
        await page.getByRole('button', { name: 'Win a prize' }).click();
        assert.equal((await posted).status(), 403);
        assert.equal(app.heard.length, 0);
      });
    }
  }

  test('an answer without the browser’s cookies is refused (attacks 60, 61)', async () => {
    await page.goto(app.address());
    const body = new URLSearchParams([...await own(), ['decision', 'allow']]);
    const answer = await fetch(gatehouse.base + '/consent', { method: 'POST', body, headers: { Origin: gatehouse.base }, redirect: 'manual' });
    assert.equal(answer.status, 403);
    assert.doesNotMatch(await answer.text(), /code=/);
  });
});
