// The gateway is killed with -9 again and again: the listener never refuses, clients come back by themselves, and it is told.
//
//   npm run restarts      RESTARTS=5; `cargo xtask test --long` makes it 50

import assert from "node:assert/strict";
import { connect } from "node:net";
import { io } from "socket.io-client";

import { eventually } from "../harness/programs.mjs";
import { startGateway, metric } from "./gateway.mjs";

const RESTARTS = Number(process.env.RESTARTS ?? 5);
const CLIENTS = 20;

const gateway = await startGateway();
let passed = 0;
let refused = 0;
let connects = 0;
let knocking = true;
try {
  const options = { forceNew: true, reconnectionDelay: 20, reconnectionDelayMax: 200, timeout: 20_000 };
  const clients = Array.from({ length: CLIENTS }, (_, i) => io(gateway.url, i % 2 ? { ...options, transports: ["websocket"] } : options));
  const all = () => clients.every((client) => client.connected);
  await eventually("the first connect", all);

  // Somebody knocks all the time.
  const knocker = (async () => {
    while (knocking) {
      await new Promise((resolve) => {
        const socket = connect(gateway.port, "127.0.0.1");
        socket.once("connect", () => (connects++, socket.destroy(), resolve()));
        socket.once("error", (error) => ((refused += error.code === "ECONNREFUSED" ? 1 : 0), resolve()));
      });
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  })();

  const pids = new Set();
  for (let i = 0; i < RESTARTS; i++) {
    const { gateway: before } = (await gateway.control("/api/v1/status")).json;
    pids.add(before.pid);
    process.kill(before.pid, "SIGKILL");
    const { gateway: now } = await eventually("another gateway that has answered", async () => {
      const status = (await gateway.control("/api/v1/status")).json;
      return status.gateway.pid !== before.pid && status.gateway.answered ? status : false;
    });
    assert.equal(now.restarts.total, i + 1);
    assert.match(now.last_end, /signal 9|SIGKILL/);
    await eventually("the clients", all);
    const answers = await Promise.all(clients.map((client) => client.timeout(60_000).emitWithAck("round", i)));
    assert.deepEqual(answers, clients.map(() => i));
    passed++;
  }
  knocking = false;
  await knocker;
  clients.forEach((client) => client.close());
  const page = (await gateway.api("/metrics")).text;
  assert.equal(metric(page, "bowline_gateway_restarts_total", 'reason="killed"'), RESTARTS);
  assert.equal(pids.size, RESTARTS);
  assert.equal(refused, 0);
  console.log(`${RESTARTS} gateways killed with -9: ${connects} connects, ${refused} refused; all ${CLIENTS} clients came back each time; counted in status and metrics`);
} catch (error) {
  console.log(`${error.stack}\n${gateway.said()}`);
} finally {
  knocking = false;
  await gateway.stop();
}
console.log(`${passed} passed, ${RESTARTS - passed + (refused > 0 ? 1 : 0)} failed`);
process.exit(passed === RESTARTS && refused === 0 ? 0 : 1);
