// How late the heartbeats of Socket.IO clients are while 200 streams of models run through the same process and both cores are busy
// with something else besides.
//
//   npm run ai-lateness   STREAMS=200 SESSIONS=500 SECONDS_EACH=20

import { Agent, request as httpRequest } from "node:http";
import { spawn } from "node:child_process";
import { cpus } from "node:os";

import { WebSocket } from "ws";

import { HELLO, model, provider, startAi, startMock } from "../ai/rig.mjs";
import { eventually } from "../harness/programs.mjs";
import { after } from "../harness/server.mjs";

const STREAMS = Number(process.env.STREAMS ?? 200);
const SESSIONS = Number(process.env.SESSIONS ?? 500);
const SECONDS = Number(process.env.SECONDS_EACH ?? 20);
/** From one token of a stream to the next: 10,000 a second over all of them. */
const TOKEN_MS = 20;
/** Of each stream: more than come until the end. */
const TOKENS = ((SECONDS + 40) * 1000) / TOKEN_MS;
/** The target of the issue. It is printed, and only far beyond it the run fails: a machine may have a bad minute. */
const TARGET_MS = 100;
const HOPELESS_MS = 1_000;

const mock = await startMock();
const gateway = await startAi({
  log: "error",
  toml: [
    '[engine]\nping-interval = "1s"\nping-timeout = "20s"',
    "[ai]\nmax-concurrent = 1000",
    provider("one", mock, { more: "max-concurrent = 1000\npool.connections = 1000" }),
    model("long", [`one/mock:ok-${TOKENS}x${TOKEN_MS}`]),
  ].join("\n"),
});
const agent = new Agent({ maxSockets: Infinity });
const spinning = [];
const requests = [];
const sockets = [];
let [tokens, cut, lost] = [0, 0, 0];
let failed = 0;

try {
  for (let number = 0; number < SESSIONS; number += 1) sockets.push(session());
  await eventually("all sessions to be there", () => sockets.every((socket) => socket.joined));
  report("sessions alone", await measured());
  for (let number = 0; number < cpus().length; number += 1) spinning.push(spawn(process.execPath, ["-e", "for (;;) {}"], { stdio: "ignore" }));
  report("and busy cores", await measured());
  for (let number = 0; number < STREAMS; number += 1) requests.push(stream());
  await eventually("all streams to speak", () => requests.every((request) => request.speaks));
  const before = tokens;
  const figures = await measured();
  report(`and ${STREAMS} streams`, figures);
  const rate = Math.round((tokens - before) / SECONDS);
  console.log(`ai-lateness: ${STREAMS} streams (${rate} tokens a second), ${SESSIONS} sessions, ${spinning.length} spinning processes on ${cpus().length} cores: pings are ${shown(figures.p99)} late at p99 (target < ${TARGET_MS} ms), ${shown(figures.p50)} at p50; ${cut} streams cut, ${lost} sessions lost`);
  if (figures.p99 > HOPELESS_MS || cut > 0 || lost > 0) failed = 1;
} catch (error) {
  failed = 1;
  console.log(error.stack);
} finally {
  for (const child of spinning) child.kill("SIGKILL");
  for (const request of requests) request.destroy();
  for (const socket of sockets) socket.terminate();
  await gateway.stop();
  await mock.stop();
}
console.log(`${1 - failed} passed, ${failed} failed`);
process.exit(failed);

/** A Socket.IO client that answers pings and does nothing else. */
function session() {
  const socket = new WebSocket(`${gateway.url.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`);
  socket.on("message", (data) => {
    const packet = String(data);
    if (packet.startsWith("0")) socket.send("40");
    else if (packet === "2") socket.send("3");
    else if (packet.startsWith("40")) socket.joined = true;
  });
  socket.on("close", () => (lost += 1));
  socket.on("error", () => {});
  return socket;
}

/** A stream of a model that goes on until the end. */
function stream() {
  const body = JSON.stringify({ model: "long", messages: HELLO, stream: true });
  const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
  const request = httpRequest({ host: "127.0.0.1", port: gateway.port, path: "/v1/chat/completions", method: "POST", agent, headers }, (response) => {
    response.on("data", (chunk) => {
      request.speaks = true;
      for (let at = chunk.indexOf("data:"); at >= 0; at = chunk.indexOf("data:", at + 5)) tokens += 1;
    });
    response.on("close", () => (cut += 1));
    response.on("error", () => {});
  });
  request.on("error", () => {});
  request.end(body);
  return request;
}

/** The lateness of the pings of some seconds, in ms. */
async function measured() {
  const before = buckets(await gateway.page());
  await after(SECONDS * 1000);
  const now = buckets(await gateway.page());
  const counts = now.map(({ le, count }, index) => ({ le, count: count - before[index].count }));
  const total = counts.at(-1).count;
  return { pings: total, p50: quantile(counts, total * 0.5), p99: quantile(counts, total * 0.99) };
}

function report(what, { pings, p50, p99 }) {
  console.log(`${what.padEnd(20)} ${String(pings).padStart(6)} pings, late by ${shown(p50)} (p50), ${shown(p99)} (p99)`);
}

/** The buckets of the histogram, with what all shards have counted. */
function buckets(page) {
  const counts = new Map();
  for (const line of page.split("\n").filter((line) => line.startsWith("bowline_ping_lateness_seconds_bucket{"))) {
    const le = Number(/le="([^"]*)"/.exec(line)[1].replace("+Inf", "Infinity"));
    counts.set(le, (counts.get(le) ?? 0) + Number(line.split(" ").at(-1)));
  }
  return [...counts].map(([le, count]) => ({ le, count })).sort((a, b) => a.le - b.le);
}

/** As Prometheus' `histogram_quantile` has it, in ms. */
function quantile(counts, rank) {
  const at = counts.findIndex(({ count }) => count >= rank);
  const [below, here] = [counts[at - 1] ?? { le: 0, count: 0 }, counts[at]];
  const share = here.count > below.count ? (rank - below.count) / (here.count - below.count) : 1;
  return (below.le + (here.le - below.le) * share) * 1000;
}

function shown(ms) {
  return `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}
