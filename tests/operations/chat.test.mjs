// The chat examples as a newcomer runs them, in a real browser: two people in two tabs, and what happens when the app or the gateway goes away.
// `BROWSER_PICTURES=DIR` keeps pictures of it.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { startBrowser } from "../harness/browser.mjs";
import { eventually, run } from "../harness/programs.mjs";
import { freePort } from "../harness/server.mjs";
import { startGateway } from "./gateway.mjs";

const EXAMPLES = fileURLToPath(new URL("../../examples/", import.meta.url));
/** The first run installs packages. */
const INSTALL_MS = 240_000;

let browser;
before(async () => (browser = await startBrowser()));
after(() => browser?.stop());

for (const name of ["chat-python", "chat-node"]) {
  test(`${name}: two tabs talk, see each other, type, change rooms, read what was said before, and get a notice`, async (t) => {
    const chat = await startChat(t, name);
    const [ada, bob] = [await join(chat, "Ada"), await join(chat, "Bob")];
    await shows(ada, "#people", /Ada\s+you\s+B\s+Bob/);
    await shows(ada, "#count", /^2 people$/);
    await shows(ada, "#state", /connected over WebSocket/);

    await bob.locator("#text").pressSequentially("Hello");
    await shows(ada, "#typing", /Bob is typing/);
    await browser.picture(ada, `${name}-typing`);
    await bob.locator("#text").press("Enter");
    await shows(ada, ".message:last-child", /Bob[^]*Hello/);
    await shows(ada, "#typing", /^$/);
    await say(ada, "<b>Hi</b> & welcome");
    await shows(bob, ".message:last-child p", /^<b>Hi<\/b> & welcome$/);

    // In another room one is seen, not heard; who comes back reads what was said.
    await bob.getByRole("button", { name: "kitchen" }).click();
    await shows(bob, "#log", /Nobody has said anything in #kitchen yet/);
    await shows(ada, "#count", /^1 person$/);
    await shows(ada, "#rooms", /lounge\s*1\s*#?kitchen\s*1/i);
    await say(ada, "only in the lounge");
    await say(bob, "only in the kitchen");
    await bob.getByRole("button", { name: "lounge" }).click();
    await shows(bob, ".message:last-child p", /^only in the lounge$/);
    assert.deepEqual(await texts(bob), ["Hello", "<b>Hi</b> & welcome", "only in the lounge"]);
    const zoe = await join(chat, "Zoë");
    assert.deepEqual(await texts(zoe), await texts(bob));

    const notify = (text, room) => promisify(execFile)(`${EXAMPLES}notify/notify`, [text], { env: { ...process.env, ADMIN: `http://127.0.0.1:${chat.gateway.admin}`, ROOM: room } });
    assert.match((await notify('Lunch is "ready"')).stdout, /"receivers":3/);
    await shows(zoe, ".notice", /^Lunch is "ready"$/);
    await zoe.getByRole("button", { name: "garden" }).click();
    await shows(zoe, "#room", /garden/i);
    await shows(ada, "#count", /^2 people$/);
    assert.match((await notify("The roses too", "room:garden")).stdout, /"receivers":1/);
    await shows(zoe, ".notice", /^The roses too$/);

    await zoe.close();
    await shows(ada, "#rooms", /garden$/i);
    await browser.picture(ada, `${name}-talk`);
    assert.deepEqual(browser.complaints, []);
  });

  test(`${name}: who loses the connection is away, comes back as the same and misses nothing; who closes the tab is gone`, async (t) => {
    const chat = await startChat(t, name);
    const [ada, bob] = [await join(chat, "Ada"), await join(chat, "Bob")];
    await shows(ada, "#count", /^2 people$/);
    const sids = async () => (await chat.gateway.api("/api/v1/sockets")).json.sockets.map(({ sid }) => sid).toSorted();
    const before = await sids();
    assert.equal(before.length, 2);

    for (const round of [1, 2]) {
      const online = await offline(bob);
      await shows(bob, "#state", /trying again/);
      await shows(ada, "#count", /^2 people, 1 away$/);
      await shows(ada, "#people", /Ada\s+you\s+B\s+Bob\s+away/);
      await say(ada, `first ${round}`);
      await say(ada, `second ${round}`);
      await shows(ada, ".message:last-child p", new RegExp(`^second ${round}$`));
      await browser.picture(ada, `${name}-away`);
      await online();
      await shows(bob, "#state", /connected/);
      await shows(bob, ".message:last-child p", new RegExp(`^second ${round}$`));
      await shows(ada, "#count", /^2 people$/);
      await shows(bob, "#count", /^2 people$/);
    }
    assert.deepEqual(await texts(bob), ["first 1", "second 1", "first 2", "second 2"]);
    assert.deepEqual(await sids(), before);

    await bob.close();
    await shows(ada, "#count", /^1 person$/);
  });
}

test("chat-python: nobody but Bowline is heard, and a name is asked for", async (t) => {
  const chat = await startChat(t, "chat-python");
  const body = JSON.stringify({ type: "event", namespace: "/", sid: "x", rooms: [], data: { name: "Eve", room: "lounge" }, event: "say", args: ["boo"], ack: false });
  const post = (headers) => fetch(`${chat.url}bowline`, { method: "POST", body, headers: { "content-type": "application/json", ...headers } });
  assert.equal((await post({})).status, 401);
  const forged = { "webhook-id": "1", "webhook-timestamp": String(Math.floor(Date.now() / 1000)), "webhook-signature": "v1,AAAA" };
  assert.equal((await post(forged)).status, 401);

  const tab = await open(chat);
  await tab.fill("#name", " ");
  await tab.click("#join button");
  await shows(tab, "#refused", /Please say a name/);
  await tab.fill("#name", "Eve");
  await tab.click("#join button");
  await shows(tab, "#log", /Nobody has said anything/);
  // A refused client closes its session, and a poll of its that is on the way then may find none.
  const others = browser.complaints.filter((complaint) => !/400 .*transport=polling.*sid=/.test(complaint));
  assert.deepEqual(others, []);
});

test("chat-python: without the app people stay and are told, without the gateway they come back and miss nothing", async (t) => {
  const chat = await startChat(t, "chat-python");
  const [ada, bob] = [await join(chat, "Ada"), await join(chat, "Bob")];
  await say(ada, "before");
  await shows(bob, ".message:last-child p", /^before$/);

  const zoe = await open(chat);
  await chat.app.stop();
  await say(ada, "to nobody");
  await zoe.fill("#name", "Zoë");
  await zoe.click("#join button");
  await shows(ada, ".failed", /to nobody[^]*Not sent: [^.]*\. *Try again/);
  await shows(ada, "#state", /connected/);
  await browser.picture(ada, "outage-app");
  await shows(zoe, "#refused", /Trying again/);
  await browser.picture(zoe, "outage-door");
  await chat.startApp();
  await ada.getByRole("button", { name: "Try again" }).click();
  await shows(bob, ".message:last-child p", /^to nobody$/);
  await eventually("nothing to be marked as failed", async () => (await ada.locator(".failed").count()) === 0);
  await shows(zoe, "#log", /to nobody/);
  await zoe.close();

  await chat.gateway.stop();
  await shows(ada, "#state", /trying again/);
  await browser.picture(ada, "outage-gateway");
  await chat.startGateway();
  for (const tab of [ada, bob]) {
    await shows(tab, "#state", /connected/);
    await shows(tab, "#count", /^2 people$/);
  }
  await say(bob, "after");
  await shows(ada, ".message:last-child p", /^after$/);
  assert.deepEqual(await texts(ada), ["before", "to nobody", "after"]);
});

/** The example's app by its `run`, and Bowline with the example's file, but on free ports. */
async function startChat(t, name) {
  const [appPort, port, admin] = [await freePort(), await freePort(), await freePort()];
  const chat = {
    tabs: [],
    url: `http://127.0.0.1:${appPort}/`,
    async startApp() {
      const env = { CHAT_PORT: String(appPort), BOWLINE_URL: `http://127.0.0.1:${port}`, BOWLINE_ADMIN: `http://127.0.0.1:${admin}` };
      chat.app = await run(`${EXAMPLES}${name}/run`, [], { port: appPort, env, patience: INSTALL_MS });
    },
    async startGateway() {
      const file = readFileSync(`${EXAMPLES}${name}/bowline.toml`, "utf8");
      assert.ok(file.includes("127.0.0.1:5050") && file.includes('"secret"'), "the example's file is not what this test knows");
      const toml = file.replaceAll("127.0.0.1:5050", `127.0.0.1:${appPort}`).replace('"secret"', JSON.stringify(`${EXAMPLES}${name}/secret`));
      chat.gateway = await startGateway({ toml, port, admin });
    },
  };
  // The tabs first: what the others' end does to them is no complaint.
  t.after(async () => {
    await Promise.all(chat.tabs.map((tab) => tab.close()));
    await chat.gateway?.stop();
    await chat.app?.stop();
  });
  browser.complaints.length = 0;
  await chat.startApp();
  await chat.startGateway();
  return chat;
}

async function open(chat) {
  const tab = await browser.tab(chat.url);
  chat.tabs.push(tab);
  await tab.locator("#join button:enabled").waitFor();
  return tab;
}

async function join(chat, name) {
  const tab = await open(chat);
  await tab.fill("#name", name);
  await tab.click("#join button");
  await shows(tab, "#log", /./);
  return tab;
}

/** Takes a tab off the network, and returns what puts it back. */
async function offline(tab) {
  const tools = await tab.context().newCDPSession(tab);
  const set = (offline) => tools.send("Network.emulateNetworkConditions", { offline, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
  await tools.send("Network.enable");
  await set(true);
  return () => set(false);
}

async function say(tab, text) {
  await tab.fill("#text", text);
  await tab.press("#text", "Enter");
}

const texts = (tab) => tab.locator(".message p").allInnerTexts();

/** Waits until the text of an element is as wanted. */
async function shows(tab, selector, wanted) {
  let seen;
  const matches = async () => wanted.test((seen = (await tab.locator(selector).innerText({ timeout: 1000 })).trim()));
  await eventually(`${selector} shows ${wanted}`, matches).catch((error) => {
    throw new Error(`${error.message}; it shows ${JSON.stringify(seen)}`);
  });
}
