// Engine.IO protocol, revision 3 (clients of Socket.IO 1 and 2), clause by clause. docs/protocol.md says which clause each test
// covers.

import test from "node:test";
import assert from "node:assert/strict";
import { after } from "../harness/server.mjs";
import { BRISK, Client, expectRefused, PING_INTERVAL_MS, PING_TIMEOUT_MS, Polling, settle, target, within } from "./support.mjs";

const server = await target("engine");
const brisk = await target("engine", BRISK);

const EIO3 = { eio: 3 };
const BASE64 = { eio: 3, query: "&b64=1" };
const request = (query, options) => within(fetch(`${server.url}${server.path}?${query}`, options), "the request");

// -- handshake

test("a polling handshake opens a session", async () => {
  const response = await request("EIO=3&transport=polling");
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("content-type"), "text/plain; charset=UTF-8");
  const text = await response.text();
  const colon = text.indexOf(":");
  const packet = text.slice(colon + 1);
  assert.equal(Number(text.slice(0, colon)), packet.length);
  assert.equal(packet[0], "0");
  const { sid, ...rest } = JSON.parse(packet.slice(1));
  assert.equal(typeof sid, "string");
  assert.deepEqual(rest, { upgrades: ["websocket"], pingInterval: 25_000, pingTimeout: 20_000, maxPayload: 1_000_000 });
});

test("a WebSocket handshake opens a session", async () => {
  const client = await Client.open(server, EIO3);
  const { sid, ...rest } = client.handshake;
  assert.equal(typeof sid, "string");
  assert.deepEqual(rest, { upgrades: [], pingInterval: 25_000, pingTimeout: 20_000, maxPayload: 1_000_000 });
  client.end();
});

test("a missing or unknown transport is refused", async () => {
  for (const query of ["EIO=3", "EIO=3&transport=abc"]) {
    const response = await request(query);
    assert.equal(response.status, 400);
    assert.deepEqual(await response.json(), { code: 0, message: "Transport unknown" });
  }
});

test("a handshake by another method is refused", async () => {
  const response = await request("EIO=3&transport=polling", { method: "POST" });
  assert.equal(response.status, 400);
  assert.deepEqual(await response.json(), { code: 2, message: "Bad handshake method" });
});

test("a WebSocket with a missing or unknown transport is refused", async () => {
  await expectRefused(server, "EIO=3");
  await expectRefused(server, "EIO=3&transport=abc");
});

test("a session does not change its revision", async () => {
  const session = await Polling.open(server, EIO3);
  const response = await request(`EIO=4&transport=polling&sid=${session.sid}`);
  assert.equal(response.status, 400);
  await session.send("6:4hello");
  assert.equal(await session.poll(), "6:4hello");
});

// -- payloads

test("polling carries a text message", async () => {
  const session = await Polling.open(server, EIO3);
  await session.send("6:4hello");
  assert.equal(await session.poll(), "6:4hello");
});

test("polling carries several messages in one payload", async () => {
  const session = await Polling.open(server, EIO3);
  await session.send("6:4test16:4test26:4test3");
  assert.equal(await session.poll(), "6:4test16:4test26:4test3");
});

test("lengths count characters as UTF-16 has them", async () => {
  const session = await Polling.open(server, EIO3);
  await session.send("2:4€3:4😀");
  assert.equal(await session.poll(), "2:4€3:4😀");
});

test("binary is base64 for a client that asked for it", async () => {
  const session = await Polling.open(server, BASE64);
  await session.send("6:4hello10:b4AQIDBA==");
  assert.equal(await session.poll(), "6:4hello10:b4AQIDBA==");
});

test("binary makes the payload binary for a client that takes it", async () => {
  const session = await Polling.open(server, EIO3);
  await session.send("6:4hello10:b4AQIDBA==");
  const response = await session.get();
  assert.equal(response.headers.get("content-type"), "application/octet-stream");
  const payload = Buffer.from(await response.arrayBuffer());
  assert.deepEqual(payload, Buffer.concat([Buffer.of(0, 6, 255), Buffer.from("4hello"), Buffer.of(1, 5, 255, 4, 1, 2, 3, 4)]));
});

test("a payload without binary stays text for a client that takes binary", async () => {
  const session = await Polling.open(server, EIO3);
  await session.send("2:4€");
  const response = await session.get();
  assert.equal(response.headers.get("content-type"), "text/plain; charset=UTF-8");
  assert.equal(await response.text(), "2:4€");
});

test("a binary payload from the client is understood", async () => {
  const session = await Polling.open(server, BASE64);
  const payload = Buffer.concat([Buffer.of(0, 6, 255), Buffer.from("4hello"), Buffer.of(1, 5, 255, 4, 1, 2, 3, 4)]);
  await session.send(payload, { "content-type": "application/octet-stream" });
  assert.equal(await session.poll(), "6:4hello10:b4AQIDBA==");
});

test("a binary length has one byte for each digit", async () => {
  const session = await Polling.open(server, EIO3);
  const payload = Buffer.concat([Buffer.of(1, 2, 0, 1, 255, 4), Buffer.alloc(200, 7)]);
  await session.send(payload, { "content-type": "application/octet-stream" });
  assert.deepEqual(Buffer.from(await (await session.get()).arrayBuffer()), payload);
});

test("an invalid payload ends the session", async () => {
  const bad = ["abc", "10:4hello", "2:9x", ""];
  for (const body of bad) {
    const session = await Polling.open(server, EIO3);
    await session.post(body).catch(() => {}); // the protocol says nothing of this answer
    await session.expectGone();
  }
});

test("a second poll at the same time ends the session", async () => {
  const session = await Polling.open(server, EIO3);
  const first = session.get();
  await settle(server);
  assert.equal((await session.get()).status, 400);
  assert.equal(await (await first).text(), "1:1");
  await session.expectGone();
});

// -- JSONP

test("JSONP answers are JavaScript that calls the numbered function", async () => {
  const response = await request("EIO=3&transport=polling&j=4");
  const text = await response.text();
  assert.match(text, /^___eio\[4\]\("\d+:0\{\\"sid\\":.*\}"\);$/);
  const session = new Polling(server, { eio: 3, query: "&j=4", sid: /\\"sid\\":\\"([^\\]+)/.exec(text)[1] });
  const payload = '6:4"\u2028</é';
  await session.send(`d=${encodeURIComponent(payload)}`, { "content-type": "application/x-www-form-urlencoded" });
  const calls = [];
  new Function("___eio", await session.poll())({ 4: (argument) => calls.push(argument) });
  assert.deepEqual(calls, [payload]);
});

test("JSONP forms carry escaped newlines", async () => {
  const opening = await (await request("EIO=3&transport=polling&j=0")).text();
  const session = new Polling(server, { eio: 3, query: "&j=0", sid: /\\"sid\\":\\"([^\\]+)/.exec(opening)[1] });
  const form = { "content-type": "application/x-www-form-urlencoded" };
  await session.send("d=" + encodeURIComponent("4:4a\\nb"), form);
  assert.equal(await session.poll(), '___eio[0]("4:4a\\nb");');
});

// -- WebSocket

test("WebSocket carries a text message", async () => {
  const client = await Client.open(server, EIO3);
  await client.expectEcho("4hello");
  client.end();
});

test("WebSocket binary begins with the type of the packet", async () => {
  const client = await Client.open(server, EIO3);
  client.send(Uint8Array.of(4, 1, 2, 3, 4));
  assert.deepEqual(await client.next(), Buffer.of(4, 1, 2, 3, 4));
  client.end();
});

test("WebSocket packets are not gathered in payloads", async () => {
  const client = await Client.open(server, EIO3);
  client.send("4a");
  client.send("4b");
  assert.deepEqual(await client.take(2), ["4a", "4b"]);
  client.end();
});

test("an invalid packet over WebSocket ends the session", async () => {
  const client = await Client.open(server, EIO3);
  client.send("abc");
  await client.expectClose();
});

// -- heartbeat: the client asks

test("a ping over polling is answered with a pong", async () => {
  const session = await Polling.open(brisk, EIO3);
  for (let i = 0; i < 3; i++) {
    await session.send("1:2");
    assert.equal(await session.poll(), "1:3");
  }
});

test("a ping over WebSocket is answered with a pong", async () => {
  const client = await Client.open(brisk, EIO3);
  for (let i = 0; i < 3; i++) {
    client.send("2");
    assert.equal(await client.next(), "3");
  }
  client.end();
});

test("pings keep a session beyond interval and timeout", async () => {
  const client = await Client.open(brisk, EIO3);
  const until = Date.now() + 2 * (PING_INTERVAL_MS + PING_TIMEOUT_MS);
  while (Date.now() < until) {
    await after(PING_INTERVAL_MS / 2);
    client.send("2");
    assert.equal(await client.next(), "3");
  }
  client.end();
});

test("a silent polling session is closed", async () => {
  const session = await Polling.open(brisk, EIO3);
  await after(PING_INTERVAL_MS + PING_TIMEOUT_MS + 100);
  assert.equal((await session.post("1:2")).status, 400);
});

test("a silent WebSocket session is closed", async () => {
  const client = await Client.open(brisk, EIO3);
  await client.expectClose();
});

// -- close

test("a close packet over polling ends the session and its pending poll", async () => {
  const session = await Polling.open(server, EIO3);
  const pending = session.get();
  await settle(server);
  await session.send("1:1");
  assert.equal(await (await pending).text(), "1:6");
  await session.expectGone();
});

test("a close packet over WebSocket ends the session", async () => {
  const client = await Client.open(brisk, EIO3);
  client.send("1");
  await client.expectClose();
});

// -- upgrade

test("a session upgrades from polling to WebSocket", async () => {
  const session = await Polling.open(server, EIO3);
  const client = await session.upgraded();
  await client.expectEcho();
  client.end();
});

test("a poll in the upgrade window is answered with a noop", async () => {
  const session = await Polling.open(server, EIO3);
  const client = await session.upgrade();
  client.send("2probe");
  assert.equal(await client.next(), "3probe");
  assert.equal(await session.poll(), "1:6");
  client.send("5");
  await client.expectEcho();
  client.end();
});

test("packets that were not polled follow over the WebSocket", async () => {
  const session = await Polling.open(server, EIO3);
  await session.send("7:4before10:b4AQIDBA==");
  const client = await session.upgraded();
  assert.deepEqual(await client.take(2), ["4before", Buffer.of(4, 1, 2, 3, 4)]);
  client.end();
});

test("HTTP requests after the upgrade are refused", async () => {
  const session = await Polling.open(server, EIO3);
  const client = await session.upgraded();
  await client.expectEcho();
  assert.equal((await session.get()).status, 400);
  await client.expectEcho();
  client.end();
});

test("a second WebSocket after the upgrade is closed", async () => {
  const session = await Polling.open(server, EIO3);
  const client = await session.upgraded();
  await client.expectEcho();
  const second = await session.upgrade();
  await second.expectClose();
  await client.expectEcho();
  client.end();
});
