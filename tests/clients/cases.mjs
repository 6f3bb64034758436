// What every client must be able to do over every transport. A case gets a `Cell`: one client
// version, one transport, one server of its own.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

import { Manager as Manager4 } from "socket.io-client";
import client2 from "socket.io-client-v2";

// Milliseconds that a condition may take. Far more than it needs: a deadline, not a figure.
const DEADLINE = 60_000;

const MANAGERS = { 4: Manager4, 2: client2.Manager };

// How each kind of connection is asked for.
const TRANSPORTS = {
  polling: { transports: ["polling"] },
  websocket: { transports: ["websocket"] },
  upgrade: { transports: ["polling", "websocket"] },
  deflate: { transports: ["websocket"], perMessageDeflate: { threshold: 0 } },
};

/** A client version and a transport, with a running server and the clients opened in one case. */
export class Cell {
  #managers = [];

  constructor(target, version, transport) {
    this.target = target;
    this.version = version;
    this.transport = transport;
  }

  /** A manager, that is one Engine.IO connection, which connects by itself. */
  manager(options = {}) {
    const manager = new MANAGERS[this.version](this.target.url, {
      ...TRANSPORTS[this.transport],
      reconnectionDelay: 50,
      reconnectionDelayMax: 200,
      ...options,
    });
    this.#managers.push(manager);
    return manager;
  }

  /** A connected socket of a namespace on a connection of its own, or on the given one. */
  async open(namespace = "/", manager = this.manager()) {
    const socket = manager.socket(namespace);
    await until(() => socket.connected, `${namespace} to be connected`);
    return socket;
  }

  /** A socket of `/relay`, once nobody else is left there. */
  async openRelayAlone() {
    const socket = await this.open("/relay");
    let receivers;
    const ask = () => socket.emit("settle", (answer) => ({ receivers } = answer));
    const asking = setInterval(ask, 50);
    try {
      await until(() => receivers === 1, "the sockets of other cases to be gone");
    } finally {
      clearInterval(asking);
    }
    return socket;
  }

  /** Closes everything that the case opened. */
  closeAll() {
    for (const manager of this.#managers.splice(0)) {
      manager.reconnection(false);
      if (this.version === 4) manager._close();
      else manager.close();
    }
  }
}

export const CASES = {
  "echo text": async (cell) => {
    const socket = await cell.open();
    const sent = [
      ["text", "hello"],
      ["no arguments"],
      ["several", 1, -2.5, true, false, null, "", [], {}],
      ["nested", { a: [{ b: { c: [1, [2, [3]]] } }], "": 0, "d e": "\n\t\\\"/" }],
      ["big numbers", 9007199254740991, 1e300, -0.000001],
      ["a placeholder that is none", { _placeholder: "yes", num: "0" }],
    ];
    await echoes(socket, sent);
  },

  "echo unicode": async (cell) => {
    const socket = await cell.open();
    const words = [
      "ünïcödé", "событие", "日本語", "مرحبا", "🪢 knot 👩‍👩‍👧‍👦", "\u2028 and \u2029", "nul \u0000 in", "\u001e",
      "\ufeffbom", "a\u0300", "\u{10ffff}", "\ud800 alone", "\u007f\u0080\u0085", "</script>", "4:6:b4",
    ];
    // A lone surrogate has no UTF-8 form: JSON escapes it, and only an event's name is unescaped.
    const names = words.filter((word) => !/\ud800/.test(word));
    await echoes(socket, words.map((word) => ["words", word, { [word]: word }]));
    await echoes(socket, names.map((name) => [name, name]));
  },

  "echo binary": async (cell) => {
    const socket = await cell.open();
    const all = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    await echoes(socket, [
      ["one", Buffer.from([1, 2, 3])],
      ["first", Buffer.from([4]), "then text", 5],
      ["nested", { a: { b: [all, { c: Buffer.from([0x1e, 0, 0xff]) }] }, d: "text" }],
      ["several", ...Array.from({ length: 10 }, (_, i) => Buffer.alloc(i + 1, i))],
      ["empty", Buffer.alloc(0), "rest"],
      ["twice the same", all, all],
      ["text between", "b4", Buffer.from("4"), "b", Buffer.from("b")],
      ["larger", Buffer.alloc(70_000, 7)],
    ]);
  },

  "acks of client events": async (cell) => {
    const socket = await cell.open();
    const acked = async (...args) => plain(await answer(socket, "ask", ...args));
    assert.deepEqual(await acked(), []);
    assert.deepEqual(await acked("one"), ["one"]);
    assert.deepEqual(await acked(1, { two: [3] }, null), [1, { two: [3] }, null]);
    const binary = [Buffer.from([1]), { deep: Buffer.from([2, 3]) }];
    assert.deepEqual(await acked(...binary), plain(binary));

    // Each ack finds its own event, also with many under way.
    const numbers = Array.from({ length: 300 }, (_, i) => i);
    const answers = await Promise.all(numbers.map((n) => answer(socket, "n", n)));
    assert.deepEqual(answers, numbers.map((n) => [n]));
  },

  "several namespaces": async (cell) => {
    const manager = cell.manager();
    const [root, relay] = await Promise.all([cell.open("/", manager), cell.open("/relay", manager)]);
    assert.notEqual(root.id, relay.id);
    const heard = { root: [], relay: [] };
    root.on("here", (where) => heard.root.push(where));
    relay.on("here", (where) => heard.relay.push(where));
    root.emit("here", "root");
    relay.emit("here", "relay");
    await until(() => heard.root.length + heard.relay.length === 2, "both echoes");
    assert.deepEqual(heard, { root: ["root"], relay: ["relay"] });

    // Leaving one leaves the other, and it can be joined again on the same connection.
    const engine = manager.engine.id;
    relay.disconnect();
    assert.deepEqual(await answer(root, "ask", "still here"), ["still here"]);
    relay.connect();
    await until(() => relay.connected, "/relay to be joined again");
    assert.equal((await answer(relay, "ask"))[0].receivers, 1);
    assert.equal(manager.engine.id, engine);
  },

  "refused namespace": async (cell) => {
    const manager = cell.manager();
    const root = await cell.open("/", manager);
    const refused = manager.socket("/no-such-namespace");
    const message = await new Promise((done) => {
      if (cell.version === 4) refused.on("connect_error", (error) => done(error.message));
      else refused.on("error", (error) => done(error.message ?? error)); // the reference: an object, server 2.x: a string
    });
    assert.equal(message, "Invalid namespace");
    assert.equal(refused.connected, false);
    assert.deepEqual(await answer(root, "ask", 1), [1]);
  },

  "payloads near the limit": async (cell) => {
    const socket = await cell.open();
    const ascii = "x".repeat(900_000);
    const wide = "ж🪢".repeat(150_000); // 900,000 bytes of UTF-8
    const binary = Buffer.alloc(700_000, 0xa5); // 933,336 characters of base64 when polled
    for (const payload of [ascii, wide, binary]) {
      await echoes(socket, [["big", payload]]);
      assert.deepEqual(plain(await answer(socket, "ask", payload)), plain([payload]));
    }
  },

  "payload over the limit": async (cell) => {
    const socket = await cell.open();
    await refusedThenBack(socket, () => socket.emit("too big", "x".repeat(1_200_000)));
  },

  "too many attachments": async (cell) => {
    const socket = await cell.open();
    const attachments = Array.from({ length: 11 }, () => Buffer.from([1]));
    await refusedThenBack(socket, () => socket.emit("too many", ...attachments));
  },

  "relay to all": async (cell) => {
    const first = await cell.openRelayAlone();
    const others = await Promise.all([cell.open("/relay"), cell.open("/relay"), cell.open("/relay")]);
    const everybody = [first, ...others];
    const heard = everybody.map(() => []);
    everybody.forEach((socket, i) => socket.on("say", (...args) => heard[i].push(plain(args))));
    const said = [["a"], ["b", 1, { c: null }], [Buffer.from([1, 2])], ["ünï"]];
    for (const args of said) {
      assert.deepEqual(await answer(first, "say", ...args), [{ receivers: 4 }]);
    }
    others[0].emit("say", "from another");
    await until(() => heard.every((list) => list.length === 5), "everybody to hear all five");
    for (const list of heard) assert.deepEqual(list, plain([...said, ["from another"]]));

    others[2].disconnect();
    await until(async () => (await answer(first, "ask"))[0].receivers === 3, "one receiver fewer");
  },

  "a burst in order": async (cell) => {
    const socket = await cell.open();
    const count = 5000; // more than 4,096, which was once the most that one polling body could hold
    const heard = [];
    socket.on("n", (n) => heard.push(n));
    for (let n = 0; n < count; n++) socket.emit("n", n);
    await until(() => heard.length >= count, () => `${count} echoes, of which ${heard.length} came`);
    assert.deepEqual(heard, Array.from({ length: count }, (_, n) => n));
  },

  "a burst with attachments in order": async (cell) => {
    const socket = await cell.open();
    const count = 300;
    const heard = [];
    socket.on("n", (n, data) => heard.push([n, ...data]));
    for (let n = 0; n < count; n++) socket.emit("n", n, Buffer.from([n & 255, n >> 8]));
    await until(() => heard.length >= count, () => `${count} echoes, of which ${heard.length} came`);
    assert.deepEqual(heard, Array.from({ length: count }, (_, n) => [n, n & 255, n >> 8]));
  },

  "the transport asked for": async (cell) => {
    const socket = await cell.open();
    const expected = cell.transport === "polling" ? "polling" : "websocket";
    const { engine } = socket.io;
    const { id } = engine;
    await until(() => engine.transport.name === expected, `the transport to be ${expected}`);
    await echoes(socket, [["after it", 1]]);
    assert.equal(engine.transport.name, expected);
    assert.equal(engine.id, id);
    if (cell.transport === "deflate") assert.match(engine.transport.ws.extensions, /permessage-deflate/);
  },

  "heartbeats": async (cell) => {
    // The server of the cell pings every 300 ms (settings in matrix.test.mjs).
    const socket = await cell.open();
    const { engine } = socket.io;
    let beats = 0;
    engine.on(cell.version === 4 ? "ping" : "pong", () => beats++);
    let lost = false;
    socket.on("disconnect", () => (lost = true));
    await until(() => beats >= 4, "four heartbeats");
    await echoes(socket, [["after four heartbeats", 1]]);
    assert.equal(lost, false);
  },

  "server killed and started again": async (cell) => {
    const socket = await cell.open();
    await echoes(socket, [["before", 1]]);
    const gone = once(socket, "disconnect");
    await cell.target.kill();
    const [reason] = await gone;
    assert.match(reason, /^transport (close|error)$/);
    const heard = [];
    socket.on("while away", (n) => heard.push(n));
    for (let n = 0; n < 10; n++) socket.emit("while away", n);
    await sleep(100); // a few attempts fail
    await cell.target.start();
    await until(() => socket.connected, "the client to be back");
    await until(() => heard.length >= 10, "what was emitted while away");
    assert.deepEqual(heard, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    await echoes(socket, [["after", Buffer.from([2])]]);
  },

  "server stopped and started again": async (cell) => {
    // A stop must not look like a goodbye: after a DISCONNECT packet the client would stay away.
    const socket = await cell.open();
    const relay = await cell.open("/relay", socket.io);
    await echoes(socket, [["before", 1]]);
    const gone = Promise.all([once(socket, "disconnect"), once(relay, "disconnect")]);
    await cell.target.kill("SIGTERM");
    for (const [reason] of await gone) assert.match(reason, /^transport (close|error)$/);
    await cell.target.start();
    await until(() => socket.connected && relay.connected, "the client to be back");
    await echoes(socket, [["after", 1]]);
  },

  "client goes": async (cell) => {
    const watcher = await cell.openRelayAlone();
    const goers = await Promise.all([cell.open("/relay"), cell.open("/relay")]);
    goers[0].disconnect();
    goers[1].io.engine.close();
    goers[1].io.reconnection(false);
    await until(async () => (await answer(watcher, "ask"))[0].receivers === 1, "both to be gone");
  },
};

/** Emits each list and waits until it has come back, unchanged. */
async function echoes(socket, lists) {
  for (const [name, ...args] of lists) {
    const back = once(socket, name);
    socket.emit(name, ...args);
    assert.deepEqual(plain(await back), plain(args), `echo of ${name}`);
  }
}

/** Does what the server must refuse, and waits until the client is back and served. */
async function refusedThenBack(socket, offend) {
  let disconnects = 0;
  socket.on("disconnect", () => disconnects++);
  offend();
  await until(() => disconnects === 1, "the connection to be cut");
  await until(() => socket.connected, "the client to be back");
  await echoes(socket, [["after it", 1]]);
  assert.equal(disconnects, 1);
}

/** The arguments with which an event is acked. */
function answer(socket, ...args) {
  return withDeadline(new Promise((done) => socket.emit(...args, (...answer) => done(answer))), `the ack of ${args[0]}`);
}

/** The arguments of the next event of this name. */
function once(socket, event) {
  return withDeadline(new Promise((done) => socket.once(event, (...args) => done(args))), `the event ${event}`);
}

/** A value with its binary parts (Buffer or ArrayBuffer, as the client likes) in one form. */
function plain(value) {
  if (value instanceof ArrayBuffer) value = Buffer.from(value);
  if (ArrayBuffer.isView(value)) return `binary:${Buffer.from(value).toString("base64")}`;
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
  }
  return value;
}

/** Waits for a condition. */
export async function until(condition, what, deadline = DEADLINE) {
  const end = Date.now() + deadline;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited in vain for ${typeof what === "function" ? what() : what}`);
    await sleep(5);
  }
}

async function withDeadline(promise, what) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`waited in vain for ${what}`)), DEADLINE);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
