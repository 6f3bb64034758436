// `bowline bench ai` through a real gateway before mock providers: both planes are counted as they were, and a soak leaves
// samples, a picture and a verdict.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { eventually } from "../harness/programs.mjs";
import { serverCommand } from "../harness/server.mjs";
import { model, provider, startAi, startMock } from "./rig.mjs";

const KEY = "a-key-for-tests";

let mock, gateway, scratch;

before(async () => {
  scratch = mkdtempSync(join(tmpdir(), "bowline-bench-ai-"));
  mock = await startMock();
  gateway = await startAi({
    log: "error",
    toml: [
      '[ai]\nretry-budget = "100%"',
      provider("a", mock),
      provider("b", mock),
      model("good", ["a/mock:ok-3"]),
      model("slow", ["a/mock:ok-4x30"]),
      model("fails-over", ["a/mock:too-long#bench", "b/mock:ok-3"]),
      model("fails", ["a/mock:too-long#alone"]),
      model("dies", ["a/mock:cut#bench"]),
    ].join("\n"),
  });
});

after(async () => {
  await gateway?.stop();
  await mock?.stop();
  rmSync(scratch, { recursive: true, force: true });
});

/** Runs it: `{ code, stdout, stderr }`. `until` may end it earlier, with Ctrl-C. */
function bench(args, until) {
  const { file } = serverCommand("gateway", "bowline");
  const child = spawn(file, ["bench", "ai", ...args], { stdio: ["ignore", "pipe", "pipe"] });
  const said = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"]) child[name].on("data", (chunk) => (said[name] += chunk));
  const ended = new Promise((resolve) => child.once("close", (code) => resolve({ code, ...said })));
  until?.().then(() => child.kill("SIGINT"));
  return ended;
}

/** The reports of a measurement, one for each concurrency. */
async function measured(name, ...more) {
  return measuredAt(gateway.base, name, ...more);
}

async function measuredAt(url, name, ...more) {
  const { code, stdout, stderr } = await bench(["--url", url, "--model", name, "--json", ...more]);
  assert.equal(code, 0, stderr);
  return stdout.trim().split("\n").map((line) => JSON.parse(line));
}

test("every concurrency has its report, and providers have their attempts", async () => {
  const reports = await measured("good", "--requests", "20");
  assert.deepEqual(reports.map(({ concurrency }) => concurrency), [2, 5, 10]);
  for (const { requests, ok, fell_back, errors, request_us, attempts, server, load } of reports) {
    assert.deepEqual([requests, ok, fell_back, errors], [20, 20, 0, {}]);
    assert.deepEqual([request_us.all.count, request_us.direct.count, request_us.failed], [20, 20, undefined]);
    assert.deepEqual(attempts.map(({ provider, all }) => [provider, all.count]), [["a", 20]]);
    assert.deepEqual(Object.keys(attempts[0].outcomes), ["ok"]);
    assert.ok(server.pids.length === 1 && server.cpu_us_per_request > 0 && server.rss_max_bytes > 1e6, JSON.stringify(server));
    assert.ok(load.cpu_us_per_request > 0);
    // What a provider took is a part of what the client waited.
    assert.ok(attempts[0].all.mean <= request_us.all.mean + 1, JSON.stringify({ attempts, request_us }));
  }
});

test("fallbacks stand apart, and each provider has its own outcome", async () => {
  const [{ ok, fell_back, request_us, attempts }] = await measured("fails-over", "--requests", "10", "--concurrency", "2");
  assert.deepEqual([ok, fell_back, request_us.fell_back.count, request_us.direct], [10, 10, 10, undefined]);
  const outcomes = attempts.map(({ provider, outcomes }) => [provider, outcomes["too-long"]?.count, outcomes.ok?.count]);
  assert.deepEqual(outcomes, [["a", 10, undefined], ["b", undefined, 10]]);
});

test("streams have a first content, and the rest is the provider's own time", async () => {
  const [{ ok, request_us, attempts }] = await measured("slow", "--requests", "4", "--concurrency", "2", "--stream");
  assert.equal(ok, 4);
  const { all, first_content } = request_us;
  assert.equal(first_content.count, 4);
  // Three pauses of 30 ms each follow the first content.
  assert.ok(all.mean - first_content.mean > 60_000, JSON.stringify(request_us));
  assert.ok(attempts[0].all.mean - attempts[0].first_content.mean > 60_000, JSON.stringify(attempts));
});

test("requests that fail are counted by why, and those who sent them go on", async () => {
  const [plain] = await measured("fails", "--requests", "6", "--concurrency", "3");
  assert.deepEqual([plain.ok, plain.errors], [0, { "400 context_length_exceeded": 6 }]);
  assert.equal(plain.request_us.failed.count, 6);
  const [streamed] = await measured("dies", "--requests", "2", "--concurrency", "1", "--stream");
  assert.deepEqual([streamed.ok, streamed.errors], [0, { "frame upstream_truncated": 2 }]);
  assert.deepEqual(Object.keys(streamed.attempts.at(-1).outcomes), ["frame upstream_truncated"]);
});

test("a schedule counts from when a request was due, and warming up does not count", async () => {
  await mock.reset();
  const [report] = await measured("good", "--requests", "20", "--concurrency", "4", "--fixed-rate", "200", "--warm-up", "5");
  assert.deepEqual([report.requests, report.fixed_rate], [20, 200]);
  assert.ok(report.seconds >= 0.095, `${report.seconds} s`);
  assert.equal((await mock.stats()).requests, 25);
});

test("a server that tells of no attempts has one provider", async () => {
  const [{ ok, attempts }] = await measuredAt(`${mock.url}/v1`, "mock:ok-3", "--requests", "5", "--concurrency", "1");
  assert.deepEqual([ok, attempts.map(({ provider, all }) => [provider, all.count])], [5, [["server", 5]]]);
});

test("a server that closes connections without an answer is asked on new ones", async () => {
  const [{ ok, errors }] = await measuredAt(`${mock.url}/v1`, "mock:close", "--requests", "3", "--concurrency", "1");
  assert.deepEqual([ok, errors], [0, { broken: 3 }]);
});

test("a client leaves when an answer takes too long", async () => {
  const more = ["--requests", "1", "--concurrency", "1", "--timeout", "300ms"];
  const [{ errors }] = await measuredAt(`${mock.url}/v1`, "mock:silent", ...more);
  assert.deepEqual(errors, { "no answer in --timeout": 1 });
  await eventually("the mock to see that", async () => (await mock.stats()).answering === 0);
});

test("people read a table, and the key of a file is shown to the server alone", async () => {
  const key = join(scratch, "key");
  writeFileSync(key, `${KEY}\n`);
  const args = ["--url", gateway.base, "--model", "good", "--requests", "3", "--concurrency", "1", "--key-file", key];
  const { code, stdout, stderr } = await bench(args);
  assert.equal(code, 0, stderr);
  for (const words of ["good at http://127.0.0.1:", "attempts, by provider", "requests a second", "server: CPU for each request"]) {
    assert.ok(stdout.includes(words), `${words}:\n${stdout}`);
  }
  assert.ok(!(stdout + stderr).includes(KEY));
});

test("what is wrong is told with what to do", async () => {
  for (const [args, code, told] of [
    [[], 2, "--model"],
    [["--model", "m", "--url", "https://api.openai.com/v1"], 2, "[ai.providers]"],
    [["--model", "m", "--requests", "0"], 2, "at least 1"],
    [["--model", "m", "--key-file", "/nowhere"], 2, "/nowhere"],
    [["--model", "m", "--url", "http://127.0.0.1:1"], 1, "start the server"],
    [["--model", "m", "--soak", "1s", "--concurrency", "1,2"], 2, "one --concurrency"],
    [["--draw", scratch], 1, "samples.jsonl"],
  ]) {
    const ended = await bench(args);
    assert.equal(ended.code, code, `${args}: ${ended.stderr}`);
    assert.ok(ended.stderr.includes(told), `${args}: ${ended.stderr}`);
  }
});

test("a soak leaves samples, a picture and a verdict", async () => {
  const out = join(scratch, "soak");
  const admin = `http://127.0.0.1:${gateway.admin}`;
  const args = ["--url", gateway.base, "--model", "slow", "--stream", "--fixed-rate", "40", "--soak", "2s", "--every", "200ms"];
  const { code, stdout, stderr } = await bench([...args, "--out", out, "--admin", admin, "--json"]);
  assert.equal(code, 0, stderr);
  const { verdict, measured, samples_missed } = JSON.parse(stdout);
  assert.deepEqual([measured.requests, measured.ok, samples_missed], [80, 80, 0]);
  assert.equal(verdict.permits_left, 0);
  assert.ok(verdict.rss.max > 1e6 && verdict.sockets.max > 0, JSON.stringify(verdict));
  const samples = readFileSync(join(out, "samples.jsonl"), "utf8").trim().split("\n").map((line) => JSON.parse(line));
  assert.equal(samples.length, verdict.samples);
  assert.deepEqual([samples[0].idle, samples.at(-1).idle, samples.at(-1).requests], [true, true, 80]);
  assert.ok(samples.some((sample) => sample.permits_held > 0), "no permit was seen");
  assert.ok(readFileSync(join(out, "soak.svg"), "utf8").includes("permits held"));
  assert.equal(JSON.parse(readFileSync(join(out, "soak.json"), "utf8")).workload, "ai-soak");
  // Nothing is written over.
  const again = await bench([...args, "--out", out]);
  assert.deepEqual([again.code, again.stderr.includes("--draw")], [2, true]);
});

test("Ctrl-C ends a soak with what it has, and one that was killed can be drawn", async () => {
  const out = join(scratch, "ended");
  const some = () => eventually("three samples", async () => {
    const file = join(out, "samples.jsonl");
    return existsSync(file) && readFileSync(file, "utf8").split("\n").length > 3;
  });
  const { code, stdout, stderr } = await bench(
    ["--url", gateway.base, "--model", "good", "--soak", "1h", "--every", "100ms", "--out", out], some);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /memory: .* MB at first.*too short a run to judge/);
  rmSync(join(out, "soak.svg"));
  const drawn = await bench(["--draw", out]);
  assert.equal(drawn.code, 0, drawn.stderr);
  assert.match(drawn.stdout, /requests: \d+ in/);
  assert.ok(existsSync(join(out, "soak.svg")));
});
