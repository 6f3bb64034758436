// schemathesis asks everything that the OpenAPI document allows, and much that it does not, of a server with clients. The
// run is the same each time: seeds, order and number of the requests are fixed.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { after, test } from "node:test";

import { io } from "socket.io-client";

import { startGateway } from "../operations/gateway.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const PYTHON = process.env.PYTHON_BIN ?? join(HERE, "../.venv/bin/python");

/**
 * What schemathesis looks at. Not `positive_data_acceptance`: some rules stand in no schema, such as one of `sid` and `room`.
 * Not `unsupported_method`: the guard looks at the content type before anybody looks for the path.
 */
const CHECKS = [
  "not_a_server_error",
  "status_code_conformance",
  "content_type_conformance",
  "response_headers_conformance",
  "response_schema_conformance",
  "negative_data_rejection",
  "missing_required_header",
];

/** Requests for each operation and phase: all of it takes less than half a minute. */
const EXAMPLES = 60;

const CLIENTS = 6;

const clients = [];
let gateway;

after(async () => {
  for (const client of clients) client.close();
  await gateway?.stop();
});

test("whatever is asked, the answer is one that the document describes", { timeout: 120_000 }, async (t) => {
  gateway = await startGateway({ toml: '[log]\nlevel = "warn"' });
  for (let index = 0; index < CLIENTS; index++) await connect(index);
  const admin = `http://127.0.0.1:${gateway.admin}`;
  const args = ["-m", "schemathesis.cli", "--no-color", "run", `${admin}/api/v1/openapi.json`];
  args.push("--phases", "examples,coverage,fuzzing", "--checks", CHECKS.join(), "--max-examples", `${EXAMPLES}`);
  args.push("--generation-deterministic", "--continue-on-failure", "--request-timeout", "20");
  const { code, said } = await finished(PYTHON, args, { ADMIN: admin, PYTHONPATH: HERE, SCHEMATHESIS_HOOKS: "hooks" });
  const count = said.match(/(\d+) generated/)?.[1];
  t.diagnostic(`schemathesis: ${count} requests, exit code ${code}`);
  assert.equal(code, 0, said);
  // So few would mean that it was not asked.
  assert.ok(Number(count) > 500, said);

  const { json: status } = await gateway.api("/api/v1/status");
  assert.equal(status.gateway.restarts.total, 0, gateway.said());
  const { json: seen } = await gateway.api("/api/v1/metrics");
  const emits = seen.samples.filter(({ name }) => name === "bowline_emits_total");
  const sent = emits.find(({ labels }) => labels.outcome === "sent").value;
  assert.ok(sent > 0, "no event of all those reached a client");
});

/** A client that acks whatever it is asked, and comes back when it is sent away. */
async function connect(index) {
  const client = io(gateway.url, { transports: ["websocket"], reconnectionDelay: 20, reconnectionDelayMax: 50 });
  clients.push(client);
  client.onAny((event, ...args) => {
    const ack = args.at(-1);
    if (typeof ack === "function") ack("ok", index);
  });
  client.on("disconnect", (reason) => {
    if (reason === "io server disconnect") client.connect();
  });
  await new Promise((resolve, reject) => client.once("connect", resolve).once("connect_error", reject));
  const rooms = index % 2 ? ["lobby"] : ["lobby", "game-7"];
  const { status, text } = await gateway.api("/api/v1/join", { method: "POST", body: { sid: client.id, rooms } });
  assert.equal(status, 200, text);
}

function finished(file, args, env) {
  return new Promise((resolve, reject) => {
    // It leaves files where it is.
    const child = spawn(file, args, { cwd: gateway.directory, env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (said += text));
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, said }));
  });
}
