// Who may ask `/v1`, how much, and what a reload leaves alone.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { eventually, run } from "../harness/programs.mjs";
import { freePort, serverCommand } from "../harness/server.mjs";
import { ask } from "../operations/gateway.mjs";
import { HELLO, model, provider, settled, startAi, startMock } from "./rig.mjs";

const KEY = "bl-0123456789abcdef0123456789abcdef";
const OTHER = "bl-fedcba9876543210fedcba9876543210";

let mock;

before(async () => {
  mock = await startMock();
});

after(() => mock?.stop());

const CHAT = "/v1/chat/completions";
const bearer = (key) => ({ authorization: `Bearer ${key}` });

/** What `[ai.keys]` has of a key. */
function hashed(name, key, more = "") {
  const line = execFileSync(serverCommand("gateway", "bowline").file, ["config", "hash-key"], { input: `${key}\n` });
  return `[ai.keys.${name}]\n${line}${more}\n`;
}

async function withAi(toml, test, files = {}) {
  const gateway = await startAi({ toml: toml.join("\n"), files });
  try {
    await test(gateway);
    await settled(gateway, mock);
  } finally {
    await gateway.stop();
  }
}

test("without a model there is no gateway", async () => {
  await withAi([provider("one", mock)], async (gateway) => {
    assert.equal((await gateway.get("/v1/models")).status, 404);
    assert.deepEqual((await gateway.api("/api/v1/ai/requests")).json, { requests: [] });
    assert.equal((await gateway.api(`/api/v1/ai/requests/req_${"0".repeat(32)}`)).status, 404);
    assert.equal((await gateway.api("/api/v1/ai/requests/x")).status, 400);
    assert.equal((await gateway.api("/api/v1/ai/requests?limit=0")).status, 400);
  });
});

test("without keys programs of this machine may ask, and nobody else", async () => {
  await withAi([provider("one", mock), model("chat", ["one/good"])], async (gateway) => {
    const body = { model: "chat", messages: HELLO };
    assert.equal((await gateway.post(CHAT, body)).status, 200);
    // A page that is open in a browser here, and a name that was pointed here.
    for (const headers of [{ origin: "https://evil.example" }, { host: "evil.example" }]) {
      const refused = await gateway.post(CHAT, body, headers);
      assert.equal(refused.status, 403);
      assert.equal(refused.json.error.code, "keys_required");
      assert.match(refused.headers["x-request-id"], /^req_/);
    }
    const anthropic = await gateway.post("/v1/messages", body, { host: "evil.example" });
    assert.deepEqual([anthropic.json.type, anthropic.json.error.type], ["error", "permission_error"]);
    assert.equal(await gateway.metric("bowline_ai_refused_total", 'reason="keys-required"'), 3);
  });
});

test("off loopback nobody may ask without a key, and the log says so at the start", async () => {
  const [port, admin] = [await freePort(), await freePort()];
  const { file } = serverCommand("gateway", "bowline");
  const gateway = await startAi({ toml: provider("one", mock) });
  const config = `${gateway.directory}/open.toml`;
  writeFileSync(config, `[admin]\nlisten = "127.0.0.1:${admin}"\n${provider("one", mock)}${model("chat", ["one/good"])}`);
  const args = ["serve", "--listen", `0.0.0.0:${port}`, "--config", config, "--state-dir", `${gateway.directory}/open`];
  const open = await run(file, args, { port, env: { BOWLINE_ADMIN_LISTEN: undefined } });
  try {
    const answer = await ask({ host: "127.0.0.1", port }, CHAT, { method: "POST", body: { model: "chat", messages: HELLO } });
    assert.deepEqual([answer.status, answer.json.error.code], [403, "keys_required"]);
    assert.match(open.said(), /\/v1 is closed/);
  } finally {
    await open.stop();
    await gateway.stop();
  }
});

test("a key is shown in one of three ways, and anything else is 401", async () => {
  const toml = [provider("one", mock), model("chat", ["one/good"]), hashed("app", KEY)];
  await withAi(toml, async (gateway) => {
    const body = { model: "chat", messages: HELLO };
    for (const headers of [bearer(KEY), { "x-api-key": KEY }, { "api-key": KEY }]) {
      assert.equal((await gateway.post(CHAT, body, headers)).status, 200);
    }
    // A page of somebody else may ask if it knows a key.
    assert.equal((await gateway.post(CHAT, body, { ...bearer(KEY), origin: "https://a.example" })).status, 200);
    for (const headers of [{}, bearer(OTHER), bearer(KEY.toUpperCase()), bearer(`${KEY}x`)]) {
      const refused = await gateway.post(CHAT, body, headers);
      assert.deepEqual([refused.status, refused.json.error.code], [401, "invalid_api_key"]);
    }
    assert.equal((await gateway.get("/v1/models")).status, 401);
    assert.equal((await gateway.get("/v1/nothing", bearer(KEY))).status, 404);
    assert.equal((await gateway.get(CHAT, bearer(KEY))).status, 405);
  });
});

test("a key has its limits, and its usage is told", async () => {
  const limits = "limits = { requests-per-minute = 3, models = [\"chat\"] }";
  const toml = [provider("one", mock), model("chat", ["one/good"]), model("other", ["one/good"]), hashed("app", KEY, limits), hashed("batch", OTHER, 'priority = "low"')];
  await withAi(toml, async (gateway) => {
    const chat = (key, name = "chat") => gateway.post(CHAT, { model: name, messages: HELLO }, bearer(key));
    assert.deepEqual((await gateway.get("/v1/models", bearer(KEY))).json.data.map((one) => one.id), ["chat"]);
    assert.equal((await gateway.get("/v1/models/other", bearer(KEY))).status, 404);
    const forbidden = await chat(KEY, "other");
    assert.deepEqual([forbidden.status, forbidden.json.error.code], [403, "model_not_allowed"]);
    for (let number = 0; number < 3; number += 1) assert.equal((await chat(KEY)).status, 200);
    const limited = await chat(KEY);
    assert.deepEqual([limited.status, limited.json.error.code], [429, "rate_limit_exceeded"]);
    assert.ok(Number(limited.headers["retry-after"]) >= 1, limited.headers["retry-after"]);
    assert.equal((await chat(OTHER, "other")).status, 200);
    const { usage } = (await gateway.api("/api/v1/ai/providers")).json;
    const of = (key) => usage.find((one) => one.key === key);
    assert.deepEqual([of("app").attempts, of("batch").attempts], [3, 1]);
    assert.ok(of("app").output_tokens > of("batch").output_tokens);
    assert.equal(await gateway.metric("bowline_ai_key_tokens_total", 'key="app"'), of("app").input_tokens);
    assert.equal((await gateway.records())[0].key, "batch");
  });
});

test("a request that is too large is refused before it is read, and memory is bounded", async () => {
  const toml = ['[ai]\nmax-request = "64KiB"\nmax-bytes = "128KiB"', provider("one", mock), model("chat", ["one/good"]), model("slow", ["one/mock:ok-1200x50"])];
  await withAi(toml, async (gateway) => {
    const body = (name, bytes) => ({ model: name, messages: [{ role: "user", content: "x".repeat(bytes) }] });
    const large = await gateway.post(CHAT, body("chat", 70_000));
    assert.deepEqual([large.status, large.json.error.code], [413, "request_too_large"]);
    const leave = new AbortController();
    const slow = [1, 2].map(() => fetch(`${gateway.base}/chat/completions`, { method: "POST", signal: leave.signal, body: JSON.stringify(body("slow", 60_000)) }));
    await eventually("the memory to be taken", async () => (await gateway.metric("bowline_ai_body_bytes")) > 120_000);
    const full = await gateway.post(CHAT, body("chat", 20_000));
    assert.deepEqual([full.status, full.json.error.code, full.headers["retry-after"]], [503, "overloaded", "1"]);
    assert.equal((await gateway.post(CHAT, body("chat", 10))).status, 200);
    leave.abort();
    await Promise.allSettled(slow);
    await eventually("the memory to be given back", async () => (await gateway.metric("bowline_ai_body_bytes")) === 0);
  });
});

test("a reload leaves what is under way alone", async () => {
  const toml = [provider("one", mock, { more: 'api-key-file = "$DIR/key"' }), model("slow", ["one/mock:ok-20x50"]), model("chat", ["one/good"])];
  await withAi(toml, async (gateway) => {
    const stream = await fetch(`${gateway.base}/chat/completions`, { method: "POST", body: JSON.stringify({ model: "slow", messages: HELLO, stream: true }) });
    assert.equal(stream.status, 200);
    const before = readFileSync(gateway.config, "utf8");
    writeFileSync(gateway.config, before.replace('[ai.models."slow"]', '[ai.models."quick"]') + hashed("app", KEY));
    const reloaded = await gateway.control("/api/v1/reload", { method: "POST", body: {} });
    assert.equal(reloaded.status, 200, reloaded.text);
    assert.ok(reloaded.json.applied.includes("ai.models.*.try"), reloaded.text);
    assert.match(await stream.text(), /token19 [\s\S]*data: \[DONE\]\n\n$/);
    assert.equal((await gateway.post(CHAT, { model: "chat", messages: HELLO })).status, 401);
    const gone = await gateway.post(CHAT, { model: "slow", messages: HELLO }, bearer(KEY));
    assert.deepEqual([gone.status, gone.json.error.code], [404, "model_not_found"]);
    assert.equal((await gateway.post(CHAT, { model: "quick", messages: HELLO }, bearer(KEY))).status, 200);

    // One that cannot be carried out changes nothing.
    writeFileSync(`${gateway.directory}/key`, "\n");
    const refused = await gateway.control("/api/v1/reload", { method: "POST", body: {} });
    assert.ok(refused.status >= 400 && refused.text.includes("is empty"), refused.text);
    assert.equal((await gateway.post(CHAT, { model: "quick", messages: HELLO }, bearer(KEY))).status, 200);
  }, { key: "sk-hush\n" });
});

test("no secret is ever shown", async () => {
  const toml = [provider("one", mock, { more: 'api-key-file = "$DIR/key"' }), model("chat", ["one/good"]), hashed("app", KEY)];
  await withAi(toml, async (gateway) => {
    await gateway.post(CHAT, { model: "chat", messages: HELLO }, bearer(KEY));
    const { file } = serverCommand("gateway", "bowline");
    const shown = execFileSync(file, ["config", "show", "--config", gateway.config]).toString();
    const views = await Promise.all(["/api/v1/ai/providers", "/api/v1/ai/requests", "/metrics", "/api/v1/status"].map((path) => gateway.api(path)));
    for (const text of [shown, gateway.said(), ...views.map((view) => view.text)]) {
      assert.ok(!text.includes("sk-hush") && !text.includes(KEY), text);
    }
    assert.match(shown, /base-url = "http:\/\/127\.0\.0\.1:\d+\/v1"/);
  }, { key: "sk-hush\n" });
});
