// Alerts from a running server: to a real Alertmanager and to a webhook, in the status and in the metrics, and after a reload.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import { io } from "socket.io-client";

import { alertmanager, eventually } from "../harness/programs.mjs";
import { bowlineBinary } from "../harness/server.mjs";
import { metric, startGateway } from "./gateway.mjs";

const RULES = `[labels]
site = "berlin"
[rules.SomebodyIsThere]
kind = "value"
of = 'bowline_sessions{state="connected"}'
above = 0
severity = "info"
summary = "{value} sessions are {state}"
remedy = "Nothing: this is a test."
`;

test("an alert reaches every receiver, is shown, and ends for all of them when a reload switches its rule off", async (t) => {
  const receiver = await alertmanager();
  t.after(() => receiver.stop());
  const hook = await webhook([503]);
  t.after(() => hook.stop());
  const gateway = await startGateway({
    toml: `[alerts]\nrules-file = "$DIR/rules.toml"\nalertmanager-url = "http://127.0.0.1:${receiver.port}"\nwebhook-url = "${hook.url}"\n`,
    files: { "rules.toml": RULES },
  });
  t.after(() => gateway.stop());

  // A server that starts connects to itself.
  await eventually("an empty house", async () => metric((await gateway.api("/metrics")).text, "bowline_sessions", "connected") === 0);
  const client = io(gateway.url, { forceNew: true });
  t.after(() => client.close());
  await new Promise((resolve) => client.once("connect", resolve));

  const atReceiver = async () => (await receiver.alerts()).find(({ labels }) => labels.alertname === "SomebodyIsThere");
  const alert = await eventually("the alert at Alertmanager", atReceiver);
  assert.equal(alert.annotations.summary, "1 sessions are connected");
  const { instance, ...labels } = alert.labels;
  assert.deepEqual(labels, { alertname: "SomebodyIsThere", severity: "info", state: "connected", site: "berlin", job: "bowline" });
  assert.ok(instance.endsWith(`:${gateway.admin}`), instance);

  // The webhook refused the first attempt and is told again, with the same id.
  const [first, second] = await eventually("the letters", () => hook.letters.length >= 2 && hook.letters);
  assert.deepEqual(second, first);
  assert.equal(first.status, "firing");
  assert.equal(first.labels.site, "berlin");

  const { alerts } = (await gateway.api("/api/v1/status")).json;
  assert.deepEqual(alerts.map(({ name, severity }) => [name, severity]), [["SomebodyIsThere", "info"]]);
  const page = (await gateway.api("/metrics")).text;
  assert.equal(metric(page, "bowline_alerts_firing", 'alert="SomebodyIsThere"'), 1);
  assert.equal(metric(page, "bowline_alert_deliveries_total", 'receiver="webhook",outcome="failed"'), 1);

  // A file with a mistake is refused, and what fires goes on.
  const file = join(gateway.directory, "rules.toml");
  writeFileSync(file, RULES.replace("above", "abvoe"));
  const refused = await gateway.control("/api/v1/reload", { method: "POST" });
  assert.notEqual(refused.status, 200, refused.text);
  assert.ok(await atReceiver());

  writeFileSync(file, `${RULES}enabled = false\n`);
  const reloaded = await gateway.control("/api/v1/reload", { method: "POST" });
  assert.equal(reloaded.status, 200, reloaded.text);
  await eventually("the end at Alertmanager", async () => !(await atReceiver()));
  const last = await eventually("the end at the webhook", () => hook.letters.find(({ status }) => status === "resolved"));
  assert.equal(last.since, first.since);
  assert.ok(Date.parse(last.until) >= Date.parse(last.since), JSON.stringify(last));
});

test("a server does not start with rules that have mistakes, and says them all", async (t) => {
  const gateway = await startGateway({ files: { "rules.toml": "[rules.BowlineAcceptErrors]\nabvoe = 1\n[rules.New]\nkind = \"vale\"\n" } });
  t.after(() => gateway.stop());
  const file = join(gateway.directory, "rules.toml");
  const config = join(gateway.directory, "wrong.toml");
  writeFileSync(config, `[alerts]\nrules-file = "${file}"\n`);
  const free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
  for (const words of [["alerts", "check", file], ["serve", "--config", config, ...free]]) {
    const { status, stderr } = spawnSync(bowlineBinary("gateway"), words, { encoding: "utf8", timeout: 20_000 });
    assert.equal(status, 2, stderr);
    assert.match(stderr, /alert-rules-invalid/);
    assert.match(stderr, /:2: unknown key .*did you mean `above`/);
    assert.match(stderr, /:4: .*"vale".*did you mean "value"/);
  }
});

/** A webhook that answers with the statuses it is given, then with 200; `letters` are what it was sent. */
async function webhook(statuses) {
  const letters = [];
  const server = createServer((request, response) => {
    let text = "";
    request.setEncoding("utf8");
    request.on("data", (chunk) => (text += chunk));
    request.on("end", () => {
      letters.push(JSON.parse(text));
      response.writeHead(statuses.shift() ?? 200).end();
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { letters, url: `http://127.0.0.1:${server.address().port}/hook`, stop: () => new Promise((resolve) => server.close(resolve)) };
}
