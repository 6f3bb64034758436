// What the protocol suites share: the server under test, polling with fetch, and a WebSocket whose messages can be awaited.
//
// TARGET=reference tests the reference servers, which proves the tests right; otherwise Bowline's examples are tested, named by
// ENGINE_ECHO_BIN and SOCKET_SUITE_BIN.

import { after as afterAll } from "node:test";
import assert from "node:assert/strict";
import WebSocket from "ws";
import { after, before, serverCommand, startServer } from "../harness/server.mjs";

/** Within this a server has answered, or the test fails. */
const DEADLINE_MS = 5_000;

/** The intervals of the `brisk` servers, where the tests wait for heartbeats. */
export const PING_INTERVAL_MS = 300;
export const PING_TIMEOUT_MS = 200;
export const BRISK = { "ping-interval": `${PING_INTERVAL_MS}ms`, "ping-timeout": `${PING_TIMEOUT_MS}ms` };

/** Starts the server of this kind for all tests of a file. */
export async function target(kind, flags = {}) {
  const side = process.env.TARGET === "reference" ? "reference" : "bowline";
  const server = await startServer(serverCommand(kind, side), flags);
  afterAll(() => server.stop());
  return server;
}

/** Fails a wait that lasts too long, and says which. */
export async function within(promise, what, ms = DEADLINE_MS) {
  const late = Symbol();
  const result = await before(ms, promise, late);
  assert.notEqual(result, late, `${what}: nothing within ${ms} ms`);
  return result;
}

/** The session of a polling client. */
export class Polling {
  constructor(server, { eio = 4, query = "", sid } = {}) {
    this.server = server;
    this.eio = eio;
    this.query = query;
    this.sid = sid;
  }

  static async open(server, options) {
    const session = new Polling(server, options);
    const response = await session.get();
    assert.equal(response.status, 200);
    session.first = await response.text();
    session.handshake = JSON.parse(/\{.*?\}/s.exec(session.first)[0]);
    session.sid = session.handshake.sid;
    return session;
  }

  url(transport = "polling") {
    const sid = this.sid === undefined ? "" : `&sid=${this.sid}`;
    return `${this.server.url}${this.server.path}?EIO=${this.eio}&transport=${transport}${sid}${this.query}`;
  }

  get(options) {
    return within(fetch(this.url(), options), "GET");
  }

  post(body, headers) {
    return within(fetch(this.url(), { method: "POST", body, headers }), "POST");
  }

  /** Posts, and expects it to be taken. */
  async send(body, headers) {
    const response = await this.post(body, headers);
    assert.equal(response.status, 200);
    assert.equal(await response.text(), "ok");
  }

  /** Gets, and expects a payload. */
  async poll() {
    const response = await this.get();
    assert.equal(response.status, 200);
    return response.text();
  }

  /** Polls EIO 4 payloads until `count` packets have come; a server may hand them over in several answers. */
  async packets(count) {
    const packets = [];
    while (packets.length < count) packets.push(...(await this.poll()).split("\x1e"));
    return packets;
  }

  /** Expects the session to be unknown. */
  async expectGone() {
    const response = await this.get();
    assert.equal(response.status, 400);
    assert.deepEqual(await response.json(), { code: 1, message: "Session ID unknown" });
  }

  /** A WebSocket for this session: the first step of an upgrade. */
  upgrade() {
    return Client.connect(this.url("websocket").replace("http:", "ws:"));
  }

  /** The whole upgrade: probe, answer, upgrade packet. */
  async upgraded() {
    const client = await this.upgrade();
    client.send("2probe");
    assert.equal(await client.next(), "3probe");
    client.send("5");
    return client;
  }
}

/** A WebSocket whose messages and close are awaited one by one. Text is a string, binary a Buffer. */
export class Client {
  #messages = [];
  #waiting = [];

  constructor(url) {
    this.socket = new WebSocket(url, { perMessageDeflate: false });
    this.opened = new Promise((resolve, reject) => {
      this.socket.once("open", resolve);
      this.socket.once("error", reject);
    });
    this.opened.catch(() => {}); // a refused handshake is also seen as a close
    this.closed = new Promise((resolve) => this.socket.once("close", (code) => resolve(code)));
    this.socket.on("message", (data, isBinary) => {
      const message = isBinary ? data : data.toString();
      const waiting = this.#waiting.shift();
      if (waiting) waiting(message);
      else this.#messages.push(message);
    });
  }

  static async connect(url) {
    const client = new Client(url);
    await within(client.opened, "WebSocket handshake");
    return client;
  }

  /** A WebSocket-only session; its open packet is in `handshake`. */
  static async open(server, { eio = 4, query = "" } = {}) {
    const client = await Client.connect(webSocketUrl(server, `EIO=${eio}&transport=websocket${query}`));
    const packet = await client.next();
    assert.equal(packet[0], "0");
    client.handshake = JSON.parse(packet.slice(1));
    return client;
  }

  send(data) {
    this.socket.send(data);
  }

  next() {
    if (this.#messages.length) return Promise.resolve(this.#messages.shift());
    const message = new Promise((resolve) => this.#waiting.push(resolve));
    const ended = this.closed.then((code) => assert.fail(`closed with ${code} where a message was awaited`));
    return within(Promise.race([message, ended]), "a message");
  }

  async take(count) {
    const messages = [];
    while (messages.length < count) messages.push(await this.next());
    return messages;
  }

  /** Waits until the server has closed the connection. */
  expectClose() {
    return within(this.closed, "the close");
  }

  /** Proves that the session is alive by an echo of the engine server. */
  async expectEcho(text = "4are you there?") {
    this.send(text);
    assert.equal(await this.next(), text);
  }

  end() {
    this.socket.terminate();
  }
}

export function webSocketUrl(server, query) {
  return `ws://127.0.0.1:${server.port}${server.path}?${query}`;
}

/** Expects that a WebSocket handshake is refused or closed at once. */
export async function expectRefused(server, query) {
  const client = new Client(webSocketUrl(server, query));
  client.socket.on("error", () => {});
  await client.expectClose();
}

/** Makes sure that a request that is answered only later has reached the server; the server shows nothing of it. */
export async function settle(server) {
  await (await fetch(`${server.url}/health/live`)).text();
  await after(30);
}
