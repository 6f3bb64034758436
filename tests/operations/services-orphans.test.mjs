// The server is killed with -9 while a service runs that has a descendant of the worst kind: nothing of it is lost, doubled or left.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { eventually, run } from "../harness/programs.mjs";
import { after, serverCommand } from "../harness/server.mjs";
import { startGateway } from "./gateway.mjs";
import { APPS, alive, bowline, inState, known, living, place, withinEnvironment } from "./services.mjs";

test("a service goes on without its server, log and all, until the next server or a stop", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "bowline-orphans-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const mark = `MARK=services-orphans-${process.pid}`;
  const toml = `
[services.counter]
script = "${APPS}/counter.py"
args = ["${directory}"]
environment = { MARK = "${mark.slice(5)}", PYTHONDONTWRITEBYTECODE = "1" }
ready = [{ notify = true }]
stop = { grace = "1s" }
backoff = { first = "50ms" }
logs = { timestamps = false }
`;
  // Somebody else's process that says it is of a service of this name.
  const env = { ...process.env, BOWLINE_SERVICE: "counter", BOWLINE_SERVICE_ID: "of-another-server" };
  const foreign = spawn("sleep", ["1000"], { env, stdio: "ignore", detached: true });
  t.after(() => foreign.kill("SIGKILL"));
  const first = await startGateway({ toml });
  t.after(() => first.stop());
  const before = await inState(first, "counter", "ready");
  const family = known(withinEnvironment(mark));
  assert.equal(family.length, 2, "the service, and the one that has left it");
  await eventually("fifty numbers", async () => (await numbers(first)).length > 50);
  process.kill(first.pid, "SIGKILL");
  await first.exited;
  // It prints all the while, and nobody reads.
  await after(500);
  assert.equal(living(family).length, 2);

  const second = await serveAgain(t, first);
  const adopted = await inState(first, "counter", "ready");
  assert.deepEqual([adopted.pid, adopted.adopted, adopted.restarts.total], [before.pid, true, 0]);
  const older = Math.abs(new Date(adopted.started) - new Date(before.started));
  assert.ok(older < 5000, `it began ${older} ms from when it began`);
  const count = (await numbers(first)).length;
  await eventually("more numbers", async () => (await numbers(first)).length > count + 50);
  const all = await numbers(first);
  assert.equal(all[0], 0);
  // What the dead server had read and not written is all that may be missing: one piece.
  const gaps = all.flatMap((number, i) => (i > 0 && number !== all[i - 1] + 1 ? [`${all[i - 1]}→${number}`] : []));
  assert.ok(gaps.length <= 1, `${gaps}`);
  console.log(`${all.length} lines over the death of the server, ${gaps.length === 0 ? "none missing" : `missing: ${gaps}`}`);

  // Its end nobody could see; what it left is gone before the next one starts.
  process.kill(adopted.pid, "SIGKILL");
  const again = await inState(first, "counter", "ready", ({ pid }) => pid !== adopted.pid);
  assert.deepEqual([again.adopted, again.restarts.by_reason], [false, { unknown: 1 }]);
  assert.match(again.last_end, /nobody saw how/);
  assert.deepEqual(living(family), []);

  // Dead again; this time somebody stops what is left.
  second.kill("SIGKILL");
  await second.exited;
  const left = known(withinEnvironment(mark));
  assert.equal(left.length, 2);
  const stopped = await bowline(["stop", ...place(first)]);
  assert.equal(stopped.code, 0, stopped.err);
  console.log(stopped.err.trim());
  assert.deepEqual(living(left), []);
  assert.deepEqual(withinEnvironment(mark), []);
  assert.equal(existsSync(join(directory, "second")), false, "a second instance ran beside the first");
  assert.ok(alive(foreign.pid), "a foreign process was signalled");
});

/** Another server in the place of one that is dead. */
async function serveAgain(t, gateway) {
  const { file } = serverCommand("gateway", "bowline");
  const args = ["serve", "--listen", `127.0.0.1:${gateway.port}`, "--config", gateway.config, ...place(gateway)];
  const server = await run(file, args, { port: gateway.port, env: { BOWLINE_ADMIN_LISTEN: undefined } });
  t.after(() => server.stop());
  return server;
}

/** What the service has printed, as its log has it. */
async function numbers(gateway) {
  const { out } = await bowline(["service", "logs", "counter", "--lines", "10000", ...place(gateway)]);
  return [...out.matchAll(/^number (\d+)$/gm)].map(([, number]) => Number(number));
}
