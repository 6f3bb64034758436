// Links that come, change and go while the server runs; and what waits over a restart of it.

import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { eventually, run } from "../harness/programs.mjs";
import { freePort, serverCommand } from "../harness/server.mjs";
import { ask, startGateway } from "../operations/gateway.mjs";
import { bowline, place } from "../operations/services.mjs";
import { startApp } from "./app.mjs";
import { startEcho } from "./echo.mjs";

const link = (service, name, more = "") => `
[links.${name}]
profile = "websocket"
url = "${service.url}/bots/${name}"
message-id = "/id"
room = "/room"
probe = '{"type":"probe","nonce":"{nonce}"}'
${more}
`;

test("links come, change and go with a reload, and those that stay do not notice", { timeout: 240_000 }, async (t) => {
  const service = await startEcho();
  const gateway = await startGateway();
  t.after(async () => {
    await gateway.stop();
    await service.stop();
  });
  const listen = `127.0.0.1:${await freePort()}`;
  const first = readFileSync(gateway.config, "utf8");
  const reload = async (toml, code = 0) => {
    writeFileSync(gateway.config, `${first}\n${toml}`);
    const { code: got, out, err } = await bowline(["reload", ...place(gateway)]);
    assert.equal(got, code, out + err);
    return out + err;
  };
  const links = async () => (await gateway.control("/api/v1/links")).json.links;
  const live = (name) =>
    eventually(`${name} to be live`, async () => (await links()).find((link) => link.name === name && link.state === "live"));

  // Without a link there is nothing of it: no thread, no file.
  const threads = async () => {
    const { pid } = (await gateway.control("/api/v1/status")).json.gateway;
    return readdirSync(`/proc/${pid}/task`).map((id) => readFileSync(`/proc/${pid}/task/${id}/comm`, "utf8").trim());
  };
  assert.ok(!(await threads()).includes("links"), (await threads()).join());
  const directory = join(gateway.directory, "state", "links");
  assert.ok(!existsSync(directory));

  // The master did not know that bots would come: the gateway listens for them by itself.
  await reload(`[links]\nlisten = "${listen}"\n${link(service, "ann")}`);
  const before = await live("ann");
  assert.ok((await threads()).includes("links"));
  const env = JSON.parse((await bowline(["link", "env", "ann", "--json", ...place(gateway)])).out);
  assert.ok(env.HTTPS_PROXY.startsWith("http://ann:"), env.HTTPS_PROXY);

  await reload(link(service, "ann") + link(service, "bob", 'max-age = "1h"'));
  await live("bob");
  const after = (await links()).find(({ name }) => name === "ann");
  assert.equal(after.connection.number, before.connection.number);
  assert.equal(after.since, before.since);

  // A token that is not there changes nothing.
  const missing = link(service, "mo", 'token-file = "nowhere"\nheaders = { Authorization = "{token}" }');
  assert.match(await reload(link(service, "ann") + missing, 2), /token-file/);
  assert.deepEqual((await links()).map(({ name }) => name).sort(), ["ann", "bob"]);

  await reload(link(service, "ann"));
  await eventually("bob to be gone", async () => (await links()).length === 1);
  await eventually("its connection to be closed", () => service.bot("bob").connections.size === 0);
});

test("a message that waits outlives the server, and is offered by the next one", { timeout: 240_000 }, async (t) => {
  const service = await startEcho();
  const app = await startApp();
  const started = [];
  t.after(async () => {
    for (const one of started.reverse()) await one.stop(10_000);
    await app.stop();
    await service.stop();
  });
  const nobody = await freePort();
  const toml = (port) => `[backends.app]\nurl = "http://127.0.0.1:${port}/"\n${link(service, "ann", 'deliver = { http = "app" }')}`;
  const gateway = await startGateway({ toml: toml(nobody) });
  started.push({ stop: () => gateway.stop() });
  const waiting = () => gateway.control("/api/v1/links").then(({ json }) => json.links[0]?.messages.waiting);
  await eventually("ann to be live", async () => (await gateway.control("/api/v1/links")).json.links[0]?.state === "live");
  const said = ["one", "two", "three"].map((text) => service.bot("ann").hear("lobby", text));
  await eventually("them to wait", async () => (await waiting()) === 3);
  assert.match((await bowline(["link", "ls", ...place(gateway)])).out, /the app "app" .*\n.*3 messages wait, the oldest for /);

  const stopped = await bowline(["stop", ...place(gateway)]);
  assert.equal(stopped.code, 0, stopped.err);
  writeFileSync(gateway.config, `[admin]\nlisten = "127.0.0.1:${gateway.admin}"\n${toml(app.port)}`);
  const { file } = serverCommand("gateway", "bowline");
  const args = ["serve", "--listen", `127.0.0.1:${gateway.port}`, "--config", gateway.config, "--state-dir", join(gateway.directory, "state")];
  started.push(await run(file, args, { port: gateway.port, env: { BOWLINE_ADMIN_LISTEN: undefined } }));
  await eventually("all three, in order", () => app.deliveries.length === 3);
  assert.deepEqual(app.deliveries.map(({ id }) => id), said.map(({ id }) => id));
  // Only the first of the room was tried before it was known that nobody was there.
  assert.equal(app.deliveries[2].attempt, 1, JSON.stringify(app.deliveries));
  await eventually("none to wait", async () => {
    const { json } = await ask({ socketPath: join(gateway.directory, "state", "control.sock") }, "/api/v1/links");
    return json.links[0]?.messages.waiting === 0;
  });
});

test("what waits of a link that is taken out is offered when it is back, or dropped by hand; its bot alone may change", { timeout: 240_000 }, async (t) => {
  const service = await startEcho();
  const app = await startApp();
  const backend = (port) => `[backends.app]\nurl = "http://127.0.0.1:${port}/"\n`;
  const ann = (more = "") => link(service, "ann", `deliver = { http = "app" }\n${more}`);
  const nobody = await freePort();
  const gateway = await startGateway({ toml: backend(nobody) + ann() + link(service, "bob") });
  t.after(async () => {
    await gateway.stop();
    await app.stop();
    await service.stop();
  });
  const first = readFileSync(gateway.config, "utf8");
  const cli = (...args) => bowline([...args, ...place(gateway)]);
  const reload = async (toml) => {
    writeFileSync(gateway.config, `${first.slice(0, first.indexOf("[backends.app]"))}\n${toml}`);
    const { code, out, err } = await cli("reload");
    assert.equal(code, 0, out + err);
  };
  const links = async () => (await gateway.control("/api/v1/links")).json;
  const of = async (name) => (await links()).links.find((link) => link.name === name);
  const live = () => eventually("ann to be live", async () => (await of("ann"))?.state === "live");
  await live();

  const before = await of("ann");
  await reload(backend(nobody) + ann("offers-max = 3\nconfirm-timeout = \"7s\"\n") + link(service, "bob"));
  const said = service.bot("ann").hear("lobby", "one");
  await eventually("it to wait", async () => (await of("ann")).messages.waiting === 1);
  assert.equal((await of("ann")).connection.number, before.connection.number);
  assert.equal(service.bot("ann").connections.size, 1);

  await reload(backend(nobody) + link(service, "bob"));
  await eventually("ann to be gone", async () => (await of("ann")) === undefined);
  assert.deepEqual((await links()).gone.map(({ name, waiting }) => ({ name, waiting })), [{ name: "ann", waiting: 1 }]);
  assert.match((await cli("link", "ls")).out, /^ann is not configured any more and has 1 message waiting: .* deleted in 6d 23h;/m);
  const farewell = /ann is not configured any more and has 1 message waiting: /;
  assert.match((await bowline(["status", ...place(gateway)])).out, farewell);
  assert.deepEqual((await gateway.control("/api/v1/status")).json.links_gone.map(({ name }) => name), ["ann"]);
  const shown = await cli("link", "show", "ann");
  assert.equal(shown.code, 1);
  assert.match(shown.err, farewell);
  await reload(backend(app.port) + ann() + link(service, "bob"));
  await eventually("the app to get it", () => app.of(said.id).length === 1);
  await eventually("none to wait", async () => (await of("ann")).messages.waiting === 0);
  assert.deepEqual((await links()).gone, []);

  await reload(backend(nobody) + ann() + link(service, "bob"));
  await live();
  for (const text of ["two", "three"]) service.bot("ann").hear("lobby", text);
  await eventually("both to wait", async () => (await of("ann")).messages.waiting === 2);
  assert.match((await cli("link", "drop", "ann")).err, /error\[link-kept\]/);
  await reload(backend(nobody) + link(service, "bob"));
  await eventually("ann to be gone", async () => (await links()).gone.length === 1);
  assert.match((await cli("link", "drop", "ann")).err, /^ann: 2 messages dropped$/m);
  assert.match((await cli("link", "drop", "ann")).err, /error\[link-unknown\]/);
  assert.deepEqual((await links()).gone, []);

  await reload(link(service, "dan").replace(/^probe = .*\n/m, ""));
  await eventually("dan to be live", async () => (await of("dan"))?.state === "live");
  assert.match((await cli("link", "show", "dan")).out, /^dan +live since .*: open; it has no probe$/m);
  const { code, err } = await cli("link", "probe", "dan");
  assert.equal(code, 1);
  assert.match(err, /error\[link-unprobed\].*dan: impossible: the link has no probe[^]*retry: +will not help/);
});
