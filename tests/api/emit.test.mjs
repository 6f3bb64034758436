// Events and rooms from outside: `POST /api/v1/emit|join|leave` and `bowline emit`, with the official client.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { promisify } from "node:util";

import { io } from "socket.io-client";

import { startGateway } from "../operations/gateway.mjs";
import { serverCommand } from "../harness/server.mjs";

const TOKEN = "correct-horse-battery-staple";

let gateway, clients;

before(async () => {
  gateway = await startGateway({
    toml: 'token-file = "$DIR/token"\n[server]\nshards = 2\n[log]\nlevel = "warn"',
    files: { token: `${TOKEN}\n` },
  });
});

after(() => gateway?.stop());

afterEach(() => {
  for (const client of clients ?? []) client.close();
  clients = [];
});

test("an event goes to all, to rooms, and past those who are excepted", async () => {
  const [a, b, c] = [await connected(), await connected(), await connected()];
  assert.deepEqual(await post("join", { sid: a.id, rooms: ["red", "blue"] }), { sockets: 1 });
  assert.deepEqual(await post("join", { sid: b.id, rooms: ["blue"] }), { sockets: 1 });

  const reached = async (body) => (await post("emit", body)).receivers;
  assert.equal(await reached({ namespace: "/", to: "all", event: "e", args: ["all"] }), 3);
  assert.equal(await reached({ to: ["blue"], event: "e", args: ["blue"] }), 2);
  assert.equal(await reached({ to: ["red", "blue"], except: ["red"], event: "e", args: ["no red"] }), 1);
  assert.equal(await reached({ to: [c.id], event: "e", args: ["c"] }), 1);
  assert.equal(await reached({ to: [], event: "e", args: ["none"] }), 0);
  assert.equal(await reached({ to: ["empty"], event: "e", args: ["empty"] }), 0);
  assert.equal(await reached({ except: [a.id], event: "e", args: ["not a"] }), 2);

  assert.deepEqual(await post("leave", { room: "blue", rooms: ["blue"] }), { sockets: 2 });
  assert.equal(await reached({ to: ["blue"], event: "e", args: ["gone"] }), 0);
  assert.deepEqual(await post("join", { all: true, rooms: ["blue"] }), { sockets: 3 });
  assert.equal(await reached({ to: ["blue"], event: "last" }), 3);
  await Promise.all([a, b, c].map((client) => client.got("last")));
  assert.deepEqual(a.words, ["all", "blue"]);
  assert.deepEqual(b.words, ["all", "blue", "no red", "not a"]);
  assert.deepEqual(c.words, ["all", "c", "not a"]);
});

test("binary and every JSON value arrive as they were written", async () => {
  const client = await connected();
  const args = [{ $binary: "aGkh" }, { $$binary: 1 }, null, [1.5], "é\u0000"];
  await post("emit", { event: "last", args });
  const [blob, ...others] = await client.got("last");
  assert.deepEqual([...Buffer.from(blob)], [...Buffer.from("hi!")]);
  assert.deepEqual(others, [{ $binary: 1 }, null, [1.5], "é\u0000"]);
});

test("acks of all receivers are gathered, and who does not ack is missing", async () => {
  const [a, b, c] = [await connected(), await connected(), await connected()];
  a.on("ask", (question, ack) => ack(question, Buffer.from("hi!")));
  b.on("ask", (question, ack) => setTimeout(ack, 20));
  c.on("ask", () => {});
  const answer = await post("emit", { event: "ask", args: ["?"], ack: true, timeout: "4s" });
  assert.equal(typeof answer.id, "string");
  assert.deepEqual(answer, {
    id: answer.id,
    receivers: 3,
    acks: [
      { sid: a.id, args: ["?", { $binary: "aGkh" }] },
      { sid: b.id, args: [] },
    ],
    missing: 1,
  });
});

test("an event with an id is sent once, and both who ask are answered alike", async () => {
  const client = await connected();
  client.on("ask", (ack) => setTimeout(ack, 100, "late"));
  const body = { event: "ask", id: "one", ack: true };
  const answers = await Promise.all([post("emit", body), post("emit", body)]);
  answers.push(await post("emit", body));
  assert.deepEqual(answers[0].acks, [{ sid: client.id, args: ["late"] }]);
  assert.equal(answers[0].id, "one");
  assert.deepEqual([answers[1], answers[2]], [answers[0], answers[0]]);
  const error = await refused("emit", { ...body, event: "other" }, 409);
  assert.equal(error.code, "emit-id-reused");
  await post("emit", { event: "last" });
  await client.got("last");
  assert.equal(client.count.ask, 1);
});

test("an event that nobody receives is held for whoever comes first", async () => {
  const hold = await post("emit", { to: ["later"], event: "e", args: ["first"], hold: "30s" });
  assert.deepEqual(hold, { id: hold.id, receivers: 0, acks: [], missing: 0, held: true });
  await post("emit", { to: ["later"], event: "e", args: ["second"], hold: "30s" });
  const [a, b] = [await connected(), await connected()];
  await post("join", { sid: a.id, rooms: ["later"] });
  await post("join", { sid: b.id, rooms: ["later"] });
  const last = await post("emit", { to: ["later"], event: "last", hold: "30s" });
  assert.deepEqual(last, { id: last.id, receivers: 2, acks: [], missing: 0 });
  await Promise.all([a.got("last"), b.got("last")]);
  assert.deepEqual([a.words, b.words], [["first", "second"], []]);
});

test("mistakes are told", async () => {
  for (const [path, body, status, words] of [
    ["emit", { event: "e", to: "lobby" }, 400, 'expected "all" or a list of rooms'],
    ["emit", { event: "e", exept: [] }, 400, "unknown field `exept`"],
    ["emit", { event: "connect" }, 400, "clients keep for themselves"],
    ["emit", ["/", "all", [], "e", []], 400, "object"],
    ["join", { rooms: ["a"] }, 400, "says whom"],
    ["join", { sid: "AAAAAAAAAAAAAAAAAAAA", rooms: ["a"] }, 404, "no socket"],
    ["leave", { sid: "short", rooms: ["a"] }, 400, "20 characters"],
  ]) {
    const error = await refused(path, body, status);
    assert.ok(error.message.includes(words), `${JSON.stringify(body)}: ${error.message}`);
    assert.ok(error.remedy);
  }
});

test("bowline emit asks the server of this machine, and one by its URL", async () => {
  const client = await connected();
  client.on("ask", (ack) => ack("yes"));
  const here = ["--state-dir", join(gateway.directory, "state")];
  const url = ["--url", `http://127.0.0.1:${gateway.admin}`];
  const token = join(gateway.directory, "client-token");
  writeFileSync(token, TOKEN);

  assert.equal((await emit("/", "e", '"cli"', ...here)).stdout, "sent to 1 socket\n");
  assert.equal((await emit("/", "e", '"url"', ...url, "--token-file", token)).stdout, "sent to 1 socket\n");
  assert.equal((await emit("/", "ask", "--ack", ...here)).stdout, `sent to 1 socket, 1 acked\n  ${client.id}  ["yes"]\n`);
  assert.equal((await emit("/", "e", "--room", "nobody", ...here)).stdout, "sent to nobody: no such socket is connected\n");
  const held = await emit("/", "e", "--room", "nobody", "--hold", "1s", ...here);
  assert.equal(held.stdout, "nobody is there: held for 1s, for whoever comes first\n");
  const { stdout } = await emit("/", "last", "--id", "cli", "--json", ...here);
  assert.deepEqual(JSON.parse(stdout), { id: "cli", receivers: 1, acks: [], missing: 0 });
  await client.got("last");
  assert.deepEqual(client.words, ["cli", "url"]);

  const without = await emit("/", "e", ...url);
  assert.equal(without.code, 1);
  assert.match(without.stderr, /admin-token-missing/);
  const wrong = await emit("/", "e", "hello", ...here);
  assert.equal(wrong.code, 2);
  assert.match(wrong.stderr, /quotes inside those of the shell/);
  const nowhere = await emit("/", "e", "--state-dir", join(gateway.directory, "elsewhere"));
  assert.equal(nowhere.code, 3);
});

/** Asks, and expects success. */
async function post(path, body) {
  const { status, text } = await ask(path, body);
  assert.equal(status, 200, text);
  return JSON.parse(text);
}

/** Asks, and expects to be refused. */
async function refused(path, body, wanted) {
  const { status, text } = await ask(path, body);
  assert.equal(status, wanted, text);
  return JSON.parse(text).error;
}

function ask(path, body) {
  return gateway.api(`/api/v1/${path}`, { method: "POST", body, headers: { authorization: `Bearer ${TOKEN}` } });
}

/** A client, its `words`: the first arguments of its events `e`, `count`: how often each event came, `got`: waits for one. */
async function connected() {
  const client = io(gateway.url, { forceNew: true, transports: ["websocket"], reconnection: false });
  (clients ??= []).push(client);
  client.words = [];
  client.count = {};
  const arrived = {};
  client.onAny((event, ...args) => {
    client.count[event] = (client.count[event] ?? 0) + 1;
    if (event === "e") client.words.push(args[0]);
    arrived[event] = args;
  });
  client.got = (event) => {
    if (arrived[event]) return Promise.resolve(arrived[event]);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no ${event} came`)), 5_000);
      client.once(event, (...args) => {
        clearTimeout(timer);
        resolve(args);
      });
    });
  };
  await new Promise((resolve, reject) => client.once("connect", resolve).once("connect_error", reject));
  return client;
}

/** `bowline emit`: `{ code, stdout, stderr }`. */
async function emit(...args) {
  const { file } = serverCommand("gateway", "bowline");
  try {
    return { code: 0, ...(await promisify(execFile)(file, ["emit", ...args])) };
  } catch ({ code, stdout, stderr }) {
    return { code, stdout, stderr };
  }
}
