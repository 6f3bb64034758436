// `/health/websocket` goes the way that clients go: through the proxy that `health.public-url` names.

import assert from "node:assert/strict";
import { test } from "node:test";
import { io } from "socket.io-client";

import { eventually, nginx, nginxServer } from "../harness/programs.mjs";
import { freePort } from "../harness/server.mjs";
import { startGateway } from "./gateway.mjs";

const STRIPPED = `proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;`;

const publicUrl = (port) => `[health]\npublic-url = "http://127.0.0.1:${port}"\n`;

test("behind a proxy that passes upgrades on, every step is ok", async (t) => {
  const proxyPort = await freePort();
  const gateway = await startGateway({ toml: publicUrl(proxyPort) });
  t.after(() => gateway.stop());
  const proxy = await nginx(proxyPort, nginxServer(proxyPort, gateway.port));
  t.after(() => proxy.stop());

  const answer = await gateway.api("/health/websocket");
  assert.equal(answer.status, 200, answer.text);
  const { status, websocket_enabled, steps } = answer.json;
  assert.equal(status, "ok");
  assert.equal(websocket_enabled, true);
  assert.deepEqual(steps.map(({ name, ok }) => [name, ok]), ["open", "poll", "upgrade", "event", "ack"].map((name) => [name, true]));
  assert.ok(steps.every(({ ms }) => typeof ms === "number"), answer.text);
});

test("behind a proxy that strips Upgrade it fails and names the upgrade", async (t) => {
  const proxyPort = await freePort();
  const gateway = await startGateway({ toml: publicUrl(proxyPort) });
  t.after(() => gateway.stop());
  const proxy = await nginx(proxyPort, nginxServer(proxyPort, gateway.port, { headers: STRIPPED }));
  t.after(() => proxy.stop());

  const answer = await gateway.api("/health/websocket");
  assert.equal(answer.status, 503, answer.text);
  const { status, steps } = answer.json;
  assert.equal(status, "failed");
  const failed = steps.filter(({ ok, skipped }) => ok === false && !skipped).map(({ name }) => name);
  assert.equal(failed[0], "upgrade", answer.text);
  assert.ok(steps.filter(({ name }) => name === "open" || name === "poll").every(({ ok }) => ok), answer.text);
  assert.match(steps.find(({ name }) => name === "upgrade").error, /upgrade/i);
});

test("without a proxy it goes through the listener", async (t) => {
  const gateway = await startGateway();
  t.after(() => gateway.stop());
  const before = (await gateway.api("/metrics")).text;
  const answer = await gateway.api("/health/websocket");
  assert.equal(answer.status, 200, answer.text);
  // Probes are not clients.
  const after = (await gateway.api("/metrics")).text;
  const connects = (page) => page.split("\n").filter((line) => line.startsWith("bowline_connects_total")).join("\n");
  assert.equal(connects(after), connects(before));
});

test("behind a proxy that cuts idle connections it stays ok, and an alert says what cuts", async (t) => {
  const proxyPort = await freePort();
  const rules = `[rules.BowlineIdleConnectionsCut]\nfor = "0s"\n`;
  const gateway = await startGateway({
    toml: `${publicUrl(proxyPort)}[alerts]\nrules-file = "$DIR/rules.toml"\n`,
    files: { "rules.toml": rules },
  });
  t.after(() => gateway.stop());
  const proxy = await nginx(proxyPort, nginxServer(proxyPort, gateway.port, { more: "proxy_read_timeout 4s;" }));
  t.after(() => proxy.stop());

  const clients = Array.from({ length: 8 }, () => io(`http://127.0.0.1:${proxyPort}`, { transports: ["websocket"], forceNew: true, reconnectionDelay: 50 }));
  t.after(() => clients.forEach((client) => client.close()));
  await Promise.all(clients.map((client) => new Promise((resolve) => client.once("connect", resolve))));

  const fired = await eventually("the alert", async () => {
    const { alerts } = (await gateway.api("/api/v1/status")).json;
    return alerts.find(({ name }) => name === "BowlineIdleConnectionsCut");
  });
  assert.match(`${fired.summary} ${fired.remedy}`, /idle|timeout/i);
  const answer = await gateway.api("/health/websocket");
  assert.equal(answer.status, 200, answer.text);
});
