// Six components that take their time: the port answers at once and says how far the start is.

import assert from "node:assert/strict";
import { connect } from "node:net";
import { test } from "node:test";

import { eventually, run } from "../harness/programs.mjs";
import { freePort } from "../harness/server.mjs";
import { ask } from "./gateway.mjs";

test("a slow start is told from the first answer on, and progress climbs", async (t) => {
  const port = await freePort();
  const began = process.hrtime.bigint();
  const server = await run(process.env.SLOW_START_BIN, ["--listen", `127.0.0.1:${port}`, "--seconds", "3"], { port });
  t.after(() => server.stop());
  console.log(`the port accepted ${Number(process.hrtime.bigint() - began) / 1e6} ms after exec`);

  const where = { host: "127.0.0.1", port };
  assert.equal((await ask(where, "/health/live")).status, 200);
  const first = await ask(where, "/health/ready");
  assert.equal(first.status, 503, first.text);
  assert.equal(first.json.status, "starting");
  assert.equal(first.json.components.length, 6);

  // What a TCP probe and an HTTP probe of a supervisor see from the first try.
  await new Promise((resolve, reject) => connect(port, "127.0.0.1", resolve).once("error", reject));

  const seen = [];
  const done = await eventually("ready", async () => {
    const answer = await ask(where, "/health/ready");
    seen.push(answer.json.components.reduce((sum, { state, progress }) => sum + (state === "ready" ? 1 : progress ?? 0), 0));
    for (const { state, waiting_for } of answer.json.components) if (state === "waiting") assert.ok(waiting_for.length > 0);
    return answer.status === 200 ? answer : false;
  });
  assert.equal(done.json.status, "ready");
  assert.ok(seen.every((value, i) => i === 0 || value >= seen[i - 1]), `progress fell: ${seen}`);
  assert.ok(new Set(seen).size >= 6, `progress did not climb: ${seen}`);
});
