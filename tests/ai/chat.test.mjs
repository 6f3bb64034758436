// `handler = { ai = "MODEL" }` over Socket.IO, with the official client.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { io } from "socket.io-client";

import { eventually } from "../harness/programs.mjs";
import { model, provider, settled, startAi, startMock } from "./rig.mjs";

let mock, gateway, clients;

before(async () => {
  mock = await startMock();
  const namespace = (path, name) => `[namespaces."${path}"]\nhandler = { ai = "${name}" }`;
  gateway = await startAi({
    toml: [
      "[ai]\nmax-concurrent-per-session = 1\n[ai.conversations]\nmax = 3\nturns = 4",
      provider("one", mock),
      provider("two", mock, { kind: "anthropic" }),
      model("chat", ["one/good"]),
      model("falls", ["one/mock:503", "two/good"]),
      model("dead", ["one/mock:500"]),
      model("slow", ["one/mock:drip-50"]),
      // Goes on for a minute: until it is ended.
      model("long", ["one/mock:ok-1200x50"]),
      model("cut", ["one/mock:cut"]),
      model("tools", ["one/mock:tools"]),
      ...["chat", "falls", "dead", "slow", "long", "cut", "tools"].map((name) => namespace(`/${name}`, name)),
    ].join("\n"),
  });
});

after(async () => {
  await gateway?.stop();
  await mock?.stop();
});

afterEach(() => {
  for (const client of clients ?? []) client.close();
  clients = [];
});

async function connected(namespace, options = {}) {
  const socket = io(`${gateway.url}${namespace}`, { forceNew: true, ...options });
  (clients ??= []).push(socket);
  socket.heard = { delta: [], attempt: [], "chat-error": [] };
  for (const name of Object.keys(socket.heard)) socket.on(name, (value) => socket.heard[name].push(value));
  await new Promise((resolve, reject) => socket.once("connect", resolve).once("connect_error", reject));
  return socket;
}

const text = (socket, id) => socket.heard.delta.filter((delta) => delta.id === id).map((delta) => delta.text ?? "").join("");
const chat = (socket, value) => socket.timeout(60_000).emitWithAck("chat", value);

test("an answer comes in deltas, and whole in the ack", async () => {
  const socket = await connected("/chat");
  const answer = await chat(socket, { id: "first", message: "hello" });
  assert.match(answer.text, /^token0 .*token7 $/);
  assert.equal(text(socket, "first"), answer.text);
  assert.deepEqual([answer.id, answer.finish, answer.served_by], ["first", "stop", "one/good"]);
  assert.match(answer.attempts, /^one;ok;\d+ms$/);
  assert.ok(answer.usage.total_tokens > 0);
  assert.equal(answer.conversation, null);
  const record = await gateway.record(answer.request_id);
  assert.deepEqual([record.outcome, record.session], ["ok", socket.id]);
  assert.equal((await chat(socket, "just a text")).finish, "stop");
});

test("attempts are told while they are made", async () => {
  const socket = await connected("/falls");
  const answer = await chat(socket, { id: "x", message: "hello" });
  assert.equal(answer.served_by, "two/good");
  const told = socket.heard.attempt.map(({ id, state, provider, outcome }) => [id, state, provider ?? outcome]);
  assert.deepEqual(told.at(0), ["x", "started", "one"]);
  assert.deepEqual(told.at(1), ["x", "failed", "one"]);
  assert.ok(told.some(([, state]) => state === "fell-back"));
  assert.ok(told.some(([, state, provider]) => state === "first-content" && provider === "two"));
  assert.deepEqual(told.at(-1), ["x", "done", "ok"]);
  const failed = socket.heard.attempt.find(({ state }) => state === "failed");
  assert.deepEqual([failed.outcome, failed.model], ["overloaded", "mock:503"]);
});

test("tools that the model calls are in both", async () => {
  const socket = await connected("/tools");
  const answer = await chat(socket, { id: "t", message: "hello", tools: [{ type: "function", function: { name: "weather" } }] });
  assert.equal(answer.finish, "tool_calls");
  assert.equal(answer.tool_calls.length, 2);
  assert.ok(socket.heard.delta.some((delta) => delta.tool_calls));
});

test("a failure is acked with its code, and told where no ack is asked for", async () => {
  const socket = await connected("/dead");
  const { error } = await chat(socket, "hello");
  assert.deepEqual([error.code, error.retry], ["upstream_error", true]);
  socket.emit("chat", { id: "quiet", message: "hello" });
  await eventually("the error to come", () => socket.heard["chat-error"].length === 1);
  assert.equal(socket.heard["chat-error"][0].id, "quiet");

  const cut = await connected("/cut");
  const broken = await chat(cut, { id: "c", message: "hello" });
  assert.ok(broken.error, JSON.stringify(broken));
  assert.ok(text(cut, "c").length > 0);

  for (const wrong of [undefined, 7, {}, { message: "x", messages: [] }, { message: "x", conversation: 3 }]) {
    const { error } = await chat(cut, wrong);
    assert.equal(error.code, "invalid-request", JSON.stringify(wrong));
  }
  assert.equal((await cut.timeout(60_000).emitWithAck("chatt", "x")).error.code, "unknown-event");
});

test("a conversation remembers its turns, and is that of its client alone", async () => {
  const socket = await connected("/chat");
  const sent = async (socket, value) => {
    const answer = await chat(socket, value);
    return [answer, (await gateway.record(answer.request_id)).attempts[0].sent_bytes];
  };
  const [, short] = await sent(socket, { message: "hello", conversation: "c" });
  const [second, longer] = await sent(socket, { message: "hello", conversation: "c" });
  assert.equal(second.conversation, "c");
  assert.ok(longer > short + 50, `${longer} after ${short} bytes`);
  const other = await connected("/chat");
  const [, alone] = await sent(other, { message: "hello", conversation: "c" });
  assert.equal(alone, short);

  // One that was begun here is that of whoever knows its name.
  const [begun] = await sent(socket, { message: "hello", conversation: true });
  assert.match(begun.conversation, /^conv_/);
  const [, goes] = await sent(other, { message: "hello", conversation: begun.conversation });
  assert.ok(goes > short + 50);
  assert.ok((await gateway.metric("bowline_ai_conversations")) <= 3);
});

test("one answer at a time in a conversation, and so many of a client", async () => {
  const socket = await connected("/long");
  const first = chat(socket, { id: "1", message: "hello", conversation: "c" });
  await eventually("the first delta", () => socket.heard.delta.length > 0);
  const { error } = await chat(socket, { id: "2", message: "hello", conversation: "c" });
  assert.equal(error.code, "conversation-busy");
  assert.equal((await chat(socket, { id: "1", message: "hello" })).error.code, "id-used");
  const waiting = ["a", "b", "c"].map((id) => chat(socket, { id, message: "hello" }));
  assert.equal((await chat(socket, { id: "d", message: "hello" })).error.code, "too-many-chats");
  // The session has one permit: the others wait.
  assert.ok(socket.heard.attempt.every(({ id }) => id === "1"));
  assert.deepEqual(await socket.timeout(60_000).emitWithAck("cancel", "b"), { cancelled: 1 });
  assert.deepEqual(await socket.timeout(60_000).emitWithAck("cancel"), { cancelled: 3 });
  for (const one of [first, ...waiting]) assert.equal((await one).error.code, "cancelled");
  await settled(gateway, mock);
});

test("a client that leaves ends its answer at the provider", async () => {
  await mock.reset();
  const socket = await connected("/long");
  socket.emit("chat", "hello");
  await eventually("the first delta", () => socket.heard.delta.length > 0);
  socket.disconnect();
  assert.equal((await settled(gateway, mock)).cancelled, 1);
  const [last] = await gateway.records();
  assert.deepEqual([last.outcome, last.status], ["cancelled", 499]);
});

test("an answer goes on while its client is away, and nothing of it is missing", async () => {
  const socket = await connected("/slow", { auth: { recovery: true } });
  const answer = chat(socket, { id: "away", message: "hello" });
  await eventually("the first deltas", () => socket.heard.delta.length > 2);
  socket.io.engine.close();
  const { text: whole, error } = await answer.catch(async () => {
    // The official client gives acks up when its connection is lost; deltas are replayed.
    await eventually("the answer to be over", () => socket.heard.attempt.some(({ id, state }) => id === "away" && state === "done"));
    return { text: text(socket, "away") };
  });
  assert.equal(error, undefined);
  assert.equal(text(socket, "away"), whole);
  assert.match(whole, /^token0 .*token199 $/);
});
