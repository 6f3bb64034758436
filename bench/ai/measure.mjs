// One measurement: a gateway that is started for it alone on one core, the mock provider and the load tool on the other.
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

import { LOAD_CORE, Process, SERVER_CORE, freePort } from "../measure.mjs";
import { loadTool } from "../servers.mjs";
import { at } from "../figures.mjs";
import { GATEWAYS, MODEL } from "./gateways.mjs";
import { WORKLOADS } from "./workloads.mjs";

/** A load that takes longer hangs. */
const DEADLINE_MS = 180_000;
/** So long a gateway may take until it answers: LiteLLM reads a great many files. */
const START_DEADLINE_MS = 120_000;
/** What a gateway still does after its first answer is not idleness. */
const SETTLE_MS = 1_000;
/** How often its memory is looked at under load. */
const LOOK_EVERY_MS = 100;

/** Measures a gateway: idle, then under each workload, and the provider without it right before. */
export async function measure(id, mock, scale) {
  const temporary = mkdtempSync(join(tmpdir(), "bowline-bench-ai-"));
  const [port, providerPort, metricsPort] = [await freePort(), await freePort(), await freePort()];
  const provider = new Process(LOAD_CORE, [mock, "--listen", `127.0.0.1:${providerPort}`]);
  let gateway;
  try {
    await provider.answers(providerPort, true);
    const { command, text, env, speed = 1 } = GATEWAYS[id];
    const where = { port, metricsPort, provider: `http://127.0.0.1:${providerPort}`, folder: join(temporary, "state"), config: join(temporary, "config") };
    // LiteLLM goes by the ending.
    where.config += id === "litellm" ? ".yaml" : ".toml";
    if (text) writeFileSync(where.config, text(where));
    gateway = new Process(SERVER_CORE, command(where), env);
    await gateway.answers(port, true, 50, START_DEADLINE_MS);
    await untilServed(port);
    await sleep(SETTLE_MS);
    const result = { idle: memory(gateway.pid), workloads: {} };
    for (const [name, workload] of Object.entries(WORKLOADS)) {
      const direct = await load(providerPort, "ok", workload, scale);
      await load(port, MODEL, workload, (scale * speed) / 50);
      const through = await underLoad(gateway.pid, () => load(port, MODEL, workload, scale * speed));
      result.workloads[name] = { ...through, direct, added: added(workload, through, direct) };
    }
    return result;
  } catch (error) {
    const said = gateway?.said ?? "";
    throw said === "" ? error : new Error(`${error.message}\nit says: ${said.slice(-500)}`);
  } finally {
    await gateway?.end();
    await provider.end();
    rmSync(temporary, { recursive: true, force: true });
  }
}

/** What the load tool says of one workload. */
async function load(port, model, { requests, concurrency, stream }, scale) {
  const count = Math.max(concurrency, Math.round(requests * scale));
  const args = ["--url", `http://127.0.0.1:${port}/v1`, "--model", model, "--requests", count, "--concurrency", concurrency];
  if (stream) args.push("--stream");
  const command = ["-c", LOAD_CORE, loadTool, "bench", "ai", ...args.map(String), "--json"];
  let said;
  try {
    said = JSON.parse((await promisify(execFile)("taskset", command, { timeout: DEADLINE_MS })).stdout);
  } catch (error) {
    if (error.killed) throw new Error(`not done after ${DEADLINE_MS / 1000} s: bowline bench ai ${args.join(" ")}`);
    throw new Error(error.stderr?.trim() || error.message);
  }
  if (said.ok !== said.requests) throw new Error(`${said.requests - said.ok} of ${said.requests} requests failed: ${JSON.stringify(said.errors)}`);
  return said;
}

/** A load, and what the gateway's processes have used for it. */
async function underLoad(pid, run) {
  const before = cpuUs(pid);
  let rssMax = memory(pid).rss_bytes;
  const looking = setInterval(() => (rssMax = Math.max(rssMax, memory(pid).rss_bytes)), LOOK_EVERY_MS);
  try {
    const said = await run();
    const cpu = (cpuUs(pid) - before) / said.requests;
    return { ...said, gateway: { cpu_us_per_request: cpu, rss_max_bytes: Math.max(rssMax, memory(pid).rss_bytes) } };
  } finally {
    clearInterval(looking);
  }
}

function added(workload, through, direct) {
  return Object.fromEntries(workload.added.map((path) => [path, at(through, path) - at(direct, path)]));
}

/** Waits until a model answers: some gateways take connections before they know of any. */
async function untilServed(port) {
  const deadline = Date.now() + START_DEADLINE_MS;
  const body = JSON.stringify({ model: MODEL, messages: [{ role: "user", content: "hello" }] });
  for (;;) {
    const asked = fetch(`http://127.0.0.1:${port}/v1/chat/completions`, { method: "POST", headers: { "content-type": "application/json" }, body });
    const [status, words] = await asked.then(async (answer) => [answer.status, await answer.text()]).catch((error) => [0, error.message]);
    if (status === 200) return;
    if (Date.now() > deadline) throw new Error(`nobody answers for the model: ${status} ${words.slice(0, 200)}`);
    await sleep(100);
  }
}

/** The processes that a program consists of. */
function family(pid) {
  const children = threads(pid).flatMap((task) => of(`/proc/${pid}/task/${task}/children`).split(" "));
  return [pid, ...children.filter((child) => child.trim() !== "").flatMap((child) => family(Number(child)))];
}

/** Memory of all its processes. What they share counts for each in `rss_bytes`, and once in `pss_bytes`. */
function memory(pid) {
  const sum = (key) => family(pid).reduce((sum, one) => sum + 1024 * Number(new RegExp(`^${key}: +(\\d+) kB`, "m").exec(of(`/proc/${one}/smaps_rollup`))?.[1] ?? 0), 0);
  const each = family(pid).map((one) => 1024 * Number(/^VmRSS:\s+(\d+) kB/m.exec(of(`/proc/${one}/status`))?.[1] ?? 0));
  return { rss_bytes: each.reduce((sum, bytes) => sum + bytes, 0), largest_rss_bytes: Math.max(...each), pss_bytes: sum("Pss") };
}

/** Processor time of all threads of all its processes, as the scheduler counts it. */
function cpuUs(pid) {
  const lines = family(pid).flatMap((one) => threads(one).map((task) => of(`/proc/${one}/task/${task}/schedstat`)));
  return lines.reduce((sum, line) => sum + Number(line.split(" ")[0]), 0) / 1000;
}

function threads(pid) {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

/** A file of `/proc`, or nothing of what has just ended. */
function of(file) {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
