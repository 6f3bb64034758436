// The files of deploy/ as they stand there, with other ports, in front of a server: official clients come through, and the
// address that counts is the client's.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Agent } from "node:http";
import { test } from "node:test";
import { io } from "socket.io-client";

import { caddy, haproxy, nginx } from "../harness/programs.mjs";
import { freePort } from "../harness/server.mjs";
import { startGateway } from "./gateway.mjs";

const deployed = (name) => readFileSync(new URL(`../../deploy/${name}`, import.meta.url), "utf8");

const address = (name, port) => (name === "Caddyfile" ? `:${port}` : `127.0.0.1:${port}`);

/** A file of deploy/ with our ports in the place of its own. */
function withPorts(name, listen, port, upstream) {
  const text = deployed(name);
  assert.ok(text.includes(listen) && text.includes("127.0.0.1:8000"), `deploy/${name} has other ports than this test knows`);
  return text.replaceAll(listen, listen.replace(/:?80/, address(name, port))).replaceAll("127.0.0.1:8000", `127.0.0.1:${upstream}`);
}

const PROXIES = {
  nginx: (port, upstream) => nginx(port, withPorts("nginx.conf", "listen 80", port, upstream)),
  haproxy: (port, upstream) => haproxy(port, withPorts("haproxy.cfg", "bind :80", port, upstream)),
  caddy: (port, upstream) => caddy(port, `{\n admin off\n}\n${withPorts("Caddyfile", ":80 {", port, upstream)}`),
};

for (const [name, start] of Object.entries(PROXIES)) {
  test(`deploy/ file of ${name}: polling, upgrade and WebSocket get through, and the client's address too`, async (t) => {
    const gateway = await startGateway({ toml: `[server]\ntrusted-proxies = ["127.0.0.1"]\n` });
    t.after(() => gateway.stop());
    const port = await freePort();
    const proxy = await start(port, gateway.port);
    t.after(() => proxy.stop());

    const connected = (options) =>
      new Promise((resolve, reject) => {
        const client = io(`http://127.0.0.1:${port}`, { forceNew: true, ...options });
        t.after(() => client.close());
        client.once("connect", () => resolve(client));
        client.on("connect_error", (error) => reject(new Error(`${JSON.stringify(options)}: ${error.message}\n${proxy.said()}`)));
      });

    const polling = await connected({ transports: ["polling"] });
    assert.deepEqual(await polling.timeout(60_000).emitWithAck("bytes", Buffer.from([1, 2])), Buffer.from([1, 2]));
    const websocket = await connected({ transports: ["websocket"] });
    assert.equal(await websocket.timeout(60_000).emitWithAck("word", "hello"), "hello");
    const upgrading = await connected({});
    if (upgrading.io.engine.transport.name !== "websocket") {
      await new Promise((resolve, reject) => {
        upgrading.io.engine.once("upgrade", resolve);
        setTimeout(() => reject(new Error("no upgrade within a minute")), 60_000).unref();
      });
    }
    assert.equal(await upgrading.timeout(60_000).emitWithAck("word", "again"), "again");

    // A client that says through the proxy that it is somebody else is not believed. 127.0.0.2 is no proxy of ours.
    const agent = new Agent({ localAddress: "127.0.0.2", keepAlive: true });
    t.after(() => agent.destroy());
    await connected({ transports: ["polling"], agent, extraHeaders: { "X-Forwarded-For": "203.0.113.9" } });
    const { sockets } = (await gateway.api("/api/v1/sockets?namespace=/")).json;
    const addresses = sockets.map(({ address }) => address).toSorted();
    assert.deepEqual(addresses, ["127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2"]);
  });
}
