// 128 descriptors and 500 clients: those who are in are served, those who are not are told, the operator is told too.

import assert from "node:assert/strict";
import { test } from "node:test";
import { io } from "socket.io-client";

import { alertmanager, eventually } from "../harness/programs.mjs";
import { startGateway } from "./gateway.mjs";

const CLIENTS = 500;

test("when descriptors run out nobody who is connected notices, and everybody else is told", async (t) => {
  const receiver = await alertmanager();
  t.after(() => receiver.stop());
  const gateway = await startGateway({
    openFiles: 128,
    toml: `[alerts]\nrules-file = "$DIR/rules.toml"\nalertmanager-url = "http://127.0.0.1:${receiver.port}"\n`,
    files: { "rules.toml": `[rules.BowlineConnectionsNearLimit]\nfor = "0s"\n` },
  });
  t.after(() => gateway.stop());

  const options = { transports: ["websocket"], forceNew: true, reconnectionDelay: 200, reconnectionDelayMax: 1000 };
  const clients = Array.from({ length: CLIENTS }, () => io(gateway.url, options));
  t.after(() => clients.forEach((client) => client.close()));
  const inside = () => clients.filter((client) => client.connected);
  const first = await eventually("a full house", () => (inside().length >= 40 ? inside() : false));

  // Those who are in are served, and the operator's questions are answered.
  for (let round = 0; round < 5; round++) {
    const answers = await Promise.all(first.map((client) => client.timeout(60_000).emitWithAck("still", round)));
    assert.deepEqual(answers, first.map(() => round));
    assert.equal((await gateway.api("/health/live")).status, 200);
    assert.equal((await gateway.api("/health/ready")).status, 200);
    assert.equal((await gateway.api("/api/v1/status")).status, 200);
  }
  assert.ok(first.every((client) => client.connected), "somebody who was in has been thrown out");
  const page = (await gateway.api("/metrics")).text;
  assert.match(page, /bowline_limit_hits_total\{limit="connections"\} [1-9]/);

  const firing = await eventually("the alert at Alertmanager", async () => (await receiver.alerts()).find(({ labels }) => labels.alertname === "BowlineConnectionsNearLimit"));
  assert.ok(firing.annotations.summary && firing.labels.severity, JSON.stringify(firing));

  // Room is made: others get in by themselves.
  first.forEach((client) => client.close());
  await eventually("others to get in", () => inside().length >= 40);
  clients.forEach((client) => client.close());
  await eventually("the alert to resolve", async () => (await receiver.alerts()).every(({ labels }) => labels.alertname !== "BowlineConnectionsNearLimit"), 120_000);

  const told = gateway.said().split("\n").filter((line) => /limits\.connections|cannot accept|connection limit/i.test(line));
  assert.ok(told.length >= 1 && told.length <= 3, `one folded line, please:\n${gateway.said()}`);
});
