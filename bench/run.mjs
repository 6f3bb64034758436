// Measures Bowline and its peers in one run, in turns, on two cores. README.md says how to prepare it;
// `cargo xtask bench` does.
//
//   node run.mjs [--only WORKLOAD[,WORKLOAD]] [--servers floor,bowline,…] [--rounds 7] [--fresh] [--quick]
//   node run.mjs --report [--chart] [--publish]
//
// What was measured before with the same programs is not measured again.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";

import { Journal, runOf } from "./journal.mjs";
import { Results, published, report } from "./report.mjs";
import { SERVERS, folder, measuredFiles, missing, root } from "./servers.mjs";
import { GROUPS, WORKLOADS } from "./workloads.mjs";
import { at } from "./figures.mjs";
import { chart } from "./chart.mjs";
import { loadArguments, measure } from "./measure.mjs";

/** A server that failed so often under a workload is not tried again in this run. */
const FAILURES_MAX = 2;
/** The load beside which figures of two pinned cores are not worth much. */
const BUSY = 0.5;
/** How much less is sent with `--quick`. */
const QUICK = 0.02;

const ALL = Object.keys(WORKLOADS).join(",");

const { values: options } = parseArgs({
  options: {
    only: { type: "string", default: ALL },
    servers: { type: "string", default: Object.keys(SERVERS).join(",") },
    rounds: { type: "string", default: "7" },
    fresh: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    report: { type: "boolean", default: false },
    chart: { type: "boolean", default: false },
    publish: { type: "boolean", default: false },
  },
});

const wanted = options.only.split(",").flatMap((name) => GROUPS[name] ?? [name]);
const servers = options.servers.split(",");
refuseUnknown("workload", wanted, WORKLOADS);
refuseUnknown("server", servers, SERVERS);

mkdirSync(folder, { recursive: true });
const journal = new Journal(join(folder, "run.jsonl"));
let run;
let failures = 0;
if (!options.report) {
  run = runOf(measuredFiles) + (options.quick ? "-quick" : "");
  if (options.fresh) journal.beginAnew();
  failures = await measureAll();
}
const results = new Results(journal.lines(run));
if (results.rounds === 0) {
  console.error(`nothing has been measured yet: ${journal.file} has no figures`);
  process.exit(1);
}
const text = report(results);
writeFileSync(join(folder, "run.md"), text);
// Who asked for few is shown those.
const asked = results.only(wanted);
console.log(asked.rounds === 0 ? "nothing of this has been measured" : `\n${report(asked, options.only === ALL)}`);
if (results.quick && (options.chart || options.publish)) {
  console.error("figures of a quick run are not for others to see: nothing is drawn");
  process.exit(1);
}
if (options.chart || options.publish) write("docs/benchmarks.svg", chart(results));
if (options.publish) {
  const page = "docs/benchmarks.md";
  write(page, published(readFileSync(join(root, page), "utf8"), text));
}
process.exit(failures > 0 ? 1 : 0);

function write(name, text) {
  writeFileSync(join(root, name), text);
  console.error(`written: ${name}`);
}

/** Measures what has not been, and returns how many measurements failed. */
async function measureAll() {
  const todo = plan();
  if (loadavg()[0] > BUSY && todo.length > 0) {
    console.error(`the machine is busy (load ${loadavg()[0].toFixed(1)}): the figures will be, too`);
  }
  const failed = new Map();
  const begun = performance.now();
  let measured = 0;
  for (const [done, line] of todo.entries()) {
    const { workload, server, round } = line;
    const name = `${workload} ${server}`;
    if ((failed.get(name) ?? 0) >= FAILURES_MAX) continue;
    const prefix = `${String(done + 1).padStart(4)}/${todo.length}  round ${round}  ${workload.padEnd(14)} ${server.padEnd(13)}`;
    try {
      const result = await measure(server, WORKLOADS[workload], options.quick ? QUICK : 1);
      journal.append({ ...line, at: new Date().toISOString(), result });
      measured += 1;
      const left = ((performance.now() - begun) / (done + 1)) * (todo.length - done - 1);
      console.error(`${prefix} ${told(WORKLOADS[workload], result).padEnd(30)} ${Math.ceil(left / 60_000)} min to go`);
    } catch (error) {
      failed.set(name, (failed.get(name) ?? 0) + 1);
      console.error(`${prefix} failed: ${error.message}`);
    }
  }
  if (measured > 0) console.error(`${measured} measurements in ${((performance.now() - begun) / 60_000).toFixed(1)} min`);
  for (const [name, times] of failed) console.error(`${name} failed ${times} times`);
  return failed.size;
}

/** What is to be measured, in the order in which it is: all servers in turns, again and again. */
function plan() {
  const todo = [];
  const leftOut = new Set();
  for (let round = 1; round <= Number(options.rounds); round++) {
    for (const workload of Object.keys(WORKLOADS).filter((name) => wanted.includes(name))) {
      const { servers: measured, rounds = Infinity } = WORKLOADS[workload];
      for (const server of measured.filter((name) => servers.includes(name))) {
        if (round > Math.min(rounds, SERVERS[server].rounds ?? Infinity)) continue;
        const absent = missing(server, WORKLOADS[workload]);
        for (const file of absent) leftOut.add(`${workload} ${server} is left out: ${relative(root, file)} is missing`);
        const args = loadArguments(server, WORKLOADS[workload], options.quick ? QUICK : 1);
        const line = { run, workload, server, round, args };
        if (absent.length === 0 && !journal.has(line)) todo.push(line);
      }
    }
  }
  for (const line of leftOut) console.error(line);
  return todo;
}

function refuseUnknown(what, names, known) {
  const unknown = names.filter((name) => !(name in known));
  if (unknown.length === 0) return;
  console.error(`no ${what} is called ${unknown.join(", ")}; there are: ${Object.keys(known).join(", ")}`);
  process.exit(2);
}

function told(workload, result) {
  const figure = at(result, workload.figure);
  return figure === undefined ? `no figure: ${JSON.stringify(result)}` : `${figure.toFixed(workload.digits ?? 2)} ${workload.unit}`;
}
