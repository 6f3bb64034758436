// Events through the HTTP backend while the app behind it is killed and started again: each one is answered, by the app or by an
// error ack, and each session's events reach the app in order.
//
//   npm run backend       BACKEND_EVENTS=1000000 BACKEND_RESTARTS=10 for the long run
//
// Each client numbers its events and keeps a few unanswered. The app acks with [life, number]: those numbers must rise along the
// numbers of a client, or something overtook. Prints the rate, and the processor time of gateway and app for an event.

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { WebSocket } from "ws";

import { after, before, freePort } from "../harness/server.mjs";
import { metric, startGateway } from "../operations/gateway.mjs";

const EVENTS = Number(process.env.BACKEND_EVENTS ?? 20_000);
const RESTARTS = Number(process.env.BACKEND_RESTARTS ?? 2);
const CLIENTS = Number(process.env.BACKEND_CLIENTS ?? 64);
const UNANSWERED = 16;
/** Nothing for so long: events were lost. Longer than a request may take. */
const STALL_MS = 60_000;
const APP = fileURLToPath(new URL("backend-app.mjs", import.meta.url));
/** Clock ticks of /proc in a second. */
const TICKS = 100;

const acks = { app: 0, errors: {} };
let [failed, changed] = [undefined, Date.now()];

class Client {
  waiting = new Map();
  latest = [0, 0];
  answered = 0;

  constructor(url, events) {
    this.events = events;
    this.next = 0;
    this.socket = new WebSocket(`${url.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`);
    this.done = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.socket.on("error", reject);
      this.socket.on("close", (code) => reject(new Error(`a client was closed with ${code}`)));
    });
    this.joined = new Promise((resolve, reject) => {
      this.socket.on("message", (data) => {
        const text = String(data);
        if (text.startsWith("0")) this.socket.send("40");
        else if (text === "2") this.socket.send("3");
        else if (text.startsWith("40")) resolve();
        else if (text.startsWith("44")) reject(new Error(`refused: ${text}`));
        else if (text.startsWith("43")) this.acked(text);
      });
    });
  }

  go() {
    while (this.waiting.size < UNANSWERED && this.next < this.events) {
      this.waiting.set(this.next, true);
      this.socket.send(`42${this.next}["event",${this.next},"some words to carry"]`);
      this.next += 1;
    }
  }

  acked(text) {
    const from = text.indexOf("[");
    const id = Number(text.slice(2, from));
    const [first, second] = JSON.parse(text.slice(from));
    if (!this.waiting.delete(id)) throw new Error(`event ${id} was acked twice`);
    changed = Date.now();
    this.answered += 1;
    if (typeof first === "number") {
      acks.app += 1;
      const [life, number] = this.latest;
      if (first < life || (first === life && second <= number)) failed ??= `event ${id} reached the app as ${first}.${second}, one before it as ${life}.${number}`;
      this.latest = [first, second];
    } else if (first?.error?.code) {
      acks.errors[first.error.code] = (acks.errors[first.error.code] ?? 0) + 1;
    } else {
      failed ??= `event ${id} was acked with ${text.slice(from)}`;
    }
    if (this.answered === this.events) this.resolve();
    this.go();
  }

  close() {
    this.socket.removeAllListeners("close");
    this.socket.close();
  }
}

async function startApp(port, life) {
  const child = spawn(process.execPath, [APP, port, life], { stdio: ["ignore", "inherit", "inherit"] });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  return {
    pid: child.pid,
    async kill() {
      const used = seconds(child.pid);
      child.kill("SIGKILL");
      await ended;
      return used;
    },
  };
}

/** Processor time of a process, in seconds. */
function seconds(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ").at(-1).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

async function main() {
  const port = await freePort();
  let app = await startApp(port, 1);
  const gateway = await startGateway({
    toml: `[namespaces."/"]\nhandler = { http = "app" }\n[backends.app]\nurl = "http://127.0.0.1:${port}/"\n[log]\nlevel = "error"\n`,
  });
  const { pid } = (await gateway.control("/api/v1/status")).json.gateway;
  const share = Math.ceil(EVENTS / CLIENTS);
  const clients = Array.from({ length: CLIENTS }, () => new Client(gateway.url, share));
  await Promise.all(clients.map((client) => client.joined));
  const total = share * CLIENTS;
  const [began, used] = [Date.now(), seconds(pid)];
  let appUsed = 0;
  for (const client of clients) client.go();
  const answered = () => clients.reduce((sum, client) => sum + client.answered, 0);

  const all = Promise.all(clients.map((client) => client.done));
  let life = 1;
  while ((await before(50, all, "more")) === "more") {
    if (failed) break;
    if (Date.now() - changed > STALL_MS) throw new Error(`${total - answered()} events were never answered`);
    if (life <= RESTARTS && answered() >= (total / (RESTARTS + 1)) * life) {
      appUsed += await app.kill();
      // Away for a moment, or for so long that some events reach their deadline.
      await after(life % 5 === 0 ? 6_000 : 100 * (life % 4));
      life += 1;
      app = await startApp(port, life);
    }
  }
  if (failed) throw new Error(failed);
  const took = (Date.now() - began) / 1000;
  const cpu = seconds(pid) - used;
  const page = (await gateway.api("/metrics")).text;
  const queue = metric(page, "bowline_backend_queue");
  for (const client of clients) client.close();
  await gateway.stop();
  appUsed += await app.kill();

  const errors = Object.entries(acks.errors).map(([code, count]) => `${count} ${code}`);
  const failures = errors.length > 0 ? errors.join(", ") : "no error acks";
  console.log(`${total} events, app restarted ${life - 1} times: ${acks.app} acked by the app, ${failures}; order kept`);
  const micros = (seconds) => (seconds * 1e6) / total;
  console.log(
    `backend: ${Math.round(total / took)} events/s; processor time for an event: gateway ${micros(cpu).toFixed(1)} µs, app ${micros(appUsed).toFixed(1)} µs`,
  );
  if (queue !== 0) throw new Error(`${queue} requests are still in the queue`);
  if (acks.app + errors.reduce((sum, words) => sum + Number.parseInt(words, 10), 0) !== total) throw new Error("the sums do not agree");
  if (life - 1 !== RESTARTS) throw new Error(`the app was restarted ${life - 1} times instead of ${RESTARTS}`);
  if (acks.app < total / 2) throw new Error("most events did not reach the app");
}

process.on("uncaughtException", (error) => {
  console.error(error);
  process.exit(1);
});
await main();
