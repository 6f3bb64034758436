// Services as an operator meets them: configured, listed, asked, reloaded, outlived.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { eventually, run } from "../harness/programs.mjs";
import { freePort, serverCommand } from "../harness/server.mjs";
import { ask, metric, startGateway } from "./gateway.mjs";

const BOWLINE = serverCommand("gateway", "bowline").file;

/** An HTTP server that listens after a while; `DEAF=1` lets it never answer. */
const APP = `
import { createServer } from "node:http";
console.log("starting as", process.env.BOWLINE_SERVICE, process.env.GREETING ?? "");
setTimeout(() => {
  createServer((request, response) => process.env.DEAF || response.end("fine")).listen(Number(process.env.APP_PORT), "127.0.0.1", () => console.log("listening"));
}, Number(process.env.AFTER_MS ?? 0));
`;

/** Runs a command of bowline: `{ code, out, err }`. */
function bowline(args, { timeout = 60_000 } = {}) {
  const env = { ...process.env, BOWLINE_ADMIN_LISTEN: undefined };
  return new Promise((resolve) => {
    execFile(BOWLINE, args, { env, timeout }, (error, out, err) => resolve({ code: error ? error.code : 0, out, err }));
  });
}

const place = (gateway) => ["--state-dir", join(gateway.directory, "state")];

async function services(gateway) {
  const { services } = (await gateway.control("/api/v1/services")).json;
  return Object.fromEntries(services.map((service) => [service.name, service]));
}

/** Waits until a service is in a state, and returns it. */
const inState = (gateway, name, state) =>
  eventually(`${name} to be ${state}`, async () => {
    const service = (await services(gateway))[name];
    return service?.state === state ? service : false;
  });

const alive = (pid) => {
  try {
    process.kill(pid, 0);
    // A process that has ended and that nobody has waited for is none any more.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
};

test("services start in the order of their needs, and it is told everywhere how they are", async (t) => {
  const [app, admin] = [await freePort(), await freePort()];
  const toml = `
[services.db]
command = ["sleep", "1000"]
[services.api]
script = "app.mjs"
environment = { APP_PORT = "${app}", AFTER_MS = "4000", GREETING = "hush" }
needs = ["db"]
ready = [{ http = "http://127.0.0.1:${app}/", every = "100ms", contains = "fine" }]
required = true
`;
  const gateway = await startGateway({ toml, admin, files: { "app.mjs": APP } });
  t.after(() => gateway.stop());
  // Clients are served from the first moment on; only /health/ready says that something is missing.
  const early = await ask({ host: "127.0.0.1", port: gateway.port }, "/health/ready");
  assert.equal(early.status, 503, early.text);
  assert.deepEqual(early.json.components.map(({ name, kind }) => [name, kind]), [["db", "service"], ["api", "service"]]);
  assert.equal((await ask({ host: "127.0.0.1", port: gateway.port }, "/health/live")).status, 200);

  const starting = await eventually("the api to be a process", async () => {
    const all = await services(gateway);
    // It is none before what it needs is ready.
    if (all.api.pid !== null) assert.equal(all.db.state, "ready");
    return all.api.pid !== null && all.api.awaited ? all.api : false;
  });
  assert.match(starting.awaited, new RegExp(`http http://127.0.0.1:${app}/`));
  const ready = await inState(gateway, "api", "ready");
  assert.equal(ready.pid, starting.pid);
  assert.equal((await ask({ host: "127.0.0.1", port: app }, "/")).text, "fine");
  assert.match(ready.interpreter, /node/);
  await eventually("/health/ready", async () => (await ask({ host: "127.0.0.1", port: gateway.port }, "/health/ready")).status === 200);

  // The same over the admin listener as on the control socket.
  const { json: byAdmin } = await gateway.api("/api/v1/services/api");
  assert.equal(byAdmin.pid, ready.pid);
  assert.equal((await gateway.api("/api/v1/services/none")).status, 404);
  const page = (await gateway.api("/metrics")).text;
  assert.equal(metric(page, "bowline_service_state", 'service="api",state="ready"'), 1);
  assert.equal(metric(page, "bowline_service_state", 'service="api",state="starting"'), 0);
  assert.ok(metric(page, "bowline_service_ready_seconds", 'service="api"') >= 4);
  const status = await bowline(["status", ...place(gateway)]);
  assert.equal(status.code, 0);
  assert.match(status.out, new RegExp(`\\n {2}services\\n(.*\\n)* {2}api {2}ready.*pid ${ready.pid}`));
  const ls = JSON.parse((await bowline(["service", "ls", "--json", ...place(gateway)])).out);
  assert.deepEqual(ls.services.map(({ name, state }) => [name, state]), [["db", "ready"], ["api", "ready"]]);

  // A gateway that dies is no matter of theirs, and the next one knows them.
  const before = (await gateway.control("/api/v1/status")).json;
  process.kill(before.gateway.pid, "SIGKILL");
  await eventually("another gateway", async () => {
    const { gateway: now } = (await gateway.control("/api/v1/status")).json;
    return now.answered && now.pid !== before.gateway.pid;
  });
  const after = await services(gateway);
  assert.deepEqual([after.api.pid, after.api.restarts.total], [ready.pid, 0]);
  const again = (await gateway.api("/metrics")).text;
  assert.equal(metric(again, "bowline_service_state", 'service="api",state="ready"'), 1);

  const { pid: db } = after.db;
  await gateway.stop();
  assert.deepEqual([alive(ready.pid), alive(db)], [false, false]);
});

test("services are started, stopped and restarted by command, and a failure says why", async (t) => {
  const toml = `
[services.sleeper]
command = ["sleep", "1000"]
[services.broken]
command = ["sh", "-c", "echo no such table >&2; exit 3"]
backoff = { first = "10ms", max = "20ms" }
[services.missing]
command = ["./not-there"]
`;
  const gateway = await startGateway({ toml });
  t.after(() => gateway.stop());
  const at = place(gateway);
  const first = await inState(gateway, "sleeper", "ready");
  const restarted = await bowline(["service", "restart", "sleeper", ...at]);
  assert.equal(restarted.code, 0, restarted.err);
  assert.match(restarted.err, /^sleeper: ready/);
  const second = (await services(gateway)).sleeper;
  assert.notEqual(second.pid, first.pid);
  assert.deepEqual(second.restarts.by_reason, { asked: 1 });
  assert.equal(alive(first.pid), false);

  assert.equal((await bowline(["service", "stop", "sleeper", ...at])).code, 0);
  assert.equal(alive(second.pid), false);
  assert.equal((await services(gateway)).sleeper.state, "stopped");
  assert.equal((await bowline(["service", "start", "sleeper", ...at])).code, 0);
  assert.equal((await services(gateway)).sleeper.state, "ready");

  const loop = await inState(gateway, "broken", "crash-loop");
  assert.match(loop.text, /no such table/);
  assert.equal(loop.last_end.includes("code 3"), true, loop.last_end);
  const failed = await bowline(["service", "start", "broken", ...at]);
  assert.equal(failed.code, 1);
  assert.match(failed.err, /error\[service-not-ready\]: broken: .*code 3/);
  assert.match(failed.err, /\| no such table/);
  const missing = await inState(gateway, "missing", "failed");
  assert.match(missing.text, /not-there/);
  const unknown = await bowline(["service", "start", "nobody", ...at]);
  assert.equal(unknown.code, 1);
  assert.match(unknown.err, /error\[service-unknown\]/);

  // Two alerts by default: one for each that does not come up.
  const names = await eventually("the alerts", async () => {
    const { alerts } = (await gateway.control("/api/v1/status")).json;
    const names = alerts.map(({ name, labels }) => `${name} ${labels.service}`).sort();
    return names.length >= 3 ? names : false;
  });
  assert.ok(names.includes("BowlineServiceCrashLoop broken"), names);
  assert.ok(names.includes("BowlineServiceFailed missing"), names);
  assert.ok(names.includes("BowlineServiceRestarts broken"), names);
});

test("a log is shown, and followed over the admin listener as a stream of events", async (t) => {
  const toml = `
[services.talker]
command = ["sh", "-c", "echo one; echo two >&2; read wait < $DIR/gate; echo three; exec sleep 1000"]
`;
  const directory = mkdtempSync(join(tmpdir(), "bowline-gate-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  await new Promise((resolve, reject) => execFile("mkfifo", [join(directory, "gate")], (error) => (error ? reject(error) : resolve())));
  const gateway = await startGateway({ toml: toml.replace("$DIR", directory) });
  t.after(() => gateway.stop());
  const logs = await eventually("two lines", async () => {
    const { out } = await bowline(["service", "logs", "talker", ...place(gateway)]);
    return out.includes(" err two") ? out : false;
  });
  assert.match(logs, /^\d{4}-\d\d-\d\dT[\d:.]+Z out one$/m);

  const followed = [];
  const stream = await new Promise((resolve, reject) => {
    const asked = request({ host: "127.0.0.1", port: gateway.admin, path: "/api/v1/services/talker/logs?lines=1&follow" }, (response) => {
      response.setEncoding("utf8");
      response.on("data", (text) => followed.push(text));
      resolve(response);
    });
    asked.on("error", reject);
    asked.end();
  });
  t.after(() => stream.destroy());
  assert.equal(stream.headers["content-type"], "text/event-stream");
  await eventually("what was there", () => followed.join("").includes("data: "));
  assert.ok(!followed.join("").includes(" out three"));
  writeFileSync(join(directory, "gate"), "go\n");
  await eventually("what comes", () => /^data: .* out three$/m.test(followed.join("")));

  const text = await gateway.api("/api/v1/services/talker/logs?lines=2");
  assert.equal(text.headers["content-type"], "text/plain; charset=utf-8");
  assert.equal(text.text.trimEnd().split("\n").length, 2);
});

test("a reload takes services in and out, and restarts only what must be", async (t) => {
  const service = (name, more = "") => `[services.${name}]\ncommand = ["sleep", "1000"]\n${more}\n`;
  const gateway = await startGateway({ toml: service("kept") + service("changed") + service("gone") });
  t.after(() => gateway.stop());
  for (const name of ["kept", "changed", "gone"]) await inState(gateway, name, "ready");
  const before = await services(gateway);
  const head = `[admin]\nlisten = "127.0.0.1:${gateway.admin}"\n`;
  const write = (text) => writeFileSync(gateway.config, head + text);
  const reload = () => bowline(["reload", ...place(gateway)]);

  // A circle is refused whole, with the circle.
  write(service("kept", 'needs = ["new"]') + service("new", 'needs = ["kept"]'));
  const refused = await reload();
  assert.equal(refused.code, 2);
  assert.match(refused.err, /goes round in a circle: kept → new → kept/);
  assert.deepEqual(Object.keys(await services(gateway)), ["kept", "changed", "gone"]);

  write(service("kept", 'stop = { grace = "1s" }') + service("changed", 'environment = { A = "b" }') + service("new"));
  assert.equal((await reload()).code, 0);
  await inState(gateway, "new", "ready");
  const changed = await eventually("the changed one to be another", async () => {
    const { changed } = await services(gateway);
    return changed.state === "ready" && changed.pid !== before.changed.pid ? changed : false;
  });
  assert.deepEqual(changed.restarts.by_reason, { changed: 1 });
  const now = await services(gateway);
  assert.deepEqual(Object.keys(now), ["kept", "changed", "new"]);
  assert.equal(now.kept.pid, before.kept.pid);
  await eventually("what was taken out to be gone", () => !alive(before.gone.pid));
});

test("services outlive a server that is killed: the next one adopts them, or a stop ends them", async (t) => {
  const toml = '[services.sleeper]\ncommand = ["sleep", "1000"]\n[services.other]\ncommand = ["sleep", "1001"]\non-orphan = "end"\n';
  const first = await startGateway({ toml });
  t.after(() => first.stop());
  const sleeper = await inState(first, "sleeper", "ready");
  const other = await inState(first, "other", "ready");
  process.kill(first.pid, "SIGKILL");
  await first.exited;
  assert.deepEqual([alive(sleeper.pid), alive(other.pid)], [true, true]);
  const dead = await bowline(["status", ...place(first)]);
  assert.equal(dead.code, 1);
  assert.match(dead.out, /its services still run: other, sleeper;/);

  const args = ["serve", "--listen", `127.0.0.1:${first.port}`, "--config", first.config, ...place(first)];
  const env = { BOWLINE_ADMIN_LISTEN: undefined };
  const second = await run(BOWLINE, args, { port: first.port, env });
  t.after(() => second.stop());
  const adopted = await inState(first, "sleeper", "ready");
  assert.deepEqual([adopted.pid, adopted.adopted], [sleeper.pid, true]);
  const anew = await inState(first, "other", "ready");
  assert.notEqual(anew.pid, other.pid);
  assert.equal(alive(other.pid), false);

  second.kill("SIGKILL");
  await second.exited;
  assert.deepEqual([alive(adopted.pid), alive(anew.pid)], [true, true]);
  const stopped = await bowline(["stop", ...place(first)]);
  assert.equal(stopped.code, 0, stopped.err);
  assert.match(stopped.err, /its service sleeper still ran and was ended/);
  assert.deepEqual([alive(adopted.pid), alive(anew.pid)], [false, false]);
  assert.equal(existsSync(join(first.directory, "state", "record.json")), false);
});

/** Takes its listening socket from the server, as from systemd, and says when it is ready. */
const ACTIVATED = `
import { createServer } from "node:http";
if (process.env.LISTEN_FDS !== "1" || process.env.LISTEN_PID !== String(process.pid)) process.exit(9);
const server = createServer((request, response) => response.setHeader("connection", "close").end(String(process.pid)));
process.on("SIGTERM", () => server.close());
setTimeout(() => server.listen({ fd: 3 }, () => console.log("it listens")), 500);
`;

test("a restart with overlap refuses nobody", async (t) => {
  const port = await freePort();
  const toml = `
[services.app]
script = "app.mjs"
listen = ["127.0.0.1:${port}"]
ready = [{ log = "it listens" }]
overlap = true
`;
  const gateway = await startGateway({ toml, files: { "app.mjs": ACTIVATED } });
  t.after(() => gateway.stop());
  const first = await inState(gateway, "app", "ready");
  const answers = new Map();
  let asking = true;
  const asker = (async () => {
    while (asking) {
      const { status, text } = await ask({ host: "127.0.0.1", port }, "/");
      assert.equal(status, 200);
      answers.set(text, (answers.get(text) ?? 0) + 1);
    }
  })();
  const restarted = await bowline(["service", "restart", "app", ...place(gateway)]);
  assert.equal(restarted.code, 0, restarted.err);
  const second = (await services(gateway)).app;
  await eventually("the second to answer", () => answers.has(String(second.pid)));
  asking = false;
  await asker;
  assert.deepEqual([...answers.keys()], [String(first.pid), String(second.pid)]);
  assert.equal(alive(first.pid), false);
});

test("services are stopped when the gateway is gone; asked again, they are killed", async (t) => {
  const toml = `
[services.stubborn]
command = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]
ready = [{ log = "ready" }]
stop = { grace = "10m" }
`;
  const gateway = await startGateway({ toml });
  t.after(() => gateway.stop());
  const stubborn = await inState(gateway, "stubborn", "ready");
  gateway.kill("SIGTERM");
  const status = await eventually("the gateway to be gone", async () => {
    const status = (await gateway.control("/api/v1/status")).json;
    return status.state === "draining" && status.gateway.pid === null ? status : false;
  });
  assert.equal(status.services[0].state, "stopping");
  assert.equal(alive(stubborn.pid), true);
  const late = await bowline(["stop", "--wait", "1s", ...place(gateway)]);
  // Asked once more, which is what kills them: it may be over by now.
  assert.ok([0, 75].includes(late.code), late.err);
  await gateway.exited;
  assert.equal(alive(stubborn.pid), false);
});
