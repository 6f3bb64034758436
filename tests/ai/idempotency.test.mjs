// `Idempotency-Key`: the same request with the same key asks a provider once.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import http from "node:http";
import { after, before, test } from "node:test";

import { eventually } from "../harness/programs.mjs";
import { serverCommand } from "../harness/server.mjs";
import { HELLO, model, provider, settled, startAi, startMock } from "./rig.mjs";

const CHAT = "/v1/chat/completions";
const KEYS = { one: "bl-0123456789abcdef0123", two: "bl-fedcba98765432100123" };

let mock, gateway;

before(async () => {
  mock = await startMock();
  const hashed = ([name, key]) =>
    `[ai.keys.${name}]\n${execFileSync(serverCommand("gateway", "bowline").file, ["config", "hash-key"], { input: `${key}\n` })}`;
  gateway = await startAi({
    toml: [
      '[ai.idempotency]\nmax-answer = "8KiB"\nlinger = "3s"',
      provider("one", mock),
      ...["ok", "wait-300", "wait-2000", "500", "ok-40x20", "ok-400", "cut", "wait-20000"].map((mode) => model(mode, [`one/mock:${mode}`])),
      ...Object.entries(KEYS).map(hashed),
    ].join("\n"),
  });
});

after(async () => {
  await settled(gateway, mock);
  await gateway?.stop();
  await mock?.stop();
});

const body = (mode, more = {}) => ({ model: mode, messages: HELLO, ...more });
const headers = (name, key = KEYS.one) => ({ authorization: `Bearer ${key}`, "idempotency-key": name });
const ask = (mode, name, more, key) => gateway.post(CHAT, body(mode, more), headers(name, key));
const asked = async (mode) => (await mock.stats()).modes[`${mode}`] ?? 0;
const text = (answer) => answer.text.match(/token\d+/g)?.length ?? 0;

/** Asks, and leaves once the mock has been asked. */
async function leaving(mode, name) {
  const before = await asked(mode);
  let request;
  const left = new Promise((resolve) => {
    const data = JSON.stringify(body(mode));
    const options = { method: "POST", headers: { ...headers(name), "content-type": "application/json", "content-length": data.length } };
    request = http.request(`${gateway.base}/chat/completions`, options);
    request.on("error", () => {}).on("close", resolve);
    request.on("response", (response) => response.on("error", () => {}).resume());
    request.end(data);
  });
  await eventually("the mock to be asked", async () => (await asked(mode)) > before);
  request.destroy();
  await left;
}

test("an answer is kept, plain and streamed", async () => {
  for (const stream of [false, true]) {
    const before = await asked("ok");
    const first = await ask("ok", `kept-${stream}`, { stream });
    const again = await ask("ok", `kept-${stream}`, { stream });
    assert.deepEqual([first.status, again.status], [200, 200]);
    assert.equal(again.text, first.text);
    for (const name of ["x-request-id", "bowline-served-by", "bowline-attempts", "content-type"]) assert.equal(again.headers[name], first.headers[name]);
    assert.deepEqual([first.headers["bowline-replayed"], again.headers["bowline-replayed"]], [undefined, "true"]);
    assert.equal((await asked("ok")) - before, 1);
  }
});

test("those who ask while it is under way join it", async () => {
  const before = await asked("wait-2000");
  const answers = await Promise.all(Array.from({ length: 5 }, () => ask("wait-2000", "together")));
  assert.deepEqual(answers.map(({ status }) => status), [200, 200, 200, 200, 200]);
  assert.equal(new Set(answers.map(({ text }) => text)).size, 1);
  assert.equal(answers.filter(({ headers }) => headers["bowline-replayed"]).length, 4);
  assert.equal((await asked("wait-2000")) - before, 1);
});

test("who joins a stream has it from the beginning", async () => {
  const first = ask("ok-40x20", "stream", { stream: true });
  await eventually("the stream to be under way", async () => (await mock.stats()).open_streams > 0);
  const [one, two] = [await ask("ok-40x20", "stream", { stream: true }), await first];
  assert.deepEqual([text(one), text(two)], [40, 40]);
  assert.match(one.text, /data: \[DONE\]\n\n$/);
  assert.equal(one.text, two.text);
});

test("a key is that of one request and of one client", async () => {
  await ask("ok", "mine");
  const other = await ask("ok", "mine", { temperature: 0.5 });
  assert.deepEqual([other.status, other.json.error.code], [422, "idempotency_key_reused"]);
  assert.equal(other.headers["x-should-retry"], "false");
  const before = await asked("ok");
  const stranger = await ask("ok", "mine", { temperature: 0.5 }, KEYS.two);
  assert.deepEqual([stranger.status, stranger.headers["bowline-replayed"]], [200, undefined]);
  assert.equal((await asked("ok")) - before, 1);
  const long = await ask("ok", "x".repeat(256));
  assert.deepEqual([long.status, long.json.error.code], [400, "invalid_idempotency_key"]);
  assert.equal(await gateway.metric("bowline_ai_refused_total", 'reason="idempotency-key"'), 2);
});

test("what has failed may be made again", async () => {
  const before = await asked("500");
  assert.deepEqual([(await ask("500", "fails")).status, (await ask("500", "fails")).status], [502, 502]);
  assert.ok((await asked("500")) - before >= 2);
  const cut = [await ask("cut", "cut", { stream: true }), await ask("cut", "cut", { stream: true })];
  assert.ok(cut.every(({ text, headers }) => text.includes("upstream_truncated") && !headers["bowline-replayed"]));
});

test("an answer that is too long is given once", async () => {
  const before = await asked("ok-400");
  const first = await ask("ok-400", "long", { stream: true });
  assert.equal(text(first), 400);
  const again = await ask("ok-400", "long", { stream: true });
  assert.deepEqual([again.status, again.json.error.code, again.headers["x-should-retry"]], [409, "idempotency_answer_too_large", "false"]);
  assert.equal((await asked("ok-400")) - before, 1);
});

test("a client that lost its answer finds it, and one that stays away ends it", async () => {
  const before = await asked("wait-300");
  await leaving("wait-300", "lost");
  const again = await ask("wait-300", "lost");
  assert.deepEqual([again.status, again.headers["bowline-replayed"]], [200, "true"]);
  assert.equal((await asked("wait-300")) - before, 1);

  await leaving("wait-20000", "gone");
  await settled(gateway, mock);
  const [last] = await gateway.records();
  assert.deepEqual([last.requested, last.outcome, last.status], ["wait-20000", "cancelled", 499]);
});

test("what is kept is seen, and a reload that switches it off leaves requests under way alone", async () => {
  const { idempotency } = (await gateway.api("/api/v1/ai/providers")).json;
  assert.ok(idempotency.keys > 0 && idempotency.bytes > 0, JSON.stringify(idempotency));
  assert.ok((await gateway.metric("bowline_ai_replays_total", 'how="joined"')) >= 5);
  assert.ok((await gateway.metric("bowline_ai_replays_total", 'how="replayed"')) >= 2);

  const under = ask("ok-40x20", "reload", { stream: true });
  await eventually("the stream to be under way", async () => (await mock.stats()).open_streams > 0);
  writeFileSync(gateway.config, readFileSync(gateway.config, "utf8").replace("[ai.idempotency]", "[ai.idempotency]\nmax = 0"));
  const reloaded = await gateway.control("/api/v1/reload", { method: "POST", body: {} });
  assert.equal(reloaded.status, 200, reloaded.text);
  assert.equal(text(await under), 40);
  const again = [await ask("ok", "off"), await ask("ok", "off", { temperature: 1 })];
  assert.ok(again.every(({ status, headers }) => status === 200 && !headers["bowline-replayed"]));
  assert.equal((await gateway.api("/api/v1/ai/providers")).json.idempotency.keys, 0);
});
