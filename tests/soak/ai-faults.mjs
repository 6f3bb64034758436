// A hundred thousand requests to providers that fail in every way there is, and what is left of them: no permit, no connection, no
// attempt that only one side has counted, and no memory.
//
//   npm run ai-faults     AI_FAULTS=100000 for the long run; SAMPLES=FILE keeps the figures of each second as JSON
//
// Every mode of the mock provider × streamed or plain × a client that stays or leaves × with or without somebody to fall back to. A
// breaker would soon ask no provider that always fails, so each round has targets that nobody has heard of, which a reload of the
// configuration brings: while requests of the round before are still under way.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { Agent, request as httpRequest } from "node:http";

import { HELLO, model, provider, settled, startAi, startMock, sum } from "../ai/rig.mjs";
import { eventually } from "../harness/programs.mjs";
import { after } from "../harness/server.mjs";
import { descriptors, memory } from "../ai/process.mjs";

const REQUESTS = Number(process.env.AI_FAULTS ?? 3_000);
/** Requests that are under way: more than the gateway lets run, so that some wait. */
const CLIENTS = 300;
/** Requests to each target before it is given up for others: a breaker opens after as many faults. */
const PER_TARGET = 5;
/** Clients that leave do so within this. */
const LEAVES_WITHIN_MS = 250;
const SAMPLE_MS = 1_000;
/** What memory may grow by from a quarter of the way to the end. It is pages that are in use by turns, not what is kept. */
const GROWTH_MAX = 0.1;

const MODES = [
  "429", "429-after-1", "500-once", "503", "reset", "close", "silent", "headers-only", "slow-first-50", "cut", "stall", "malformed",
  "no-done", "no-finish", "error-frame", "early-error", "too-long", "filter", "filter-late", "flap", "keepalive-only", "drip-100",
  "glm-1302", "glm-1305", "glm-1308", "glm-1113",
];
const CASES = MODES.flatMap((mode) =>
  [false, true].flatMap((stream) => [false, true].flatMap((leaves) => [false, true].map((next) => ({ mode, stream, leaves, next })))),
);

const name = ({ mode, stream, leaves, next }, set) => [mode, stream ? "stream" : "plain", leaves ? "leaves" : "stays", next ? "next" : "alone", set].join(":");
const target = (one, set) => `mock:${one.mode}#${name(one, set).replaceAll(":", "-")}`;

const mock = await startMock();
const gateway = await startAi({ log: "error", toml: configuration("a") });
const head = `[admin]\nlisten = "127.0.0.1:${gateway.admin}"\n[log]\nlevel = "error"\n`;
const { gateway: process_ } = (await gateway.control("/api/v1/status")).json;
const agent = new Agent({ keepAlive: true, maxSockets: Infinity });
const ends = {};
let [asked, refused, reloads] = [0, 0, 0];

function configuration(set) {
  const more = 'timeout = { connect = "3s", first-content = "150ms", idle = "150ms", total = "3s" }\nmax-concurrent = 256\npool.connections = 256';
  return [
    '[ai]\ndeadline = "8s"\nretry-budget = "100%"',
    '[ai.slow-stream]\nwindow = "300ms"\nmin-tokens = 10',
    ...["one", "crowded", "two"].map((name) => provider(name, mock, { more })),
    // Where an account says that it runs too much at once, its provider is asked less at once.
    ...CASES.map((one) => model(name(one, set), [`${one.mode === "glm-1302" ? "crowded" : "one"}/${target(one, set)}`, ...(one.next ? ["two/good"] : [])])),
  ].join("\n");
}

/** One request: what came of it, in a word. */
function ask({ stream, leaves, ...one }, set) {
  return new Promise((resolve) => {
    const body = JSON.stringify({ model: name({ stream, leaves, ...one }, set), messages: HELLO, stream });
    const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
    let answered = false;
    const request = httpRequest({ host: "127.0.0.1", port: gateway.port, path: "/v1/chat/completions", method: "POST", agent, headers }, (response) => {
      let last = "";
      answered = true;
      response.on("data", (chunk) => (last = (last + chunk).slice(-2_000)));
      response.on("close", () => resolve(response.complete ? verdict(response, last, stream) : "left"));
      response.on("error", () => {});
    });
    const leaving = leaves && setTimeout(() => request.destroy(), Math.random() ** 2 * LEAVES_WITHIN_MS);
    request.on("close", () => (clearTimeout(leaving), answered || resolve("left")));
    request.on("error", () => {});
    request.end(body);
  });
}

function verdict(response, last, stream) {
  if (response.statusCode !== 200) {
    const code = JSON.parse(last.includes('"error"') ? last.slice(last.indexOf("{")) : "{}").error?.code;
    // Nobody was asked: a breaker is open, or there is no permit. Not one of the hundred thousand.
    return response.headers["bowline-attempts"] === undefined ? `unasked ${code}` : `${response.statusCode} ${code}`;
  }
  if (!stream || last.trimEnd().endsWith("data: [DONE]")) return "ok";
  return `frame ${/"code":"([a-z_]+)"/.exec(last)?.[1]}`;
}

const began = Date.now();
const samples = [];
async function sample() {
  const [permits, { open_connections, requests }] = [await gateway.permits(), await mock.stats()];
  const at = (Date.now() - began) / 1000;
  samples.push({ seconds: at, requests: asked, attempts: requests, bytes: memory(process_.pid), descriptors: descriptors(process_.pid), permits, connections: open_connections });
}

let sampling = true;
await sample();
const sampler = (async () => {
  while (sampling) {
    await after(SAMPLE_MS);
    if (sampling) await sample();
  }
})();

let set = "a";
let queue = [];
async function work() {
  while (asked < REQUESTS) {
    const one = queue.pop();
    if (one === undefined) {
      await refill();
      continue;
    }
    const came = await ask(...one);
    ends[came] = (ends[came] ?? 0) + 1;
    if (came.startsWith("unasked")) refused += 1;
    else asked += 1;
  }
}

let refilling;
/** A reload brings targets that nobody has heard of. Those who wait for it do so together. */
function refill() {
  refilling ??= (async () => {
    set = set === "a" ? "b" : "a";
    writeFileSync(gateway.config, `${head}${configuration(set)}`);
    const reload = await gateway.control("/api/v1/reload", { method: "POST" });
    assert.equal(reload.status, 200, reload.text);
    reloads += 1;
    queue = shuffled(CASES.flatMap((one) => Array.from({ length: PER_TARGET }, () => [one, set])));
    refilling = undefined;
  })();
  return refilling;
}

function shuffled(list) {
  for (let at = list.length - 1; at > 0; at -= 1) {
    const other = Math.floor(Math.random() * (at + 1));
    [list[at], list[other]] = [list[other], list[at]];
  }
  return list;
}

let failed = 0;
try {
  await Promise.all(Array.from({ length: CLIENTS }, work));
  const took = (Date.now() - began) / 1000;
  agent.destroy();
  await settled(gateway, mock);
  // The last ones that are idle are closed by a sweep.
  await eventually("all connections to be closed", async () => (await mock.stats()).open_connections === 0);
  const { requests, modes, cancelled } = await mock.stats();
  sampling = false;
  await sampler;
  await sample();

  const page = await gateway.page();
  const counted = counts(page);
  const [total, left] = [sum(page, "bowline_ai_attempts_total"), counted.cancelled];
  const last = samples.at(-1);
  const early = samples[Math.ceil(samples.length / 4)] ?? samples[0];
  const growth = last.bytes / early.bytes - 1;
  for (const one of samples.filter((_, index) => index % Math.ceil(samples.length / 12) === 0 || index === samples.length - 1)) {
    console.log(`${one.seconds.toFixed(0).padStart(5)} s ${String(one.requests).padStart(7)} requests ${mib(one.bytes)} MiB ${String(one.descriptors).padStart(5)} descriptors ${String(one.permits).padStart(4)} permits`);
  }
  console.log(`ends: ${Object.entries(ends).sort(([, a], [, b]) => b - a).map(([end, count]) => `${end} ${count}`).join(", ")}`);
  console.log(`attempts: ${total} counted, ${requests} seen by the mock, ${left} cancelled (the mock saw ${cancelled} leave); ${refused} requests that nobody was asked for; ${reloads} reloads`);
  if (process.env.SAMPLES) {
    const figures = { when: new Date().toISOString(), requests: asked, attempts: total, seen: requests, refused, reloads, seconds: took, modes: MODES.length, samples };
    writeFileSync(process.env.SAMPLES, JSON.stringify(figures));
  }
  console.log(`ai-faults: ${asked} faulted requests in ${took.toFixed(0)} s (${Math.round(asked / took)} a second): ${last.permits} permits leaked, ${last.connections} connections open, memory ${mib(samples[0].bytes)} → ${mib(early.bytes)} → ${mib(last.bytes)} MiB`);

  // Whose clients stay has been seen by both; one whose client left while it was being sent may not have been.
  const wrong = CASES.flatMap((one) => ["a", "b"].map((set) => [one, target(one, set)])).filter(([one, target]) => {
    const [seen, known] = [modes[target.replace("mock:", "")] ?? 0, counted.models[target] ?? 0];
    return one.leaves ? seen > known : seen !== known;
  });
  assert.deepEqual(wrong.map(([, target]) => [target, modes[target.replace("mock:", "")], counted.models[target]]), []);
  assert.ok(total - left <= requests && requests <= total, `${total} attempts, ${left} of them cancelled; the mock saw ${requests}`);
  assert.deepEqual([last.permits, last.connections, sum(page, "bowline_ai_body_bytes")], [0, 0, 0]);
  if (REQUESTS >= 50_000) assert.ok(growth < GROWTH_MAX, `memory has grown by ${(growth * 100).toFixed(1)} %`);
} catch (error) {
  failed = 1;
  console.log(error.stack);
} finally {
  sampling = false;
  await gateway.stop();
  await mock.stop();
}
console.log(`${asked} passed, ${failed} failed`);
process.exit(failed);

/** Attempts as the gateway has counted them, by model. */
function counts(page) {
  const models = {};
  let cancelled = 0;
  for (const line of page.split("\n").filter((line) => line.startsWith("bowline_ai_attempts_total{"))) {
    const [model, count] = [/model="([^"]*)"/.exec(line)[1], Number(line.split(" ").at(-1))];
    models[model] = (models[model] ?? 0) + count;
    if (line.includes('outcome="cancelled"')) cancelled += count;
  }
  return { models, cancelled };
}

function mib(bytes) {
  return (bytes / 2 ** 20).toFixed(1);
}
