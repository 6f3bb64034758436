// A real Prometheus scrapes the metrics and takes the rules.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { io } from "socket.io-client";

import { eventually, program, prometheus } from "../harness/programs.mjs";
import { bowlineBinary } from "../harness/server.mjs";
import { startGateway } from "./gateway.mjs";

const query = async (server, expression) => {
  const answer = await fetch(`http://127.0.0.1:${server.port}/api/v1/query?query=${encodeURIComponent(expression)}`);
  return (await answer.json()).data.result;
};

test("Prometheus scrapes it, promtool has nothing to say, and the printed rules are evaluated", async (t) => {
  const gateway = await startGateway();
  t.after(() => gateway.stop());
  const client = io(gateway.url);
  t.after(() => client.close());
  await new Promise((resolve) => client.once("connect", resolve));
  await client.emitWithAck("hello");

  const { text } = await gateway.api("/metrics");
  const lint = spawnSync(program("promtool"), ["check", "metrics"], { input: text, encoding: "utf8" });
  assert.equal(lint.status, 0, lint.stdout + lint.stderr);
  assert.equal((lint.stdout + lint.stderr).trim(), "");

  const rules = join(gateway.directory, "rules.yml");
  writeFileSync(rules, execFileSync(bowlineBinary("gateway"), ["alerts", "print", "--prometheus"], { encoding: "utf8" }));
  execFileSync(program("promtool"), ["check", "rules", rules], { encoding: "utf8" });

  const server = await prometheus(`127.0.0.1:${gateway.admin}`, { rules: [rules] });
  t.after(() => server.stop());
  await eventually("a scrape", async () => (await query(server, "up")).some(({ value }) => value[1] === "1"));
  const connects = await eventually("the count", async () => (await query(server, 'bowline_connects_total{result="accepted"}'))[0]);
  assert.equal(connects.value[1], "1");
  const loaded = await (await fetch(`http://127.0.0.1:${server.port}/api/v1/rules`)).json();
  const evaluated = loaded.data.groups.flatMap((group) => group.rules);
  assert.ok(evaluated.length >= 8, JSON.stringify(loaded));
  await eventually("healthy rules", async () => {
    const { data } = await (await fetch(`http://127.0.0.1:${server.port}/api/v1/rules`)).json();
    return data.groups.flatMap((group) => group.rules).every(({ health }) => health === "ok");
  });
});
