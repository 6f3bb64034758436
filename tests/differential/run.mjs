// The differential runner: the same bytes to npm engine.io / socket.io and to Bowline, compared.
//
//   ENGINE_ECHO_BIN=... SOCKET_SUITE_BIN=... [BOWLINE_BIN=...] npm run differential [-- NAME...]
//
// A kind of server whose variable is not set is compared with a second reference, which proves that the scripts themselves
// are steady; REQUIRE_BOWLINE=1 makes that an error. With names, only the scripts whose name contains one of them are played,
// and their transcripts are printed.

import { readdirSync } from "node:fs";
import { bowlineBinary, serverCommand, startServer } from "../harness/server.mjs";
import { differences } from "./compare.mjs";
import { INTENDED } from "./intended.mjs";
import { play } from "./play.mjs";

/** Scripts played at a time: most of them wait more than they work. */
const PARALLEL = 6;

const wanted = process.argv.slice(2);
const directory = new URL("./scripts/", import.meta.url);
const scripts = [];
for (const file of readdirSync(directory).filter((name) => name.endsWith(".mjs")).sort()) {
  const { default: area } = await import(new URL(file, directory));
  scripts.push(...area.scripts.map((script) => ({ server: area.server, flags: {}, ...script, area: area.area })));
}
const names = scripts.map((script) => script.name);
const twice = names.filter((name, i) => names.indexOf(name) !== i);
if (twice.length) throw new Error(`scripts of the same name: ${twice}`);

const selected = scripts.filter((script) => !wanted.length || wanted.some((part) => script.name.includes(part)));
const started = Date.now();
const servers = new Map();
const results = [];

try {
  const queue = [...selected];
  await Promise.all(
    Array.from({ length: PARALLEL }, async () => {
      for (let script; (script = queue.shift()); ) results.push(await compareOnce(script));
    }),
  );
  // a difference on a busy machine may be one of timing: it counts when it appears again with nothing beside it
  for (const [i, first] of results.entries()) {
    if (first.unintended.length) {
      const again = await compareOnce(first.script);
      results[i] = again.unintended.length ? again : { ...again, unsteady: first.unintended };
    }
  }
} finally {
  await Promise.all([...servers.values()].map(async (pair) => (await pair).map((server) => server.stop())));
}
report();

async function compareOnce(script) {
  const [reference, other] = await serversFor(script);
  const [expected, actual] = await Promise.all([play(script, reference), play(script, other)]);
  const stuck = expected.find(({ fields }) => fields.timeout);
  const found = differences(script, expected, actual);
  const unintended = found.filter((difference) => !difference.intended);
  if (stuck) unintended.unshift({ step: stuck.step, field: "the script", reference: stuck.fields.timeout, bowline: "(the reference must get through)" });
  return { script, expected, actual, found, unintended };
}

/** One pair of servers for each kind and set of flags, started when first needed. */
function serversFor({ server: kind, flags }) {
  const key = `${kind} ${JSON.stringify(flags)}`;
  if (!servers.has(key)) {
    const side = bowlineBinary(kind) ? "bowline" : "reference";
    servers.set(key, Promise.all([startServer(serverCommand(kind, "reference"), flags), startServer(serverCommand(kind, side), flags)]));
  }
  return servers.get(key);
}

function report() {
  const show = (value) => (value === undefined ? "(absent)" : JSON.stringify(value));
  for (const { script, unintended, unsteady, expected, actual } of results) {
    if (wanted.length) {
      console.log(`-- ${script.name}`);
      for (const [i, { step, fields }] of expected.entries()) {
        console.log(`   ${step}\n      reference ${JSON.stringify(fields)}\n      other     ${JSON.stringify(actual[i]?.fields)}`);
      }
    }
    if (unintended.length) console.log(`DIFFERENT ${script.area}: ${script.name}`);
    for (const { step, field, reference, bowline } of unintended) {
      console.log(`    step ${step}\n      ${field}: reference ${show(reference)}, bowline ${show(bowline)}`);
    }
    if (unsteady) console.log(`unsteady  ${script.area}: ${script.name} (differed once: ${unsteady[0].field}, ${show(unsteady[0].reference)} and ${show(unsteady[0].bowline)})`);
  }

  const kinds = [...new Set(selected.map((script) => script.server))];
  const against = kinds.map((kind) => `${kind}: ${bowlineBinary(kind) ? "bowline" : "a second reference"}`);
  const complete = !wanted.length && kinds.every(bowlineBinary);
  const used = new Set(results.flatMap(({ found }) => found.map((difference) => difference.intended)));
  const stale = complete ? INTENDED.filter((row) => !used.has(row.id)) : [];
  for (const row of stale) console.log(`STALE     no script meets the intended difference "${row.id}" any more`);

  const different = results.filter(({ unintended }) => unintended.length).length;
  const intended = results.filter(({ found, unintended }) => found.length && !unintended.length).length;
  console.log(`compared with the reference: ${against.join(", ")}`);
  console.log(`${results.length} scripts: ${results.length - different} equal or intended (${intended} with an intended difference), ${different} different (${((Date.now() - started) / 1000).toFixed(1)} s)`);
  const missing = process.env.REQUIRE_BOWLINE && !kinds.every(bowlineBinary);
  if (missing) console.log("REQUIRE_BOWLINE is set, and not every kind of server has its binary");
  if (different || stale.length || missing) process.exitCode = 1;
}
