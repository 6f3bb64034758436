// The incident beside LiteLLM: the first provider fails after 1.5 s, the second answers in a millisecond, a hundred requests. What
// does each gateway say of whom? Bowline's half is tested in ai/incident.test.mjs; this prints both, as a table for docs/ai.md.
//
//   LITELLM_BIN=target/bench/ai/litellm/bin/litellm npm run ai-incident   REQUESTS=100

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { HELLO, model, provider, settled, startAi, startMock } from "../ai/rig.mjs";
import { eventually, run } from "../harness/programs.mjs";
import { after, freePort } from "../harness/server.mjs";
import { ask } from "../operations/gateway.mjs";

const REQUESTS = Number(process.env.REQUESTS ?? 100);
const FAILS = "fail-slow-1500";
const ANSWERS = "wait-1";
/**
 * From one request to the next. Bowline gets all of them before the first one has failed: later its breaker would leave the failing
 * provider out. LiteLLM, whose cooldowns are turned off for that, gets ten a second: at more it would measure its own queue.
 */
const EVERY_MS = { bowline: 12, litellm: 100 };
/** LiteLLM reads a great many files before it listens. */
const START_PATIENCE_MS = 180_000;
const ERROR_MAX_MS = 5;

const mock = await startMock();
const rows = { bowline: await bowline(), litellm: await litellm() };
await mock.stop();

const { bowline: ours, litellm: theirs } = rows;
const ms = (time) => (time === undefined ? "nothing" : `${time.toLocaleString("en", { maximumFractionDigits: 1 })} ms`);
const line = (...cells) => console.log(`| ${cells.join(" | ")} |`);
console.log(`\n${REQUESTS} requests for \`kimi\`, which fails after 1.5 s; \`glm\` answers after 1 ms:\n`);
line("", "Bowline", `LiteLLM ${theirs.version}`);
line("---", "---", "---");
line("kimi, by its own clock", ...[ours, theirs].map(({ truth }) => `${truth.kimi.count} × ${ms(truth.kimi.mean)}`));
line("glm, by its own clock", ...[ours, theirs].map(({ truth }) => `${truth.glm.count} × ${ms(truth.glm.mean)}`));
line("**charged to kimi**", ...[ours, theirs].map(({ kimi }) => `**${kimi.count} failures, ${ms(kimi.mean)}**`));
line("**charged to glm**", ...[ours, theirs].map(({ glm }) => `**${glm.count} × ${ms(glm.mean)}**`));
line("off by, for each answer of glm", ...[ours, theirs].map(({ glm, truth }) => ms(Math.abs(glm.mean - truth.glm.mean))));
line("the model that clients asked for, in metrics", ...[ours, theirs].map(({ requested }) => requested.map((name) => `\`${name}\``).join(", ")));
line("what an answer says", ...[ours, theirs].map(({ headers }) => headers));
console.log(`\nBowline: \`bowline_ai_attempt_seconds\`. LiteLLM: \`litellm_request_total_latency_metric\` by \`model_group\`, ${theirs.failures}; its \`litellm_llm_api_latency_metric\` has ${ms(theirs.api)} for glm, and also nothing for kimi.`);

for (const who of ["kimi", "glm"]) {
  const error = Math.abs(ours[who].mean - ours.truth[who].mean);
  assert.ok(error < ERROR_MAX_MS, `Bowline is off by ${error} ms for ${who}`);
  assert.equal(ours[who].count, ours.truth[who].count);
}
console.log(`\nai-incident: an answer of glm is charged ${ms(Math.abs(ours.glm.mean - ours.truth.glm.mean))} too much by Bowline, ${ms(Math.abs(theirs.glm.mean - theirs.truth.glm.mean))} by LiteLLM`);

async function bowline() {
  await mock.reset();
  // As many at once as come.
  const wide = "max-concurrent = 256\npool.connections = 256";
  const toml = [provider("kimi", mock, { more: wide }), provider("glm", mock, { more: wide }), model("kimi", [`kimi/mock:${FAILS}`, `glm/mock:${ANSWERS}`])];
  const gateway = await startAi({ log: "error", toml: toml.join("\n") });
  try {
    const answers = await all(gateway.base, EVERY_MS.bowline);
    await settled(gateway, mock);
    const page = await gateway.page();
    const charged = (provider) => histogram(page, "bowline_ai_attempt_seconds", [`provider="${provider}"`]);
    return {
      truth: await truth(),
      kimi: charged("kimi"),
      glm: charged("glm"),
      requested: labels(page, "bowline_ai_request_seconds_count", "requested"),
      headers: `\`bowline-attempts: ${answers.at(-1).get("bowline-attempts")}\``,
    };
  } finally {
    await gateway.stop();
  }
}

async function litellm() {
  await mock.reset();
  const folder = mkdtempSync(join(tmpdir(), "bowline-litellm-"));
  const [config, port] = [join(folder, "config.yaml"), await freePort()];
  const group = (name, mode) => `  - model_name: ${name}\n    litellm_params: { model: "openai/mock:${mode}", api_base: "${mock.url}/v1", api_key: sk-mock }\n`;
  writeFileSync(config, `model_list:
${group("kimi", FAILS)}${group("glm", ANSWERS)}
litellm_settings: { telemetry: false, callbacks: ["prometheus"], num_retries: 0 }
router_settings: { num_retries: 0, disable_cooldowns: true, fallbacks: [{ kimi: ["glm"] }] }
`);
  const env = { LITELLM_LOG: "ERROR", LITELLM_LOCAL_MODEL_COST_MAP: "True", LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY: "true" };
  const args = ["--config", config, "--host", "127.0.0.1", "--port", String(port), "--num_workers", "1"];
  const running = await run(litellmBinary(), args, { port, env, cwd: folder, patience: START_PATIENCE_MS });
  try {
    // The first one has to import half of Python.
    await one(`http://127.0.0.1:${port}/v1`, "glm");
    const page = async () => (await ask({ host: "127.0.0.1", port }, "/metrics/")).text;
    const seen = async (name, group) => histogram(await page(), name, [`model_group="${group}"`]);
    const latency = "litellm_request_total_latency_metric";
    await eventually("the first answer to be counted", async () => (await seen(latency, "glm")).count === 1, 30_000);
    const first = { latency: await seen(latency, "glm"), api: await seen("litellm_llm_api_latency_metric", "glm") };
    await mock.reset();
    const answers = await all(`http://127.0.0.1:${port}/v1`, EVERY_MS.litellm);
    await eventually("all answers to be counted", async () => (await seen(latency, "glm")).count === REQUESTS + 1, 30_000);
    const text = await page();
    const failures = total(text, "litellm_deployment_failure_responses_total", ['model_group="kimi"']);
    const last = answers.at(-1);
    return {
      truth: await truth(),
      version: last.get("x-litellm-version"),
      kimi: { count: failures, mean: (await seen(latency, "kimi")).mean },
      glm: without(await seen(latency, "glm"), first.latency),
      api: without(await seen("litellm_llm_api_latency_metric", "glm"), first.api).mean,
      failures: "`litellm_deployment_failure_responses_total`",
      requested: labels(text, `${latency}_count`, "requested_model"),
      headers: ["x-litellm-model-group", "x-litellm-attempted-fallbacks"].map((name) => `\`${name}: ${last.get(name)}\``).join(", "),
    };
  } finally {
    await running.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

function litellmBinary() {
  const binary = process.env.LITELLM_BIN;
  if (!binary) throw new Error("set LITELLM_BIN (`cargo xtask test --long ai-incident` installs it)");
  return binary;
}

/** The headers of all answers. */
function all(base, everyMs) {
  return Promise.all(Array.from({ length: REQUESTS }, async (_, number) => {
    await after(number * everyMs);
    return one(base, "kimi");
  }));
}

async function one(base, name) {
  const body = JSON.stringify({ model: name, messages: HELLO });
  const response = await fetch(`${base}/chat/completions`, { method: "POST", headers: { "content-type": "application/json" }, body });
  const text = await response.text();
  assert.equal(response.status, 200, text.slice(0, 500));
  return response.headers;
}

/** What the providers have measured themselves. */
async function truth() {
  const { times } = await mock.stats();
  const of = ({ count, seconds }) => ({ count, mean: (seconds * 1000) / count });
  return { kimi: of(times[FAILS]), glm: of(times[ANSWERS]) };
}

/** A histogram: how many, and their mean in ms; no mean if there are none. */
function histogram(page, name, wanted) {
  const [count, seconds] = ["count", "sum"].map((part) => total(page, `${name}_${part}`, wanted));
  return { count, seconds, mean: count === 0 ? undefined : (seconds * 1000) / count };
}

function without(all, some) {
  const [count, seconds] = [all.count - some.count, all.seconds - some.seconds];
  return { count, seconds, mean: (seconds * 1000) / count };
}

/** The sum of a metric's series with these labels. */
function total(page, name, wanted) {
  const lines = page.split("\n").filter((line) => line.startsWith(`${name}{`) && wanted.every((label) => line.includes(label)));
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

/** The values of a label. */
function labels(page, name, label) {
  const lines = page.split("\n").filter((line) => line.startsWith(`${name}{`));
  return [...new Set(lines.map((line) => new RegExp(`[{,]${label}="([^"]*)"`).exec(line)?.[1]))];
}
