// Engine.IO protocol, revision 4, clause by clause. docs/protocol.md says which clause each test covers.

import test from "node:test";
import assert from "node:assert/strict";
import { after } from "../harness/server.mjs";
import { exchange } from "../harness/http.mjs";
import { BRISK, Client, expectRefused, PING_INTERVAL_MS, PING_TIMEOUT_MS, Polling, settle, target, webSocketUrl, within } from "./support.mjs";

const server = await target("engine");
const brisk = await target("engine", BRISK);
const small = await target("engine", { "max-payload": "1000" });

const request = (query, options) => within(fetch(`${server.url}${server.path}?${query}`, options), "the request");

async function expectError(response, code, message) {
  assert.equal(response.status, 400);
  assert.equal(response.headers.get("content-type"), "application/json");
  assert.deepEqual(await response.json(), { code, message });
}

// -- handshake

test("a polling handshake opens a session", async () => {
  const response = await request("EIO=4&transport=polling");
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("content-type"), "text/plain; charset=UTF-8");
  const text = await response.text();
  assert.equal(text[0], "0");
  const { sid, ...rest } = JSON.parse(text.slice(1));
  assert.match(sid, /^[A-Za-z0-9_-]{16,}$/);
  assert.deepEqual(rest, { upgrades: ["websocket"], pingInterval: 25_000, pingTimeout: 20_000, maxPayload: 1_000_000 });
});

test("a WebSocket handshake opens a session", async () => {
  const client = await Client.open(server);
  const { sid, ...rest } = client.handshake;
  assert.equal(typeof sid, "string");
  assert.deepEqual(rest, { upgrades: [], pingInterval: 25_000, pingTimeout: 20_000, maxPayload: 1_000_000 });
  client.end();
});

test("the open packet tells the configured intervals and size", async () => {
  const polled = (await Polling.open(brisk)).handshake;
  assert.deepEqual([polled.pingInterval, polled.pingTimeout], [PING_INTERVAL_MS, PING_TIMEOUT_MS]);
  assert.equal((await Polling.open(small)).handshake.maxPayload, 1000);
});

test("session ids are not given twice", async () => {
  const sessions = await Promise.all(Array.from({ length: 50 }, () => Polling.open(server)));
  assert.equal(new Set(sessions.map(({ sid }) => sid)).size, 50);
});

test("a request without a transport is refused", async () => {
  await expectError(await request("EIO=4"), 0, "Transport unknown");
});

test("a request with an unknown transport is refused", async () => {
  await expectError(await request("EIO=4&transport=abc"), 0, "Transport unknown");
});

test("names that every object has are not transports or sessions", async () => {
  for (const name of ["__proto__", "constructor", "toString", "hasOwnProperty"]) {
    await expectError(await request(`EIO=4&transport=${name}`), 0, "Transport unknown");
    await expectError(await request(`EIO=4&transport=polling&sid=${name}`), 1, "Session ID unknown");
  }
});

test("a handshake by another method is refused", async () => {
  for (const method of ["POST", "PUT", "PATCH", "DELETE"]) {
    await expectError(await request("EIO=4&transport=polling", { method }), 2, "Bad handshake method");
  }
});

test("the WebSocket transport without an upgrade is refused", async () => {
  await expectError(await request("EIO=4&transport=websocket"), 3, "Bad request");
});

test("a version that is missing or unknown is taken for revision 3", async () => {
  for (const query of ["transport=polling", "EIO=abc&transport=polling", "EIO=5&transport=polling"]) {
    const response = await request(query);
    assert.equal(response.status, 200);
    assert.match(await response.text(), /^\d+:0\{/);
  }
});

test("a WebSocket without a transport is refused", async () => {
  await expectRefused(server, "EIO=4");
});

test("a WebSocket with an unknown transport is refused", async () => {
  await expectRefused(server, "EIO=4&transport=abc");
});

test("a request for an unknown session is refused", async () => {
  for (const method of ["GET", "POST"]) {
    await expectError(await request("EIO=4&transport=polling&sid=unknown", { method }), 1, "Session ID unknown");
  }
});

test("a WebSocket for an unknown session is refused", async () => {
  await expectRefused(server, "EIO=4&transport=websocket&sid=unknown");
});

test("further query parameters change nothing", async () => {
  const response = await request("t=abc&EIO=4&token=1&transport=polling&x=%20");
  assert.equal(response.status, 200);
  await response.text();
});

// -- messages over polling

test("polling carries a text message", async () => {
  const session = await Polling.open(server);
  await session.send("4hello");
  const response = await session.get();
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("content-type"), "text/plain; charset=UTF-8");
  assert.equal(await response.text(), "4hello");
});

test("polling carries several messages in one payload", async () => {
  const session = await Polling.open(server);
  await session.send("4test1\x1e4test2\x1e4test3");
  assert.deepEqual(await session.packets(3), ["4test1", "4test2", "4test3"]);
});

test("polling carries binary as base64 between text", async () => {
  const session = await Polling.open(server);
  await session.send("4hello\x1ebAQIDBA==\x1e4world");
  assert.deepEqual(await session.packets(3), ["4hello", "bAQIDBA==", "4world"]);
});

test("polling carries empty messages", async () => {
  const session = await Polling.open(server);
  await session.send("4\x1eb\x1e4x");
  assert.deepEqual(await session.packets(3), ["4", "b", "4x"]);
});

test("polling carries UTF-8", async () => {
  const session = await Polling.open(server);
  await session.send("4€ é 😀");
  assert.equal(await session.poll(), "4€ é 😀");
});

test("polling keeps the order over many posts", async () => {
  const session = await Polling.open(server);
  const messages = Array.from({ length: 20 }, (_, i) => `4${i}`);
  for (const message of messages) await session.send(message);
  assert.deepEqual(await session.packets(20), messages);
});

test("a post is answered ok as text/html and not stored", async () => {
  const session = await Polling.open(server);
  const response = await session.post("4a");
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("content-type"), "text/html");
  assert.equal(response.headers.get("content-length"), "2");
  assert.equal(response.headers.get("cache-control"), "no-store");
  assert.equal(await response.text(), "ok");
});

test("a poll waits until there is something to say", async () => {
  const session = await Polling.open(server);
  const pending = session.get();
  await settle(server);
  await session.send("4now");
  assert.equal(await (await pending).text(), "4now");
});

test("an invalid packet over polling ends the session", async () => {
  const session = await Polling.open(server);
  await session.post("abc").catch(() => {}); // the protocol says nothing of this answer
  await session.expectGone();
});

test("a second poll at the same time ends the session", async () => {
  const session = await Polling.open(server);
  const first = session.get();
  await settle(server);
  const second = await session.get();
  assert.equal(second.status, 400);
  assert.equal(await (await first).text(), "1");
  await session.expectGone();
});

test("a second post at the same time ends the session", async () => {
  const session = await Polling.open(server);
  const target = session.url().slice(session.server.url.length);
  const first = exchange(server.port, { method: "POST", target, headers: { "Content-Length": "100" }, body: "4begun" });
  await settle(server);
  const second = await session.post("4b");
  assert.equal(second.status, 400);
  await session.expectGone();
  first.abort();
});

test("a poll that the client gives up ends the session", async () => {
  const session = await Polling.open(server);
  const controller = new AbortController();
  const pending = session.get({ signal: controller.signal }).catch(() => {});
  await settle(server);
  controller.abort();
  await pending;
  await settle(server);
  await session.expectGone();
});

test("an octet-stream body is refused and ends the session", async () => {
  const session = await Polling.open(server);
  const response = await session.post(Uint8Array.of(4, 1, 2), { "content-type": "application/octet-stream" });
  assert.equal(response.status, 400);
  await session.expectGone();
});

test("a body over the size limit is refused with 413, and the session goes on", async () => {
  const session = await Polling.open(small);
  const response = await session.post(`4${"a".repeat(1000)}`);
  assert.equal(response.status, 413);
  await session.send(`4${"a".repeat(999)}`);
  assert.equal((await session.poll()).length, 1000);
});

test("other methods on a session change nothing", async () => {
  const session = await Polling.open(server);
  for (const method of ["PUT", "DELETE"]) {
    const response = await within(fetch(session.url(), { method }), method);
    assert.ok(response.status >= 400, `${method} was answered ${response.status}`);
  }
  await session.send("4still here");
  assert.equal(await session.poll(), "4still here");
});

// -- messages over WebSocket

test("WebSocket carries a text message", async () => {
  const client = await Client.open(server);
  client.send("4hello");
  assert.equal(await client.next(), "4hello");
  client.end();
});

test("WebSocket carries a binary message as it is", async () => {
  const client = await Client.open(server);
  client.send(Uint8Array.of(1, 2, 3, 4));
  assert.deepEqual(await client.next(), Buffer.of(1, 2, 3, 4));
  client.end();
});

test("WebSocket has one frame for each packet, in order", async () => {
  const client = await Client.open(server);
  for (const data of ["4a", "4b\x1e4c", Uint8Array.of(7), "4d"]) client.send(data);
  assert.deepEqual(await client.take(4), ["4a", "4b\x1e4c", Buffer.of(7), "4d"]);
  client.end();
});

test("an invalid packet over WebSocket ends the session", async () => {
  const client = await Client.open(server);
  client.send("abc");
  await client.expectClose();
});

test("a WebSocket message over the size limit closes with 1009", async () => {
  const client = await Client.open(small);
  client.send(`4${"a".repeat(1000)}`);
  assert.equal(await client.expectClose(), 1009);
});

// -- heartbeat

test("pings come over polling, and pongs keep the session", async () => {
  const session = await Polling.open(brisk);
  for (let i = 0; i < 3; i++) {
    assert.equal(await session.poll(), "2");
    await session.send("3");
  }
});

test("pings come over WebSocket, and pongs keep the session", async () => {
  const client = await Client.open(brisk);
  for (let i = 0; i < 3; i++) {
    assert.equal(await client.next(), "2");
    client.send("3");
  }
  client.end();
});

test("a ping does not come before its interval", async () => {
  const started = Date.now();
  const client = await Client.open(brisk);
  assert.equal(await client.next(), "2");
  // timers are rounded to milliseconds on both sides
  assert.ok(Date.now() - started >= PING_INTERVAL_MS - 5);
  client.end();
});

test("a polling session that owes a pong is closed", async () => {
  const session = await Polling.open(brisk);
  assert.equal(await session.poll(), "2");
  assert.equal(await session.poll(), "1");
  await session.expectGone();
});

test("a polling session that nobody polls is closed", async () => {
  const session = await Polling.open(brisk);
  await after(PING_INTERVAL_MS + PING_TIMEOUT_MS + 100);
  await session.expectGone();
});

test("a WebSocket session that owes a pong is closed", async () => {
  const client = await Client.open(brisk);
  assert.equal(await client.next(), "2");
  await client.expectClose();
});

test("a ping from the client ends the session", async () => {
  const client = await Client.open(server);
  client.send("2");
  await client.expectClose();
  const session = await Polling.open(server);
  await session.post("2").catch(() => {});
  await session.expectGone();
});

// -- close

test("a close packet over polling ends the session and its pending poll", async () => {
  const session = await Polling.open(server);
  const pending = session.get();
  await settle(server);
  await session.send("1");
  const response = await pending;
  assert.equal(response.status, 200);
  assert.equal(await response.text(), "6");
  await session.expectGone();
});

test("a close packet over WebSocket ends the session", async () => {
  // on the brisk server, because the reference leaves it to the heartbeat
  const client = await Client.open(brisk);
  client.send("1");
  await client.expectClose();
});

test("a WebSocket that is closed ends the session", async () => {
  const client = await Client.open(server);
  const { sid } = client.handshake;
  client.socket.close();
  assert.equal(await client.expectClose(), 1005);
  await settle(server);
  await new Polling(server, { sid }).expectGone();
});

// -- upgrade

test("a session upgrades from polling to WebSocket", async () => {
  const session = await Polling.open(server);
  const client = await session.upgraded();
  await client.expectEcho();
  client.end();
});

test("a poll that is pending at the probe is answered with a noop", async () => {
  const session = await Polling.open(server);
  const pending = session.get();
  await settle(server);
  const client = await session.upgrade();
  client.send("2probe");
  assert.equal(await client.next(), "3probe");
  assert.equal(await (await pending).text(), "6");
  client.send("5");
  await client.expectEcho();
  client.end();
});

test("a poll that comes after the probe is answered with a noop", async () => {
  const session = await Polling.open(server);
  const client = await session.upgrade();
  client.send("2probe");
  assert.equal(await client.next(), "3probe");
  assert.equal(await session.poll(), "6");
  assert.equal(await session.poll(), "6");
  client.send("5");
  await client.expectEcho();
  client.end();
});

test("packets that were not polled follow over the WebSocket", async () => {
  const session = await Polling.open(server);
  await session.send("4before\x1ebAQI=");
  const client = await session.upgrade();
  client.send("2probe");
  assert.equal(await client.next(), "3probe");
  await session.send("4within");
  client.send("5");
  client.send("4after");
  assert.deepEqual(await client.take(4), ["4before", Buffer.of(1, 2), "4within", "4after"]);
  client.end();
});

test("HTTP requests after the upgrade are refused, and the session goes on", async () => {
  const session = await Polling.open(server);
  const client = await session.upgraded();
  await client.expectEcho();
  await expectError(await session.get(), 3, "Bad request");
  await expectError(await session.post("4a"), 3, "Bad request");
  await client.expectEcho();
  client.end();
});

test("a second WebSocket after the upgrade is closed, and the session goes on", async () => {
  const session = await Polling.open(server);
  const client = await session.upgraded();
  await client.expectEcho();
  const second = await session.upgrade();
  await second.expectClose();
  await client.expectEcho();
  client.end();
});

test("a second WebSocket during the upgrade is closed, and the upgrade goes on", async () => {
  const session = await Polling.open(server);
  const client = await session.upgrade();
  client.send("2probe");
  assert.equal(await client.next(), "3probe");
  const second = await session.upgrade();
  await second.expectClose();
  client.send("5");
  await client.expectEcho();
  client.end();
});

test("a second WebSocket for a WebSocket session is closed", async () => {
  const client = await Client.open(server);
  const second = new Client(webSocketUrl(server, `EIO=4&transport=websocket&sid=${client.handshake.sid}`));
  second.socket.on("error", () => {});
  second.socket.on("open", () => second.send("4not a probe"));
  await second.expectClose();
  await client.expectEcho();
  client.end();
});

test("a probe that fails leaves the session on polling", async () => {
  const session = await Polling.open(server);
  await session.send("4queued");
  const client = await session.upgrade();
  client.send("4not a probe");
  await client.expectClose();
  assert.equal(await session.poll(), "4queued");
  await session.send("4still here");
  assert.equal(await session.poll(), "4still here");
});

test("heartbeats go on after the upgrade", async () => {
  const session = await Polling.open(brisk);
  const client = await session.upgraded();
  for (let i = 0; i < 2; i++) {
    assert.equal(await client.next(), "2");
    client.send("3");
  }
  assert.equal(await client.next(), "2");
  await client.expectClose();
});
