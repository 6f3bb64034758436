// How long after exec the first answer comes: 20 starts, one after another, of the server under
// test. Figures are printed, not asserted; the aim is 50 ms (DESIGN section 6).
//
//   npm run starts        STARTS=20; best with a release build: BOWLINE_BIN=../target/release/bowline
import { spawn } from "node:child_process";
import { once } from "node:events";

import { Target, isLive, targetName } from "../clients/target.mjs";
import { freePort } from "../harness/server.mjs";

const STARTS = Number(process.env.STARTS ?? 20);
const DEADLINE = 60_000;

/** Milliseconds from just before exec until `/health/live` has answered. */
async function start() {
  const target = new Target({}, await freePort());
  const begun = process.hrtime.bigint();
  target.launch();
  while (!(await isLive(target.port))) {
    if (target.ended !== undefined || elapsed(begun) > DEADLINE) throw new Error(`no answer\n${target.log}`);
  }
  const milliseconds = elapsed(begun);
  await target.stop();
  return milliseconds;
}

/** What spawning any process costs here: the floor under the figure above. */
async function floor() {
  const begun = process.hrtime.bigint();
  await once(spawn("true", { stdio: "ignore" }), "exit");
  return elapsed(begun);
}

function elapsed(since) {
  return Number(process.hrtime.bigint() - since) / 1e6;
}

function summary(figures) {
  const sorted = figures.toSorted((a, b) => a - b);
  const median = (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
  return `min ${sorted[0].toFixed(1)}, median ${median.toFixed(1)}, max ${sorted.at(-1).toFixed(1)} ms`;
}

const starts = [];
const floors = [];
for (let i = 0; i < STARTS; i++) {
  floors.push(await floor());
  starts.push(await start());
}
console.log(`first answer of ${targetName} after exec, ${STARTS} starts: ${summary(starts)}`);
console.log(`spawning and ending \`true\`: ${summary(floors)}`);
console.log(`${starts.filter((ms) => ms <= 50).length} of ${STARTS} within 50 ms`);
console.log(`${starts.length} passed, 0 failed`);
