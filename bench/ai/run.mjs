// Measures AI gateways before a provider that answers at once, in turns, on two cores; `cargo xtask bench ai` prepares it.
//
//   node ai/run.mjs [--gateways bowline,litellm,…] [--rounds 7] [--fresh] [--quick] [--halting]
//   node ai/run.mjs --report [--publish]
//
// What was measured before with the same programs is not measured again.
import { existsSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { loadavg } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { Journal, runOf } from "../journal.mjs";
import { folder, loadTool, root } from "../servers.mjs";
import { GATEWAYS, measuredFiles, mockProvider } from "./gateways.mjs";
import { measure } from "./measure.mjs";
import { Results, published, report } from "./report.mjs";
import { WORKLOADS } from "./workloads.mjs";

/** A gateway that failed so often is not tried again in this run. */
const FAILURES_MAX = 2;
/** The load beside which figures of two pinned cores are not worth much. */
const BUSY = 0.5;
/** How much less is asked with `--quick`. */
const QUICK = 0.05;

const { values: options } = parseArgs({
  options: {
    gateways: { type: "string", default: Object.keys(GATEWAYS).join(",") },
    rounds: { type: "string", default: "7" },
    fresh: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    halting: { type: "boolean", default: false },
    report: { type: "boolean", default: false },
    publish: { type: "boolean", default: false },
  },
});
const gateways = options.gateways.split(",");
const unknown = gateways.filter((name) => !(name in GATEWAYS));
if (unknown.length > 0) {
  console.error(`no gateway is called ${unknown.join(", ")}; there are: ${Object.keys(GATEWAYS).join(", ")}`);
  process.exit(2);
}

mkdirSync(folder, { recursive: true });
const journal = new Journal(join(folder, "ai.jsonl"));
let run;
let failures = 0;
if (!options.report) {
  run = runOf([...measuredFiles, loadTool, mockProvider]) + (options.quick ? "-quick" : "");
  if (options.fresh) journal.beginAnew();
  failures = await measureAll();
}
const results = new Results(journal.lines(run));
if (results.rounds === 0) {
  console.error(`nothing has been measured yet: ${journal.file} has no figures`);
  process.exit(1);
}
const text = report(results);
writeFileSync(join(folder, "ai.md"), text);
console.log(`\n${text}`);
if (options.publish) {
  if (results.quick) {
    console.error("figures of a quick run are not for others to see: nothing is written");
    process.exit(1);
  }
  const page = join(root, "docs/benchmarks.md");
  writeFileSync(page, published(readFileSync(page, "utf8"), text));
  console.error("written: docs/benchmarks.md");
}
process.exit(failures > 0 ? 1 : 0);

/** Measures what has not been, all gateways in turns, and returns how many failed. */
async function measureAll() {
  const awake = !options.halting && keepAwake();
  const args = [awake ? "awake" : "halting", ...Object.values(WORKLOADS).map((workload) => JSON.stringify(workload))];
  const todo = [];
  for (let round = 1; round <= Number(options.rounds); round++) {
    for (const server of gateways) {
      const line = { run, workload: "ai", server, round, args };
      if (!journal.has(line)) todo.push(line);
    }
  }
  for (const id of gateways) {
    const absent = GATEWAYS[id].needs.filter((file) => !existsSync(file));
    if (absent.length > 0) console.error(`${id} is left out: ${absent.join(", ")} is missing`);
  }
  const able = todo.filter(({ server }) => GATEWAYS[server].needs.every((file) => existsSync(file)));
  if (loadavg()[0] > BUSY && able.length > 0) {
    console.error(`the machine is busy (load ${loadavg()[0].toFixed(1)}): the figures will be, too`);
  }
  const failed = new Map();
  const begun = performance.now();
  for (const [done, line] of able.entries()) {
    if ((failed.get(line.server) ?? 0) >= FAILURES_MAX) continue;
    const prefix = `${String(done + 1).padStart(4)}/${able.length}  round ${line.round}  ${line.server.padEnd(12)}`;
    try {
      const result = await measure(line.server, mockProvider, options.quick ? QUICK : 1);
      journal.append({ ...line, at: new Date().toISOString(), result: { ...result, awake } });
      const left = ((performance.now() - begun) / (done + 1)) * (able.length - done - 1);
      console.error(`${prefix} ${told(result)}  ${Math.ceil(left / 60_000)} min to go`);
    } catch (error) {
      failed.set(line.server, (failed.get(line.server) ?? 0) + 1);
      console.error(`${prefix} failed: ${error.message}`);
    }
  }
  for (const [name, times] of failed) console.error(`${name} failed ${times} times`);
  return failed.size;
}

/**
 * Asks the kernel to let the cores wait without halting, for as long as this process lives: a virtual machine takes tens of
 * microseconds to wake one, several times a request, and every gateway would be charged for that. Needs root.
 */
function keepAwake() {
  try {
    return writeSync(openSync("/dev/cpu_dma_latency", "w"), new Uint8Array(4)) === 4;
  } catch (error) {
    console.error(`the cores halt where they wait (${error.message}): expect some 0.1 ms more for everybody`);
    return false;
  }
}

function told({ workloads }) {
  const plain = workloads.plain.added["request_us.all.p50"];
  const first = workloads.stream.added["request_us.first_content.p50"];
  return `+${plain.toFixed(0)} µs plain, +${first.toFixed(0)} µs to the first content, ${workloads["plain-8"].gateway.cpu_us_per_request.toFixed(0)} µs of processor time`;
}
