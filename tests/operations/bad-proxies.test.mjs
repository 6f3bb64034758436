// Real proxies in front of a server, one good and four bad ways: what official clients and the operator notice.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { describe, test } from "node:test";
import { io } from "socket.io-client";

import { eventually, haproxy, nginx } from "../harness/programs.mjs";
import { after, freePort } from "../harness/server.mjs";
import { metric, startGateway } from "./gateway.mjs";

/** How many events each client sends and wants back. */
const EVENTS = 300;

const TRUSTED = `[server]\ntrusted-proxies = ["127.0.0.1"]\nshards = 2\n`;

const NGINX_UPGRADE = `proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";`;

// What a proxy has written and nobody has taken is gone with it only while it is in its own memory: small socket buffers
// keep most of a large answer there.

/** `lines` stand in the location, `upstreams` are ports of the server behind. */
function startNginx(port, upstreams, lines) {
  const servers = upstreams.map((upstream) => `server 127.0.0.1:${upstream};`).join(" ");
  return nginx(port, `upstream behind { ${servers} }
server { listen 127.0.0.1:${port} sndbuf=16k; client_max_body_size 2m; add_header X-Behind $upstream_addr always;
  location / { proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Host $host; proxy_buffering off;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; ${lines} } }`);
}

function startHaproxy(port, upstreams, { frontend = "", idle = "75s" } = {}) {
  const servers = upstreams.map((upstream, index) => `  server s${index} 127.0.0.1:${upstream}`).join("\n");
  return haproxy(port, `global
  tune.sndbuf.client 16384
defaults
  mode http
  timeout connect 5s
  timeout http-request 10s
  timeout client ${idle}
  timeout server ${idle}
  timeout tunnel ${idle}
frontend public
  bind 127.0.0.1:${port}
  http-response set-header X-Behind %s
  ${frontend}
  default_backend behind
backend behind
  balance roundrobin
  option forwardfor
${servers}
`);
}

/** Each proxy: `port` is its own, `upstreams` are those of the server. */
const PROXIES = {
  nginx: {
    good: (port, upstreams) => startNginx(port, upstreams, NGINX_UPGRADE),
    // What nginx does when nobody told it of WebSocket: `Connection: close` and no Upgrade.
    stripped: (port, upstreams) => startNginx(port, upstreams, ""),
    idle: (port, upstreams) => startNginx(port, upstreams, `${NGINX_UPGRADE} proxy_read_timeout 4s; proxy_send_timeout 4s;`),
  },
  haproxy: {
    good: (port, upstreams) => startHaproxy(port, upstreams),
    stripped: (port, upstreams) => startHaproxy(port, upstreams, { frontend: "http-request del-header Upgrade" }),
    idle: (port, upstreams) => startHaproxy(port, upstreams, { idle: "4s" }),
  },
};

/** The kinds of clients that there are. */
const KINDS = { polling: { transports: ["polling"] }, upgrading: {}, websocket: { transports: ["websocket"] } };

for (const [name, ways] of Object.entries(PROXIES)) {
  describe(name, { concurrency: true }, () => {
    /** A server behind the proxy, and both go when the test is over. */
    async function stand(t, way, { toml = "", listeners = 1 } = {}) {
      const alsoListen = await Promise.all(Array.from({ length: listeners - 1 }, freePort));
      const gateway = await startGateway({ toml: `${TRUSTED}${toml}`, alsoListen });
      t.after(() => gateway.stop());
      const port = await freePort();
      const proxy = await ways[way](port, [gateway.port, ...alsoListen]);
      t.after(() => proxy.stop());
      return { gateway, proxy, port, url: `http://127.0.0.1:${port}` };
    }

    test("good: all come through as what they wish to be, and nothing is counted", async (t) => {
      const { gateway, url } = await stand(t, "good");
      const clients = Object.fromEntries(Object.entries(KINDS).map(([kind, options]) => [kind, open(t, url, options)]));
      await Promise.all(Object.values(clients).map(everythingComesBack));
      await transports(clients, { polling: "polling", upgrading: "websocket", websocket: "websocket" });
      const page = await figures(gateway);
      assert.equal(metric(page, "bowline_upgrades_total", 'result="done"'), 1);
      assert.equal(metric(page, "bowline_upgrades_total", 'result="failed"'), 0);
      assert.deepEqual(counted(page, "bowline_requests_refused_total"), {});
      assert.deepEqual(counted(page, "bowline_limit_hits_total"), {});
    });

    test("Upgrade stripped: clients stay on polling, nothing is lost, and the operator can see why", async (t) => {
      const { gateway, url } = await stand(t, "stripped");
      const clients = { polling: open(t, url, KINDS.polling), upgrading: open(t, url, KINDS.upgrading) };
      await Promise.all(Object.values(clients).map(everythingComesBack));
      await eventually("the refused upgrade to be counted", async () => {
        const refused = counted(await figures(gateway), "bowline_requests_refused_total");
        assert.deepEqual(Object.keys(refused), ["upgrade-stripped"]);
        return true;
      });
      // The upgrade has failed by now, and nobody noticed.
      await Promise.all(Object.values(clients).map(everythingComesBack));
      await transports(clients, { polling: "polling", upgrading: "polling" });
      assert.ok(Object.values(clients).every(({ ends }) => ends.length === 0));

      // Whoever wants a WebSocket and nothing else is told, and does not hang.
      const { socket } = open(t, url, { ...KINDS.websocket, reconnection: false });
      const error = await new Promise((resolve) => socket.once("connect_error", resolve));
      assert.match(error.message, /websocket error/);
      const refused = counted(await figures(gateway), "bowline_requests_refused_total");
      assert.deepEqual(Object.keys(refused), ["upgrade-stripped"]);
      assert.ok(refused["upgrade-stripped"] >= 2, JSON.stringify(refused));
      await eventually("one line", () => lines(gateway, /upgrade-stripped/).length > 0);
      assert.equal(metric(await figures(gateway), "bowline_sessions"), 2);
    });

    test("round robin over two listeners without stickiness: nothing is lost, and upgrades succeed", async (t) => {
      const { gateway, url } = await stand(t, "good", { listeners: 2 });
      const answers = await Promise.all([1, 2, 3, 4].map(() => fetch(`${url}/health/live`)));
      const behind = new Set(answers.map(({ headers }) => headers.get("x-behind")));
      assert.equal(behind.size, 2, `all went to ${[...behind]}`);

      const several = Array.from({ length: 4 }, () => Object.entries(KINDS)).flat();
      const clients = Object.fromEntries(several.map(([kind, options], index) => [`${kind} ${index}`, open(t, url, options)]));
      await Promise.all(Object.values(clients).map(everythingComesBack));
      const wanted = Object.keys(clients).map((name) => [name, name.startsWith("polling") ? "polling" : "websocket"]);
      await transports(clients, Object.fromEntries(wanted));
      assert.ok(Object.values(clients).every(({ ends }) => ends.length === 0));
      const page = await figures(gateway);
      assert.equal(metric(page, "bowline_upgrades_total", 'result="done"'), 4);
      assert.equal(metric(page, "bowline_upgrades_total", 'result="failed"'), 0);
      assert.deepEqual(counted(page, "bowline_requests_refused_total"), {});
    });

    test("idle cut after 4 s: clients come back and are served, and the server knows the age", async (t) => {
      const { gateway, url } = await stand(t, "idle");
      const clients = Array.from({ length: 6 }, () => open(t, url, KINDS.websocket));
      const waiting = open(t, url, KINDS.polling);
      await Promise.all([...clients, waiting].map(everythingComesBack));
      // Nobody says anything, so all are cut.
      await eventually("everybody to be cut", () => [...clients, waiting].every(({ ends }) => ends.length > 0));
      await Promise.all([...clients, waiting].map(everythingComesBack));
      const cut = metric(await figures(gateway), "bowline_idle_cut_seconds");
      assert.ok(cut > 3 && cut < 5, `bowline_idle_cut_seconds ${cut}`);
      // Those who were cut have left nothing behind.
      await eventually("only those to be there who are", async () => metric(await figures(gateway), "bowline_sessions") === 7);
    });

    test("idle cut after 4 s, pings every 1.5 s: nobody is cut", async (t) => {
      const { gateway, url } = await stand(t, "idle", { toml: `[engine]\nping-interval = "1500ms"\n` });
      const clients = Object.values(KINDS).map((options) => open(t, url, options));
      await Promise.all(clients.map(everythingComesBack));
      await after(6000);
      await Promise.all(clients.map(everythingComesBack));
      assert.deepEqual(clients.map(({ ends }) => ends), [[], [], []]);
      assert.equal(metric(await figures(gateway), "bowline_idle_cut_seconds"), 0);
    });

    test("a response cut midway: the client is told, comes back, and gets the whole of the next", async (t) => {
      const times = `[engine]\nping-interval = "1s"\nping-timeout = "8s"\n`;
      const { gateway, proxy, port } = await stand(t, "good", { toml: times });
      const line = await slowLine(t, port);
      const client = open(t, `http://127.0.0.1:${line.port}`, KINDS.polling);
      await everythingComesBack(client);
      const first = client.socket.id;

      // It asks for 800 kB. Of what comes back 100 kB get to it, then the proxy is killed.
      const large = "x".repeat(800_000);
      const got = [];
      client.socket.on("large", (text) => got.push(text));
      line.hold(100_000);
      client.socket.emit("large", large);
      await eventually("the line to be full", () => line.isHeld());
      const ended = new Promise((resolve) => client.socket.once("disconnect", resolve));
      killAll(proxy.pid);
      line.free();
      assert.match(await ended, /transport/);
      assert.equal(got.length, 0, "half an event was delivered");

      const again = await ways.good(port, [gateway.port]);
      t.after(() => again.stop());
      await everythingComesBack(client);
      assert.notEqual(client.socket.id, first);
      client.socket.emit("large", large);
      await eventually("the whole of it", () => got.length > 0);
      assert.ok(got.length === 1 && got[0] === large);
      await eventually("the session that was cut to go", async () => {
        const { sockets } = (await gateway.api("/api/v1/sockets?namespace=/")).json;
        return sockets.length === 1 && sockets[0].sid === client.socket.id;
      });
      assert.equal(metric(await figures(gateway), "bowline_gateway_restarts_total"), 0);
    });
  });
}

/** An official client: `ends` has a reason for each time it lost its connection. */
function open(t, url, options) {
  const socket = io(url, { forceNew: true, reconnectionDelay: 100, reconnectionDelayMax: 500, ...options });
  t.after(() => socket.close());
  const ends = [];
  socket.on("disconnect", (reason) => ends.push(reason));
  return { socket, ends };
}

/** Sends numbered events, from before the client is connected if it is not, and waits for all of them, each once and in order. */
async function everythingComesBack({ socket }) {
  const back = [];
  const hear = (number) => back.push(number);
  socket.on("number", hear);
  for (let number = 0; number < EVENTS; number++) socket.emit("number", number);
  await eventually(`${EVENTS} events`, () => back.length >= EVENTS);
  socket.off("number", hear);
  assert.deepEqual(back, Array.from({ length: EVENTS }, (_, number) => number));
}

/** Waits until each client is on its transport, by name. */
async function transports(clients, wanted) {
  const now = () => Object.fromEntries(Object.entries(clients).map(([name, { socket }]) => [name, socket.io.engine?.transport.name]));
  await eventually("the transports", () => (assert.deepEqual(now(), wanted), true));
}

/** Kills a process and its children; nginx and HAProxy let a worker do the work. */
function killAll(pid) {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean).map(Number);
  for (const one of [pid, ...children]) process.kill(one, "SIGKILL");
}

async function figures(gateway) {
  return (await gateway.api("/metrics")).text;
}

/** The series of a metric that are not zero, by the value of its only label. */
function counted(page, name) {
  const series = page.split("\n").filter((line) => line.startsWith(`${name}{`));
  const values = series.map((line) => [/="([^"]*)"/.exec(line)[1], Number(line.split(" ").at(-1))]);
  return Object.fromEntries(values.filter(([, value]) => value > 0));
}

function lines(gateway, pattern) {
  return gateway.said().split("\n").filter((line) => pattern.test(line));
}

/**
 * A TCP line to `target` that can be narrow: after `hold(bytes)` only so many more bytes come back, until `free()`.
 * Its buffers are small, so that what is not taken at its end stays with the proxy.
 */
async function slowLine(t, target) {
  let left = Infinity;
  const waiting = new Set();
  const server = createServer({ highWaterMark: 4096 }, (near) => {
    const far = connect({ port: target, host: "127.0.0.1", highWaterMark: 4096 });
    near.pipe(far);
    far.on("data", (chunk) => {
      left -= chunk.length;
      near.write(chunk);
      if (left <= 0) waiting.add(far.pause());
    });
    const end = () => (near.destroy(), far.destroy(), waiting.delete(far));
    for (const socket of [near, far]) socket.on("error", end).on("close", end);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  return {
    port: server.address().port,
    hold: (bytes) => (left = bytes),
    isHeld: () => waiting.size > 0,
    free() {
      left = Infinity;
      for (const socket of waiting) socket.resume();
      waiting.clear();
    },
  };
}
