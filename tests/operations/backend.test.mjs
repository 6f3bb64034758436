// Apps behind HTTP, in two languages, with the official library for their signatures; what operators see of them, and what a
// reload changes.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { io } from "socket.io-client";
import { Webhook } from "standardwebhooks";

import { eventually, run } from "../harness/programs.mjs";
import { freePort } from "../harness/server.mjs";
import { metric, startGateway } from "./gateway.mjs";

const SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PYTHON_APP = fileURLToPath(new URL("backend-app.py", import.meta.url));
const VENV = fileURLToPath(new URL("../.venv/bin/python", import.meta.url));
/** The venv of the end-to-end tests, where the library is. */
const PYTHON = process.env.PYTHON_BIN ?? VENV;

const toml = (port, more = "") => `[namespaces."/"]
handler = { http = "app" }
[backends.app]
url = "http://127.0.0.1:${port}/bowline"
secret-file = "$DIR/secret"
${more}`;

test("an app in Python checks signatures, lets people in, and talks to a room", async (t) => {
  assert.ok(existsSync(PYTHON), "run `cargo xtask test python`");
  const port = await freePort();
  const gateway = await startGateway({ toml: toml(port), files: { secret: `${SECRET}\n` } });
  t.after(() => gateway.stop());
  // The app comes later than its first client, who waits for it.
  const ada = connect(t, gateway, { name: "Ada" });
  // Listened for at once: she may be in before the app is known to run.
  const admitted = connected(ada);
  const app = await run(PYTHON, [PYTHON_APP, port, join(gateway.directory, "secret")], { port });
  t.after(() => app.stop());
  await admitted;
  const bob = connect(t, gateway, { name: "Bob" });
  await connected(bob);

  const heard = Promise.all([ada, bob].map((socket) => new Promise((resolve) => socket.once("message", resolve))));
  assert.equal(await bob.timeout(60_000).emitWithAck("say", "hello"), "said");
  assert.deepEqual(await heard, Array(2).fill({ from: "Bob", text: "hello" }));
  assert.deepEqual(await ada.timeout(60_000).emitWithAck("who"), ["Ada", "Bob"]);
  const echoed = await ada.timeout(60_000).emitWithAck("echo", { bytes: Buffer.from([1, 2, 255]) });
  assert.deepEqual([...echoed.bytes], [1, 2, 255]);

  const nobody = connect(t, gateway, {});
  const refused = await new Promise((resolve) => nobody.once("connect_error", resolve));
  assert.deepEqual([refused.message, refused.data], ["who are you?", { code: "no-name" }]);
  bob.close();
  await eventually("Bob has left", async () => (await ada.timeout(60_000).emitWithAck("who")).length === 1);
  assert.equal(app.said().includes("Traceback"), false, app.said());
});

test("an app in Node is counted, shown, found again after a restart, and moved by a reload", async (t) => {
  const first = await startApp(t, "first");
  const gateway = await startGateway({ toml: toml(first.port, 'timeout = "1s"'), files: { secret: SECRET } });
  t.after(() => gateway.stop());
  const client = connect(t, gateway, {});
  await connected(client);
  const ask = () => client.timeout(60_000).emitWithAck("event");
  assert.equal(await ask(), "first");
  assert.equal(first.unsigned, 0);

  const component = async (state) => {
    const { components } = (await gateway.api("/api/v1/components")).json;
    return components.find((one) => one.name === "backend:app")?.state === state;
  };
  await eventually("a component that is ready", () => component("ready"));
  await first.stop();
  const failed = await ask();
  assert.deepEqual([failed.error.code, failed.error.retry], ["backend-unavailable", true]);
  // It takes three failures in a row, which one request has the time for, unless the machine is slow.
  await eventually("a component that has failed", async () => (await component("failed")) || (await ask(), false));
  const page = (await gateway.api("/metrics")).text;
  assert.equal(metric(page, "bowline_backend_requests_total", 'outcome="ok"'), 2);
  assert.ok(metric(page, "bowline_backend_requests_total", 'outcome="unavailable"') >= 1);
  assert.ok(metric(page, "bowline_backend_seconds_count", 'backend="app"') >= 2);
  assert.equal(metric(page, "bowline_backend_queue", 'backend="app"'), 0);

  const second = await startApp(t, "second", first.port);
  assert.equal(await ask(), "second");
  await eventually("a component that is ready again", () => component("ready"));

  const third = await startApp(t, "third");
  const config = readFileSync(gateway.config, "utf8");
  writeFileSync(gateway.config, config.replace(`:${first.port}/`, `:${third.port}/`));
  const reloaded = (await gateway.control("/api/v1/reload", { method: "POST", body: {} })).json;
  assert.deepEqual(reloaded.applied, ["backends.*.url"]);
  assert.equal(await ask(), "third");
  // The client has not been dropped for any of this.
  assert.equal(client.connected, true);

  // A secret that cannot be used changes nothing.
  writeFileSync(join(gateway.directory, "secret"), "whsec_!hidden!");
  const refused = await gateway.control("/api/v1/reload", { method: "POST", body: {} });
  assert.notEqual(refused.status, 200);
  assert.match(refused.text, /backends\.app/);
  assert.equal(refused.text.includes("hidden"), false, "a secret is not shown");
  assert.equal(await ask(), "third");
  assert.equal(second.unsigned + third.unsigned, 0);
});

test("a server that stops tells the app who has left", async (t) => {
  const app = await startApp(t, "app");
  const gateway = await startGateway({ toml: toml(app.port), files: { secret: SECRET } });
  const clients = [connect(t, gateway, {}), connect(t, gateway, {})];
  await Promise.all(clients.map(connected));
  await gateway.stop();
  assert.deepEqual(app.left, ["server shutting down", "server shutting down"]);
});

test("an app is asked over TLS, if its certificate is believed", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "bowline-backend-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const [key, cert] = ["key.pem", "cert.pem"].map((name) => join(directory, name));
  const names = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"];
  const kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost"];
  const made = spawnSync("openssl", ["req", "-x509", ...kind, ...names, "-keyout", key, "-out", cert]);
  assert.equal(made.status, 0, String(made.stderr));
  const app = await startApp(t, "sealed", 0, { key: readFileSync(key), cert: readFileSync(cert) });
  const sealed = `[namespaces."/"]\nhandler = { http = "app" }\n[backends.app]\nurl = "https://localhost:${app.port}/"\ntimeout = "1s"\n`;
  t.after(() => delete process.env.SSL_CERT_FILE);
  for (const believed of [cert, "/etc/ssl/certs/ca-certificates.crt"]) {
    // Where the system's roots are, for the gateway too.
    process.env.SSL_CERT_FILE = believed;
    const gateway = await startGateway({ toml: sealed });
    t.after(() => gateway.stop());
    const client = connect(t, gateway, {});
    if (believed === cert) {
      await connected(client);
      assert.equal(await client.timeout(60_000).emitWithAck("event"), "sealed");
    } else {
      const refused = await new Promise((resolve) => client.once("connect_error", resolve));
      assert.equal(refused.data.code, "backend-unavailable");
      assert.match(gateway.said(), /invalid peer certificate/);
    }
  }
});

function connect(t, gateway, auth) {
  const socket = io(gateway.url, { auth, forceNew: true, transports: ["websocket"] });
  t.after(() => socket.close());
  return socket;
}

function connected(socket) {
  return new Promise((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("connect_error", reject);
  });
}

/** An app whose acks are its name. */
async function startApp(t, name, port = 0, tls) {
  const webhook = new Webhook(SECRET);
  const app = { left: [], unsigned: 0 };
  const serve = (request, response) => {
    const pieces = [];
    request.on("data", (piece) => pieces.push(piece));
    request.on("end", () => {
      const text = Buffer.concat(pieces).toString();
      try {
        webhook.verify(text, request.headers);
      } catch {
        app.unsigned += 1;
      }
      const asked = JSON.parse(text);
      if (asked.type === "disconnect") app.left.push(asked.reason);
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(asked.type === "connect" ? { allow: true } : { ack: [name] }));
    });
  };
  const server = tls ? createTlsServer(tls, serve) : createServer(serve);
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });
  app.port = server.address().port;
  app.stop = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  t.after(() => app.stop());
  return app;
}
