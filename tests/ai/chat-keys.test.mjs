// Keys of clients over Socket.IO, and what a reload makes of answers under way.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { after, afterEach, before, test } from "node:test";

import { io } from "socket.io-client";

import { eventually } from "../harness/programs.mjs";
import { serverCommand } from "../harness/server.mjs";
import { model, provider, settled, startAi, startMock } from "./rig.mjs";

const KEYS = { app: "bl-0123456789abcdef0123", team: "bl-fedcba98765432100123", small: "bl-00112233445566778899" };
const LIMITS = {
  app: "limits = { requests-per-minute = 2, models = [\"chat\", \"slow\"] }",
  team: "limits = { max-concurrent = 1 }",
  small: "limits = { tokens-per-minute = 10 }",
};

let mock, gateway;
const clients = [];

before(async () => {
  mock = await startMock();
  const hashed = ([name, key]) =>
    `[ai.keys.${name}]\n${execFileSync(serverCommand("gateway", "bowline").file, ["config", "hash-key"], { input: `${key}\n` })}${LIMITS[name]}\n`;
  const namespace = (path, name, more = "") => `[namespaces."${path}"]\nhandler = { ai = "${name}" }\n${more}`;
  gateway = await startAi({
    toml: [
      "[ai]\nmax-concurrent-per-session = 4",
      provider("one", mock),
      model("chat", ["one/good"]),
      model("other", ["one/good"]),
      model("slow", ["one/mock:ok-1200x50"]),
      ...Object.entries(KEYS).map(hashed),
      namespace("/own", "chat"),
      namespace("/other", "other"),
      namespace("/team", "slow", 'ai-key = "team"'),
      namespace("/leaving", "slow", 'ai-key = "team"'),
    ].join("\n"),
  });
});

after(async () => {
  await settled(gateway, mock);
  await gateway?.stop();
  await mock?.stop();
});

afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});

async function connected(namespace, auth = {}) {
  const socket = io(`${gateway.url}${namespace}`, { forceNew: true, auth });
  clients.push(socket);
  socket.deltas = 0;
  socket.on("delta", () => (socket.deltas += 1));
  await new Promise((resolve, reject) => socket.once("connect", resolve).once("connect_error", reject));
  return socket;
}

const chat = (socket, value) => socket.timeout(60_000).emitWithAck("chat", value);
const refused = (error) => error.data?.code;

test("where there are keys a client shows one, and has its limits", async () => {
  await assert.rejects(connected("/own"), (error) => refused(error) === "invalid_api_key");
  await assert.rejects(connected("/own", { key: `${KEYS.app}x` }), (error) => refused(error) === "invalid_api_key");
  const socket = await connected("/own", { key: KEYS.app });
  const first = await chat(socket, "hello");
  assert.equal(first.finish, "stop");
  assert.equal((await gateway.record(first.request_id)).key, "app");
  // They count together with those of `/v1`.
  const headers = { authorization: `Bearer ${KEYS.app}` };
  assert.equal((await gateway.post("/v1/chat/completions", { model: "chat", messages: [{ role: "user", content: "x" }] }, headers)).status, 200);
  const { error } = await chat(socket, "hello");
  assert.deepEqual([error.code, error.retry], ["rate_limit_exceeded", true]);
  const { usage } = (await gateway.api("/api/v1/ai/providers")).json;
  assert.equal(usage.find(({ key }) => key === "app").attempts, 2);
});

test("a model that is not the key's, and tokens that it never has, are refused in the ack", async () => {
  const other = await chat(await connected("/other", { key: KEYS.app }), "hello");
  assert.deepEqual([other.error.code, other.error.retry], ["model_not_allowed", false]);
  const large = await chat(await connected("/own", { key: KEYS.small }), { message: "hello", max_tokens: 100 });
  assert.deepEqual([large.error.code, large.error.retry], ["tokens_per_minute_exceeded", false]);
});

test("a namespace may name the key of all its clients", async () => {
  const [one, two] = [await connected("/team"), await connected("/team", { key: "whatever" })];
  const first = chat(one, "hello");
  await eventually("the first delta", () => one.deltas > 0);
  const second = chat(two, "hello");
  const held = async () => (await gateway.api("/api/v1/ai/providers")).json.permits.find(({ scope, name }) => scope === "key" && name === "team");
  await eventually("the second to wait", async () => (await held())?.queued === 1);
  assert.equal((await held()).held, 1);
  one.emit("cancel");
  assert.equal((await first).error.code, "cancelled");
  await eventually("the second to begin", () => two.deltas > 0);
  two.emit("cancel");
  assert.equal((await second).error.code, "cancelled");
  const [last] = await gateway.records();
  assert.equal(last.key, "team");
});

test("a reload that takes the model away from a namespace ends its answers, and leaves the others", async () => {
  // The key lets one in at a time.
  const file = readFileSync(gateway.config, "utf8");
  const reload = async (text) => {
    writeFileSync(gateway.config, text);
    const reloaded = await gateway.control("/api/v1/reload", { method: "POST", body: {} });
    assert.equal(reloaded.status, 200, reloaded.text);
  };
  await reload(file.replace("max-concurrent = 1", "max-concurrent = 9"));
  const [leaving, staying] = [await connected("/leaving"), await connected("/team")];
  const ended = chat(leaving, { id: "ends", message: "hello" });
  const stays = chat(staying, { id: "stays", message: "hello" });
  await eventually("both to be under way", () => leaving.deltas > 0 && staying.deltas > 0);
  const echo = file.replace('[namespaces."/leaving"]\nhandler = { ai = "slow" }\nai-key = "team"', '[namespaces."/leaving"]\nhandler = "echo"');
  assert.notEqual(echo, file);
  await reload(echo);
  const { error } = await ended;
  assert.deepEqual([error.code, error.retry], ["handler-gone", false]);
  const before = staying.deltas;
  await eventually("the other to go on", () => staying.deltas > before);
  staying.emit("cancel");
  assert.equal((await stays).error.code, "cancelled");
});
