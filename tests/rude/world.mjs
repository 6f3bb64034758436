// A server for one rude client: with others who must not notice, and with the figures that must be what they were.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { io } from "socket.io-client";

import { eventually } from "../harness/programs.mjs";
import { exchange } from "../harness/http.mjs";
import { after, before } from "../harness/server.mjs";
import { openWebSocket } from "../harness/websocket.mjs";
import { metric, startGateway } from "../operations/gateway.mjs";

/** How long an answer may take that somebody else waits for: generous, since the machine may be busy with other tests. */
const PATIENCE_MS = 60_000;

/** How long anything may take that a rude client waits for. */
const SLOW_MS = 120_000;

/** Memory beyond what there was before that the allocator may keep. What a rude client makes a server hold is well above. */
const SLACK_BYTES = 16 * 1024 * 1024;

/** Descriptors beyond those before: requests of the others that are under way just then. */
const DESCRIPTORS = 4;

/** Starts a server with three official clients that go on talking. */
export async function startWorld(t, options) {
  const gateway = await startGateway(options);
  t.after(() => gateway.stop());
  const pid = (await gateway.api("/api/v1/status")).json.gateway.pid;
  const page = async () => (await gateway.api("/metrics")).text;

  /** What the server holds; `peak` is the most that it ever held, what is mapped from files included. */
  async function figures() {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const bytes = (name) => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)[1]) * 1024;
    return {
      sessions: metric(await page(), "bowline_sessions"),
      descriptors: readdirSync(`/proc/${pid}/fd`).length,
      bytes: bytes("RssAnon"),
      peak: bytes("VmHWM"),
    };
  }

  const world = { gateway, port: gateway.port, page };
  const others = await startOthers(t, gateway.url);
  await others.serves(10);
  const first = await figures();

  /** How much more the server holds now, and how much more it held when that was most, in bytes. */
  world.held = async () => (await figures()).bytes - first.bytes;
  world.peak = async () => (await figures()).peak - first.peak;

  /** Others were served all the while, new ones are, and what was held has been given back. */
  world.isWell = async () => {
    await others.serves(10);
    const late = io(gateway.url, { forceNew: true, reconnection: false });
    t.after(() => late.close());
    assert.equal(await late.timeout(PATIENCE_MS).emitWithAck("late", 1), 1);
    late.close();
    await eventually("the server to hold no more than before", async () => {
      const now = await figures();
      const [sessions, descriptors] = [now.sessions - first.sessions, now.descriptors - first.descriptors];
      const [bytes, peak] = [now.bytes - first.bytes, now.peak - first.peak];
      const well = sessions === 0 && descriptors <= DESCRIPTORS && bytes < SLACK_BYTES;
      const words = `${sessions} sessions, ${descriptors} descriptors, ${mib(bytes)} MiB more than before; ${mib(peak)} MiB at worst`;
      if (!well) throw new Error(words);
      t.diagnostic(words);
      return true;
    });
    const status = (await gateway.api("/api/v1/status")).json;
    assert.deepEqual([status.gateway.pid, status.gateway.restarts.total], [pid, 0]);
    assert.equal(metric(await page(), "bowline_handler_panics_total"), 0);
    others.end();
  };

  /** Warnings and errors of the log, as `message key=value` with what tells them apart. */
  world.lines = () =>
    gateway.said().split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line))
      .filter(({ level }) => level === "WARN" || level === "ERROR")
      .map(({ message, limit, reason, alert }) => [message, limit ?? reason ?? alert].filter(Boolean).join(": "));
  return world;
}

async function startOthers(t, url) {
  const kinds = [{ transports: ["polling"] }, { transports: ["websocket"] }, {}];
  const clients = kinds.map((options) => io(url, { forceNew: true, reconnection: false, ...options }));
  t.after(() => clients.forEach((client) => client.close()));
  const ends = [];
  clients.forEach((client) => client.on("disconnect", (reason) => ends.push(reason)));
  let rounds = 0;
  let over = false;
  const talk = async (client) => {
    for (let number = 0; !over; number++) {
      assert.equal(await client.timeout(PATIENCE_MS).emitWithAck("still", number), number);
      rounds++;
      await after(20);
    }
  };
  const talking = Promise.all(clients.map(talk)).catch((error) => ends.push(error.message));
  return {
    /** Waits for so many more answers for each, and fails if anybody was ever left without one. */
    async serves(more) {
      const wanted = rounds + more * clients.length;
      await eventually("others to be served", () => rounds >= wanted || ends.length > 0);
      assert.deepEqual(ends, [], "others have noticed");
    },
    async end() {
      over = true;
      await talking;
      clients.forEach((client) => client.close());
    },
  };
}

/** Does something `count` times at once. */
export const many = (count, what) => Promise.all(Array.from({ length: count }, (_, index) => what(index)));

/** A promise that must not take for ever. */
export async function inTime(what, promise, ms = SLOW_MS) {
  const late = Symbol("late");
  const result = await before(ms, promise, late);
  assert.notEqual(result, late, `${what} took more than ${ms} ms`);
  return result;
}

/** Asks once on a connection of its own. */
export const ask = (port, request) => inTime(`the answer to ${request.target}`, exchange(port, request).response);

export const POLLING = "/socket.io/?EIO=4&transport=polling";
export const WEBSOCKET = "/socket.io/?EIO=4&transport=websocket";

/** Opens a polling session that joins the namespace `/` with `connect`; returns the target of its requests. */
export async function openPolling(port, connect = "40") {
  const { status, body } = await ask(port, { target: POLLING });
  assert.equal(status, 200);
  const { sid } = JSON.parse(body.toString().slice(1));
  const target = `${POLLING}&sid=${sid}`;
  assert.equal((await ask(port, { method: "POST", target, body: connect })).status, 200);
  assert.match((await ask(port, { target })).body.toString(), /^40\{/);
  return target;
}

/** Opens a WebSocket session that is in the namespace `/`, where it is `sid`. */
export async function openSocket(port, options) {
  const { response, socket } = await inTime("a handshake", openWebSocket(port, WEBSOCKET, options));
  assert.equal(response.status, 101);
  assert.match((await nextText(socket)).text, /^0\{/);
  socket.text("40");
  socket.sid = JSON.parse((await nextText(socket)).text.slice(2)).sid;
  return socket;
}

/** The next frame that is no Engine.IO ping. */
export async function nextText(socket) {
  for (;;) {
    const frame = await inTime("a frame", socket.next());
    if (frame?.text === "2") continue;
    return frame ?? { kind: "end" };
  }
}

/** How the server closes a WebSocket: the code of its close frame, or `cut`. */
export async function closing(socket) {
  for (;;) {
    const frame = await nextText(socket);
    if (frame.kind === "close") return frame.code;
    if (frame.kind === "end") return "cut";
  }
}

/** How often each answer came, as `{ "400": 3 }`. */
export function tally(answers) {
  const counts = {};
  for (const answer of answers) counts[answer] = (counts[answer] ?? 0) + 1;
  return counts;
}

const mib = (bytes) => (bytes / 1024 / 1024).toFixed(1);
