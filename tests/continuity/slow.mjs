// One client among a thousand never reads. Prints how long events to the others are under way with it and without it, in turn, and
// how much memory the gateway takes. The slow one is cut each time, comes back, and must have everything, once and in order.
//
//   npm run continuity-slow        --clients 1000 --rounds 7 --seconds 8 is the whole; the default is a small one
//
// With and without, the client gets the same stream of its own beside what all get; what differs is only whether it reads. Figures
// of time are printed, not asserted. `--without` takes recovery away, and fails unless events are then lost.

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { WebSocket } from "ws";

import { eventually } from "../harness/programs.mjs";
import { after } from "../harness/server.mjs";
import { metric, startGateway } from "../operations/gateway.mjs";

const { values: flags } = parseArgs({
  options: {
    clients: { type: "string", default: "200" },
    rounds: { type: "string", default: "2" },
    seconds: { type: "string", default: "6" },
    rate: { type: "string", default: "10" },
    shards: { type: "string", default: "2" },
    without: { type: "boolean", default: false },
  },
});
const [CLIENTS, ROUNDS, SECONDS, RATE] = ["clients", "rounds", "seconds", "rate"].map((name) => Number(flags[name]));

/** What the slow one is sent: more in one phase than the system keeps in the buffers of a connection, and the limit above that. */
const BULK_BYTES = 32 * 1024;
const BULK_PER_SECOND = 64;
const MIB = 1024 * 1024;
const LOG_BYTES = 128 * MIB;
const QUEUED_BYTES = MIB;
/** What the allocator may keep beyond log and queue. */
const SLACK_BYTES = 64 * MIB;
/** How long it may take to come back and to take in what it has missed. */
const RETURN_MS = 60_000;

const NAMESPACE = "/relay";

/** A client that reads or does not, and comes back as the official one does: with pid and offset. */
class Slow {
  numbers = [];
  returns = { recovered: 0, fresh: 0 };
  reading = true;
  cuts = 0;

  constructor(url) {
    this.url = `${url.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`;
  }

  connect() {
    const socket = (this.socket = new WebSocket(this.url, { perMessageDeflate: false }));
    const joined = new Promise((resolve) => (this.joined = resolve));
    socket.on("message", (data) => this.#hear(data.toString()));
    socket.on("error", () => {});
    socket.on("close", () => {
      this.cuts += 1;
      this.connect();
    });
    return joined;
  }

  stopReading() {
    this.reading = false;
    this.socket.pause();
  }

  startReading() {
    this.reading = true;
    this.socket.resume();
  }

  close() {
    this.socket.removeAllListeners("close");
    this.socket.terminate();
  }

  #hear(text) {
    if (text === "2") return void this.socket.send("3");
    if (text.startsWith("0")) {
      const back = this.pid && { pid: this.pid, offset: this.offset };
      return void this.socket.send(`40${NAMESPACE},${JSON.stringify(flags.without ? {} : back ?? { recovery: true })}`);
    }
    const [, type, body] = /^4(\d)\/relay,(.*)$/s.exec(text) ?? [];
    if (type === "0") this.#connected(JSON.parse(body));
    else if (type === "2") this.#take(JSON.parse(body));
  }

  #connected({ sid, pid }) {
    const recovered = sid === this.sid && pid === this.pid && pid !== undefined;
    if (this.sid !== undefined) this.returns[recovered ? "recovered" : "fresh"] += 1;
    [this.sid, this.pid] = [sid, pid];
    this.joined();
  }

  #take(event) {
    if (this.pid && typeof event.at(-1) === "string") this.offset = event.at(-1);
    if (event[0] === "bulk") this.numbers.push(event[1]);
  }
}

/** The other clients, in a process of their own. */
class Others {
  #lines;

  constructor() {
    const script = fileURLToPath(new URL("slow-others.mjs", import.meta.url));
    this.child = spawn(process.execPath, [script], { stdio: ["pipe", "pipe", "inherit"] });
    this.#lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }

  async tell(what) {
    this.child.stdin.write(`${JSON.stringify(what)}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("the process of the other clients has ended");
    return JSON.parse(value);
  }
}

/** Sends numbered events to the slow one alone, until it is told to stop. */
async function sendBulk(gateway, slow, state) {
  const words = "w".repeat(BULK_BYTES);
  for (let next = Date.now(); !state.over; next = Math.max(next + 1000 / BULK_PER_SECOND, Date.now())) {
    await after(Math.max(0, next - Date.now()));
    const body = { namespace: NAMESPACE, to: [slow.sid], event: "bulk", args: [state.sent, words] };
    const { status, text } = await gateway.api("/api/v1/emit", { method: "POST", body });
    if (status !== 200) throw new Error(`an emit was answered ${status}: ${text}`);
    state.sent += 1;
  }
}

function memory(pid) {
  return Number(/RssAnon:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]) * 1024;
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const mib = (bytes) => `${(bytes / MIB).toFixed(1)} MiB`;

async function main(others) {
  const gateway = await startGateway({
    toml: [
      `[server]\nshards = ${flags.shards}`,
      `[limits]\nqueued-bytes-per-session = ${QUEUED_BYTES}`,
      flags.without ? "" : `[continuity]\nmax-bytes = ${LOG_BYTES}`,
      `[namespaces."${NAMESPACE}"]\nhandler = "relay"`,
      `[log]\nlevel = "warn"`,
    ].join("\n\n"),
  });
  living.add(gateway);
  const { pid } = (await gateway.api("/api/v1/status")).json.gateway;
  const slowCount = async () => metric((await gateway.api("/metrics")).text, "bowline_slow_receivers_total");
  const { joined } = await others.tell({ url: gateway.url, count: CLIENTS - 1, rate: RATE });
  const slow = new Slow(gateway.url);
  await slow.connect();
  const before = memory(pid);
  let peak = before;
  const sampling = setInterval(() => (peak = Math.max(peak, memory(pid))), 100);

  const [state, wrong] = [{ sent: 0, over: false }, []];
  const sending = sendBulk(gateway, slow, state);
  const phase = () => Promise.race([others.tell({ measure: SECONDS * 1000 }), sending.then(() => { throw new Error("the stream has ended"); })]);
  const [without, withSlow] = [[], []];
  await phase();
  for (let round = 0; round < ROUNDS; round++) {
    without.push(await phase());
    const cutsBefore = await slowCount();
    slow.stopReading();
    withSlow.push(await phase());
    if ((await slowCount()) === cutsBefore) wrong.push(`round ${round}: the one that does not read was not cut`);
    slow.startReading();
    const wanted = state.sent;
    await eventually("the slow one to have it all", () => slow.numbers.at(-1) >= wanted, RETURN_MS).catch((error) => wrong.push(error.message));
  }
  state.over = true;
  await sending;
  await eventually("the last event", () => slow.numbers.at(-1) >= state.sent - 1, RETURN_MS).catch((error) => wrong.push(error.message));
  clearInterval(sampling);
  const held = memory(pid);
  slow.close();

  const seen = new Set(slow.numbers);
  const lost = state.sent - seen.size;
  const twice = slow.numbers.length - seen.size;
  const overtaken = slow.numbers.filter((number, i) => i > 0 && number < slow.numbers[i - 1]).length;
  const { recovered, fresh } = slow.returns;
  const p99 = (phases) => phases.map((phase) => phase.p99);
  const list = (phases) => phases.map(({ p50, p99 }) => `${p50.toFixed(1)}/${p99.toFixed(1)}`).join(" ");
  const [calm, slowed] = [median(p99(without)), median(p99(withSlow))];
  console.log(`${joined} others in ${NAMESPACE}, ${RATE} events/s to all; p50/p99 in ms, ${SECONDS} s each\n  without: ${list(without)}\n  with:    ${list(withSlow)}`);
  console.log(`slow: p99 of the others ${calm.toFixed(2)} ms without, ${slowed.toFixed(2)} ms with one that never reads: × ${(slowed / calm).toFixed(3)}`);
  console.log(`memory of the gateway: ${mib(before)} before, ${mib(peak)} at most, ${mib(held)} at the end (log at most ${mib(LOG_BYTES)}, queue ${mib(QUEUED_BYTES)})`);
  console.log(`the slow one: cut ${slow.cuts} times, ${recovered} returns recovered, ${fresh} fresh; of ${state.sent} events ${lost} lost, ${twice} twice, ${overtaken} overtaken`);

  const ended = [...without, ...withSlow].at(-1).ends;
  if (ended > 0) wrong.push(`${ended} of the others were closed`);
  if (peak - before > LOG_BYTES + QUEUED_BYTES + SLACK_BYTES) wrong.push(`${mib(peak - before)} more than before at most`);
  if (flags.without) {
    if (lost === 0) wrong.push("nothing was lost without recovery: this test could not fail");
  } else {
    if (lost + twice + overtaken + fresh > 0) wrong.push("the slow one has not got everything once and in order");
    if (recovered < ROUNDS) wrong.push(`${recovered} recoveries in ${ROUNDS} rounds`);
  }
  await gateway.stop();
  for (const line of wrong) console.log(`wrong: ${line}`);
  console.log(`${wrong.length > 0 ? 0 : 1} passed, ${wrong.length > 0 ? 1 : 0} failed`);
  return wrong.length === 0;
}

// Nothing outlives this, whatever ends it.
const others = new Others();
const living = new Set([others.child]);
process.on("exit", () => living.forEach((child) => child.kill("SIGKILL")));
process.on("uncaughtException", (error) => {
  console.error(error);
  process.exit(1);
});
process.exit((await main(others)) ? 0 : 1);
