// The other clients of slow.mjs, in a process of their own: one of them sends the time of day to all, and all measure how long it
// was under way. Told on stdin, in JSON: where, how many, how often; then `measure` with milliseconds, each answered with a line.

import { createInterface } from "node:readline";

import { WebSocket } from "ws";

/** Sockets that open at once. */
const PARALLEL = 50;

const JOINED = "40/relay,";
const TIME = '42/relay,["t",';

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const now = () => performance.timeOrigin + performance.now();

/** Milliseconds under way, of every event that came to anybody since the last measurement began. */
let delays = [];
let ends = 0;

function open(url) {
  const socket = new WebSocket(`${url.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`, { perMessageDeflate: false });
  return new Promise((resolve, reject) => {
    socket.on("error", reject);
    socket.on("close", () => (ends += 1));
    socket.on("message", (data) => {
      const text = data.toString("latin1");
      if (text.startsWith(TIME)) delays.push(now() - Number.parseFloat(text.slice(TIME.length)));
      else if (text === "2") socket.send("3");
      else if (text.startsWith("0")) socket.send("40/relay,");
      else if (text.startsWith(JOINED)) resolve(socket);
    });
  });
}

/** The value below which this share of a sorted list lies. */
const quantile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];

let sockets = [];
for await (const line of createInterface({ input: process.stdin })) {
  const told = JSON.parse(line);
  if (told.count !== undefined) {
    while (sockets.length < told.count) {
      const more = Math.min(PARALLEL, told.count - sockets.length);
      sockets = sockets.concat(await Promise.all(Array.from({ length: more }, () => open(told.url))));
    }
    setInterval(() => sockets[0].send(`${TIME}${now()}]`), 1000 / told.rate).unref();
    say({ joined: sockets.length });
  } else if (told.measure) {
    delays = [];
    await new Promise((resolve) => setTimeout(resolve, told.measure));
    const sorted = Float64Array.from(delays).sort();
    say({ events: sorted.length, p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99), ends });
  }
}
process.exit(0);
