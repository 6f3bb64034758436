// The engines of the incident: six of them, which load slowly. One app loads them before its port is bound, one right after and is
// deaf, one in a thread and says how far it is. Each is named for what it is, while clients of the gateway are served.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { io } from "socket.io-client";

import { eventually } from "../harness/programs.mjs";
import { after, freePort } from "../harness/server.mjs";
import { ask, startGateway } from "./gateway.mjs";
import { APPS, bowline, place, services } from "./services.mjs";

/** Instead of 34 s. */
const ENGINE_SECONDS = 2;

/** Less than the start takes, and more than an engine does. */
const PATIENCE = "9s";

const app = (name, port, directory, more) => `
[services.${name}]
command = ["uvicorn", "engines_${name}:app", "--port", "${port}", "--no-access-log"]
python = "auto"
directory = "${APPS}"
environment = { APP_PORT = "${port}", MOMENTS = "${join(directory, name)}", ENGINE_SECONDS = "${ENGINE_SECONDS}", PYTHONDONTWRITEBYTECODE = "1" }
ready = [{ http = "http://127.0.0.1:${port}/health", every = "200ms", timeout = "500ms" }]
start-deadline = "${PATIENCE}"
${more}
`;

test("what six slow engines are doing is named, and clients are served meanwhile", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "bowline-engines-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const ports = { hook: await freePort(), deaf: await freePort(), threads: await freePort() };
  const toml = [
    // Killed if nothing moves for so long. It moves.
    app("hook", ports.hook, directory, `startup-timeout = "${PATIENCE}"`),
    app("deaf", ports.deaf, directory, ""),
    app("threads", ports.threads, directory, `startup-timeout = "${PATIENCE}"`),
  ].join("");
  const gateway = await startGateway({ toml });
  t.after(() => gateway.stop());
  const clients = [await talk(gateway, ["polling"]), await talk(gateway, ["websocket"])];
  t.after(() => clients.forEach((client) => client.socket.close()));
  assert.equal((await ask({ host: "127.0.0.1", port: gateway.port }, "/health/ready")).status, 200);

  const heard = { hook: new Heard(), deaf: new Heard(), threads: new Heard() };
  let shown;
  const done = await eventually("all three to be ready", async () => {
    const all = await services(gateway);
    for (const [name, service] of Object.entries(all)) heard[name].take(service);
    shown ??= all.deaf.state === "not-ready" ? bowline(["status", ...place(gateway)]) : undefined;
    return Object.values(all).every(({ state }) => state === "ready") ? all : false;
  }, 120_000);
  for (const client of clients) client.over = true;
  console.log((await shown).out);

  for (const [name, service] of Object.entries(done)) {
    // It was waited for: never killed, never started again.
    assert.deepEqual([service.attempts, service.restarts.total, [...heard[name].pids]], [1, 0, [service.pid]], name);
    assert.match(service.interpreter, /tests\/\.venv/, name);
    assert.ok(service.ready_seconds > 6 * ENGINE_SECONDS - 0.1, `${name}: ${service.ready_seconds}`);
  }
  // Who says how far it is, is starting, however long that takes; who says nothing is late in the end.
  assert.deepEqual(heard.hook.states, ["starting", "ready"]);
  assert.deepEqual(heard.threads.states, ["starting", "ready"]);
  assert.deepEqual(heard.deaf.states, ["starting", "not-ready", "ready"]);

  // What was so, by the app's own account, was said before the next thing was so.
  const words = {
    hook: (what) => (what === "refused" ? /: refused/ : new RegExp(`: refused .*, ${what}\\)`)),
    deaf: () => /: deaf/,
    threads: (what) => new RegExp(`: starting, ${what}`),
  };
  const late = [];
  for (const name of Object.keys(words)) {
    const moments = readFileSync(join(directory, name), "utf8").trim().split("\n").map((line) => JSON.parse(line));
    for (const [index, { what, at }] of moments.entries()) {
      const named = what === "ready" ? heard[name].ready : heard[name].first(words[name](what));
      assert.ok(named !== undefined, `${name} was never said to be ${what}: ${[...heard[name].awaited.keys()].join(" | ")}`);
      const next = moments.slice(index + 1).find((moment) => moment.at > at + 100);
      assert.ok(!next || named < next.at + 1000, `${name} was said to be ${what} after it had become ${next?.what}`);
      late.push({ name, what, ms: named - at });
    }
  }
  const latest = late.reduce((one, other) => (other.ms > one.ms ? other : one));
  const mean = late.reduce((sum, { ms }) => sum + ms, 0) / late.length;
  console.log(`${late.length} things were named after ${mean.toFixed(0)} ms on average; the latest, ${latest.name} ${latest.what}, after ${latest.ms.toFixed(0)} ms`);

  for (const client of clients) {
    await eventually("the last ack", () => client.acked === client.sent);
    assert.deepEqual(client.ends, []);
    console.log(`a client over ${client.transport} had ${client.acked} acks, the slowest after ${client.slowest} ms`);
    assert.ok(client.acked > 50, `${client.acked} acks`);
  }
});

/** What Bowline has said of one service, and when for the first time. */
class Heard {
  states = [];
  pids = new Set();
  awaited = new Map();
  ready = undefined;

  take({ state, pid, awaited }) {
    const now = Date.now();
    // Before it is a process there is nothing to be said of it.
    if (pid === null) return;
    this.pids.add(pid);
    if (this.states.at(-1) !== state) this.states.push(state);
    if (state === "ready") this.ready ??= now;
    else if (awaited) this.awaited.set(awaited, this.awaited.get(awaited) ?? now);
  }

  /** When such words were said first. */
  first(pattern) {
    return [...this.awaited].find(([words]) => pattern.test(words))?.[1];
  }
}

/** A client that emits all the time, and counts what is acked. */
async function talk(gateway, transports) {
  const socket = io(gateway.url, { transports, forceNew: true, reconnection: false });
  await new Promise((resolve, reject) => socket.once("connect", resolve).once("connect_error", reject));
  const client = { socket, transport: transports[0], sent: 0, acked: 0, slowest: 0, ends: [], over: false };
  socket.on("disconnect", (reason) => client.ends.push(reason));
  void (async () => {
    while (!client.over && socket.connected) {
      const began = Date.now();
      client.sent += 1;
      socket.emit("echo", client.sent, () => {
        client.acked += 1;
        client.slowest = Math.max(client.slowest, Date.now() - began);
      });
      await after(50);
    }
  })();
  return client;
}
