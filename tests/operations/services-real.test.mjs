// Four services of the kind that people run: Redis, an app under gunicorn, one under uvicorn, a Socket.IO server of Node. Each needs
// the one before and does not start without it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { io } from "socket.io-client";

import { eventually, program } from "../harness/programs.mjs";
import { freePort } from "../harness/server.mjs";
import { ask, startGateway } from "./gateway.mjs";
import { APPS, bowline, inState, known, living, place, services, withinEnvironment } from "./services.mjs";

/** Each with what it needs, in the order of their starts. */
const CHAIN = ["cache", "orders", "events", "chat"];

test("Redis, gunicorn, uvicorn and Socket.IO start in order, come back when killed, outlive a gateway, and stop without a trace", async (t) => {
  const [cache, orders, events, chat] = await Promise.all(CHAIN.map(freePort));
  const mark = `MARK=services-real-${process.pid}`;
  const ports = `REDIS_PORT = "${cache}", ORDERS_PORT = "${orders}", EVENTS_PORT = "${events}", CHAT_PORT = "${chat}"`;
  const shared = `
directory = "${APPS}"
environment = { MARK = "${mark.slice(5)}", PYTHONDONTWRITEBYTECODE = "1", ${ports} }
backoff = { first = "100ms", max = "1s" }
`;
  const toml = `
[services.cache]
command = ["${program("redis")}", "--port", "${cache}", "--save", "", "--dir", "$DIR"]
ready = [{ log = "Ready to accept connections" }, { tcp = "127.0.0.1:${cache}", every = "200ms" }]
${shared}
[services.orders]
command = ["gunicorn", "--workers", "2", "--bind", "127.0.0.1:${orders}", "--no-control-socket", "orders:app"]
python = "auto"
needs = ["cache"]
ready = [{ http = "http://127.0.0.1:${orders}/", every = "200ms", contains = "orders" }]
${shared}
[services.events]
module = "uvicorn"
args = ["events:app", "--port", "${events}", "--no-access-log"]
needs = ["cache", "orders"]
ready = [{ http = "http://127.0.0.1:${events}/", every = "200ms" }]
${shared}
[services.chat]
script = "${APPS}/chat.mjs"
needs = ["events"]
ready = [{ socketio = "http://127.0.0.1:${chat}", every = "200ms" }]
live = [{ tcp = "127.0.0.1:${chat}" }]
${shared}`;
  const gateway = await startGateway({ toml });
  t.after(() => gateway.stop());
  for (const name of CHAIN) await inState(gateway, name, "ready");
  const first = await services(gateway);
  for (const [index, name] of CHAIN.entries()) {
    assert.deepEqual([first[name].attempts, first[name].restarts.total], [1, 0], `${name}: ${first[name].last_end}`);
    // It was not even a process before what it needs was ready.
    for (const need of CHAIN.slice(Math.max(0, index - 1), index)) {
      assert.ok(first[name].started >= first[need].since, `${name} began at ${first[name].started}, ${need} was ready at ${first[need].since}`);
    }
  }

  // Somebody uses them all the time: straight to the Socket.IO server, whose answer comes through the whole chain.
  const client = io(`http://127.0.0.1:${chat}`, { transports: ["websocket"] });
  t.after(() => client.close());
  await new Promise((resolve, reject) => client.once("connect", resolve).once("connect_error", reject));
  const order = () => client.timeout(60_000).emitWithAck("order");
  const before = await order();
  assert.equal(typeof before.orders, "number", JSON.stringify(before));

  // The gateway is killed: not one of them notices.
  const disconnects = [];
  client.on("disconnect", (reason) => disconnects.push(reason));
  const { gateway: process1 } = (await gateway.control("/api/v1/status")).json;
  process.kill(process1.pid, "SIGKILL");
  assert.ok((await order()).orders > before.orders);
  await eventually("another gateway", async () => {
    const { gateway: now } = (await gateway.control("/api/v1/status")).json;
    return now.answered && now.pid !== process1.pid;
  });
  assert.ok((await order()).orders > before.orders + 1);
  const after = await services(gateway);
  for (const name of CHAIN) {
    assert.deepEqual([after[name].pid, after[name].state, after[name].since], [first[name].pid, "ready", first[name].since]);
  }
  assert.deepEqual(disconnects, []);

  // Each of them is killed: it comes back, and the others stay what they were, whatever they need.
  for (const name of CHAIN) {
    const all = await services(gateway);
    const family = known(withinEnvironment(mark, `BOWLINE_SERVICE=${name}`));
    process.kill(all[name].pid, "SIGKILL");
    const again = await inState(gateway, name, "ready", ({ pid }) => pid !== all[name].pid);
    assert.deepEqual(again.restarts.by_reason, { killed: 1 }, name);
    assert.match(again.last_end, /killed by signal 9/, name);
    for (const other of CHAIN.filter((other) => other !== name)) {
      assert.equal((await services(gateway))[other].pid, all[other].pid, `${other} was started again when ${name} was killed`);
    }
    // Nobody of the old one is left beside the new one: gunicorn's workers neither.
    assert.deepEqual(living(family), [], name);
  }
  for (const name of CHAIN) await inState(gateway, name, "ready");
  await eventually("an order through all of them", async () => typeof (await order()).orders === "number");

  const { out, code } = await bowline(["status", ...place(gateway)]);
  assert.equal(code, 0);
  console.log(out);
  const json = JSON.parse((await bowline(["status", "--json", ...place(gateway)])).out);
  assert.deepEqual(json.services.map(({ name, state }) => [name, state]).sort(), CHAIN.map((name) => [name, "ready"]).sort());

  // Redis writes its title over its environment, so it is not found there.
  const leaders = Object.values(await services(gateway)).map(({ pid }) => pid);
  const family = known([...new Set([...leaders, ...withinEnvironment(mark)])]);
  // Four leaders and two workers of gunicorn.
  assert.ok(family.length >= 6, `${family.length} processes`);
  assert.equal((await bowline(["stop", ...place(gateway)])).code, 0);
  assert.deepEqual(living(family), []);
  assert.deepEqual(withinEnvironment(mark), []);
  // What needs goes before what it needs.
  await gateway.exited;
  const said = gateway.said().split("\n").filter((line) => line.includes('"message":"stopped; ')).map((line) => JSON.parse(line));
  assert.deepEqual(said.map(({ service }) => service), CHAIN.toReversed());
  // Each ended by itself when it was told; uvicorn repeats the signal to itself at its end.
  for (const { service, message } of said) assert.match(message, /exited with code 0|killed by signal 15/, service);
});

test("gunicorn and uvicorn, restarted with overlap under load, refuse nobody", async (t) => {
  const [wsgi, asgi] = [await freePort(), await freePort()];
  const shared = (port) => `
python = "auto"
directory = "${APPS}"
listen = ["127.0.0.1:${port}"]
overlap = true
environment = { PYTHONDONTWRITEBYTECODE = "1" }
ready = [{ http = "http://127.0.0.1:${port}/", every = "200ms" }]
`;
  const toml = `
[services.wsgi]
command = ["gunicorn", "--no-control-socket", "plain:wsgi"]
${shared(wsgi)}
[services.asgi]
command = ["uvicorn", "plain:asgi", "--fd", "3", "--no-access-log"]
${shared(asgi)}`;
  const gateway = await startGateway({ toml });
  t.after(() => gateway.stop());
  for (const [name, port] of [["wsgi", wsgi], ["asgi", asgi]]) {
    const first = await inState(gateway, name, "ready");
    // A connection for each request: each is one that could be refused.
    const served = new Set();
    let [asked, cut, over] = [0, 0, false];
    const load = (async () => {
      while (!over) {
        asked += 1;
        try {
          const { status, text } = await ask({ host: "127.0.0.1", port }, "/");
          assert.equal(status, 200, text);
          served.add(Number(text));
        } catch (error) {
          // uvicorn closes what it has accepted and not yet read when it is told to end; gunicorn answers it.
          if (name !== "asgi" || !["ECONNRESET", "EPIPE"].includes(error.code)) throw error;
          cut += 1;
        }
      }
    })();
    for (let round = 0; round < 2; round += 1) {
      const { code, err } = await bowline(["service", "restart", name, ...place(gateway)]);
      assert.equal(code, 0, err);
    }
    const last = (await services(gateway))[name];
    await eventually("the last one to serve", () => served.size >= 3);
    over = true;
    await load;
    assert.notEqual(last.pid, first.pid);
    assert.deepEqual(last.restarts.by_reason, { asked: 2 });
    assert.ok(cut <= 2, `${cut} of ${asked} were cut off by the app`);
    console.log(`${name}: ${asked} requests on connections of their own over two restarts, none refused, ${cut} cut off by the app`);
  }
});
