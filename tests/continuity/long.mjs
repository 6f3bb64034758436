// The long run: official JavaScript clients and clients of python-socketio under a steady stream of numbered events, over a network
// that cuts, swallows and stalls at random, with a server that is stopped and started again and again.
//
//   npm run continuity-long        --clients 200 --python 50 --restarts 10 --seconds 180 is the whole; the default is a small one
//
// JavaScript clients take part with offsets: once because they ask for it, once because `stamp = "always"`. They must miss nothing
// and get nothing twice. Clients of python-socketio are named by a cookie: with `on-doubt = "repeat"` they must miss nothing, with
// "skip" get nothing twice. `--without` takes all of that away, and fails unless events are then lost: the proof that this test
// can fail. Everything random comes from `--seed`.

import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { eventually, run } from "../harness/programs.mjs";
import { after, freePort, serverCommand } from "../harness/server.mjs";
import { ask } from "../operations/gateway.mjs";
import { Random } from "../soak/random.mjs";
import { startProxy } from "./proxy.mjs";
import { event, isDue, judge, roomsOf } from "./stream.mjs";

const { values: flags } = parseArgs({
  options: {
    clients: { type: "string", default: "20" },
    python: { type: "string", default: "6" },
    restarts: { type: "string", default: "2" },
    seconds: { type: "string", default: "20" },
    rate: { type: "string", default: "20" },
    faults: { type: "string", default: "0.12" },
    modes: { type: "string", default: "auto,always" },
    seed: { type: "string", default: `${Math.floor(Math.random() * 2 ** 32)}` },
    shards: { type: "string", default: "3" },
    without: { type: "boolean", default: false },
    keep: { type: "string" },
  },
});
const number = (name) => Number(flags[name]);
const [CLIENTS, PYTHON, RESTARTS, SECONDS, RATE, SEED] = ["clients", "python", "restarts", "seconds", "rate", "seed"].map(number);
/** In a second, for each client: each is hit about every eight seconds. */
const FAULTS = number("faults");
const random = new Random(SEED);

/** How long everybody may take to come back once the network is well, and how long to connect at first. */
const RETURN_MS = 60_000;
/** How long the last event may take to those who are there. */
const END_MS = 60_000;
/** How long an end that was left behind stays open. */
const LEFT_BEHIND_MS = 20_000;
/** Clients that a failed run tells the story of. */
const STORIES = 4;

const JAVASCRIPT = "/js";
const COLUMNS = ["clients", "returns", "fresh", "due", "lost", "twice", "overtaken", "foreign", "spoilt"];
const NAMESPACES = [JAVASCRIPT, "/repeat", "/skip"];

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

function configuration(mode, admin) {
  const keys = (namespace, lines) => `[namespaces."${namespace}"]\nhandler = "echo"\n${flags.without ? "" : lines}\n`;
  const named = (doubt) => `session-key = "cookie:device"\non-doubt = "${doubt}"`;
  return [
    `[admin]\nlisten = "127.0.0.1:${admin}"`,
    `[server]\nshards = ${flags.shards}\ndrain = "5s"`,
    `[engine]\nping-interval = "2s"\nping-timeout = "2s"`,
    `[log]\nlevel = "info"\nformat = "json"`,
    keys(JAVASCRIPT, `stamp = "${mode}"`),
    keys("/repeat", named("repeat")),
    keys("/skip", named("skip")),
  ].join("\n\n");
}

/** A server that can be stopped and started again on the same ports, with the same state. */
class Server {
  /** `bowline_recoveries_total` by outcome, over all lives but for what came after the last look of each. */
  outcomes = new Map();
  log = "";

  static async start(mode) {
    const server = new Server();
    server.directory = mkdtempSync(join(tmpdir(), "bowline-long-"));
    [server.port, server.admin] = [await freePort(), await freePort()];
    writeFileSync(join(server.directory, "bowline.toml"), configuration(mode, server.admin));
    await server.begin();
    return server;
  }

  async begin() {
    const { file } = serverCommand("gateway", "bowline");
    const args = ["serve", "--listen", `127.0.0.1:${this.port}`, "--config", join(this.directory, "bowline.toml"), "--state-dir", join(this.directory, "state")];
    this.running = await run(file, args, { port: this.port, env: { BOWLINE_ADMIN_LISTEN: undefined } });
    living.add(this.running);
  }

  async end() {
    await this.look();
    const began = Date.now();
    await this.running.stop(20_000);
    living.delete(this.running);
    this.log += this.running.said();
    return Date.now() - began;
  }

  /** Adds up what this life has counted. */
  async look() {
    const page = (await this.api("/metrics")).text;
    for (const [, outcome, count] of page.matchAll(/^bowline_recoveries_total\{outcome="([^"]+)"\} (\d+)/gm)) {
      this.outcomes.set(outcome, (this.outcomes.get(outcome) ?? 0) + Number(count));
    }
  }

  api(path, options) {
    return ask({ host: "127.0.0.1", port: this.admin }, path, options);
  }

  clear() {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Emits numbered events to one namespace, one after the other, through stops and starts of the server. */
class Stream {
  /** By number: `sent`, or `doubtful` if it was asked for and never answered. */
  fates = [];
  times = [];
  refused = 0;
  /** Why events are in doubt: `[number, code]`. */
  doubts = [];
  over = false;

  constructor(server, namespace) {
    [this.server, this.namespace] = [server, namespace];
  }

  async run() {
    for (let next = Date.now(); !this.over; next = Math.max(next + 1000 / RATE, Date.now())) {
      await after(Math.max(0, next - Date.now()));
      const number = this.fates.length;
      this.times.push(Date.now());
      this.fates.push(await this.#emit(event(number)));
    }
  }

  async #emit(body) {
    for (;;) {
      try {
        const { status, text } = await this.server.api("/api/v1/emit", { method: "POST", body: { namespace: this.namespace, ...body } });
        if (status === 200) return "sent";
        // It was not sent: that is what this status says.
        if (status !== 503) throw new Error(`${status} ${text}`);
      } catch (error) {
        if (error.code !== "ECONNREFUSED") {
          if (error.code === undefined) throw error;
          this.doubts.push([body.args[0], error.code]);
          return "doubtful";
        }
      }
      this.refused += 1;
      await after(20);
    }
  }
}

/** A process with clients in it. */
class Clients {
  connected = 0;
  ended = 0;
  waiting = 0;
  reports = [];

  constructor(file, args, told, server) {
    this.server = server;
    this.count = told.count;
    this.child = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
    living.add(this.child);
    this.done = new Promise((resolve, reject) => {
      this.child.once("exit", (code) => reject(new Error(`${args} ended with ${code}`)));
      createInterface({ input: this.child.stdout }).on("line", (line) => this.#hear(JSON.parse(line), resolve));
    });
    this.done.catch(() => {});
    this.#tell(told);
  }

  #tell(what) {
    this.child.stdin.write(`${JSON.stringify(what)}\n`);
  }

  #hear(said, done) {
    if (said.report) this.reports.push(said.report);
    else if (said.done) done();
    else if (said.fresh) this.#join(said.fresh);
    else Object.assign(this, said);
  }

  async #join({ index, namespace, sid }) {
    this.waiting += 1;
    const body = { namespace, sid, rooms: roomsOf(index) };
    // A socket that has gone again cannot be put into rooms; its next one will be.
    await eventually("a join", async () => [200, 404].includes((await this.server.api("/api/v1/join", { method: "POST", body })).status), RETURN_MS);
    this.waiting -= 1;
  }

  async report() {
    this.#tell({ report: true });
    await this.done;
    return this.reports;
  }
}

/** Hits one connection after the other until it is told to stop, each at most once. */
async function disturb(proxies, counts, state) {
  const faults = {
    cut: (link) => link.cut(),
    "cut within": (link) => link.cutAfter(random.between(1, 400)),
    abandon: (link) => link.abandon(),
    swallow: (link) => link.swallow(),
    mute: (link) => (link.onUp = () => undefined),
    stall: (link) => {
      link.hold();
      state.hit.delete(link);
      setTimeout(() => link.release(), random.between(50, 1500)).unref();
    },
  };
  const names = ["cut", "cut", "cut within", "cut within", "abandon", "abandon", "swallow", "mute", "stall"];
  while (!state.over) {
    await after((1000 / (FAULTS * (CLIENTS + PYTHON))) * 2 * random.fraction());
    const whole = proxies.flatMap(({ links }) => [...links]).filter((link) => !state.hit.has(link));
    if (whole.length === 0) continue;
    const [name, link] = [random.pick(names), random.pick(whole)];
    state.hit.add(link);
    faults[name](link);
    counts[name] = (counts[name] ?? 0) + 1;
    // What was left behind goes when a system would have given it up.
    if (name !== "stall") setTimeout(() => link.cut(), LEFT_BEHIND_MS).unref();
  }
}

async function pass(mode) {
  const server = await Server.start(mode);
  const proxies = [await startProxy(server.port), await startProxy(server.port)];
  const groups = [];
  try {
    const auth = mode === "auto" && !flags.without ? { recovery: true } : undefined;
    const start = (file, args, told) => told.count > 0 && groups.push(new Clients(file, args, told, server));
    start(process.execPath, [here("long-clients.mjs")], { url: proxies[0].url, count: CLIENTS, namespace: JAVASCRIPT, auth });
    start(process.env.PYTHON_BIN ?? "python3", [here("long_clients.py")], { url: proxies[1].url, count: PYTHON, namespaces: ["/repeat", "/skip"] });
    const all = (what) => groups.every((group) => group[what] === group.count);
    await eventually("the first connects", () => all("connected") && groups.every(({ waiting }) => waiting === 0), RETURN_MS);

    const streams = NAMESPACES.map((namespace) => new Stream(server, namespace));
    const running = Promise.all(streams.map((stream) => stream.run()));
    const [state, faults, stops] = [{ over: false, hit: new Set() }, {}, []];
    const disturbing = disturb(proxies, faults, state);
    for (let restart = 0; restart < RESTARTS; restart++) {
      await Promise.race([after((SECONDS * 1000) / (RESTARTS + 1)), running]);
      stops.push({ at: Date.now(), took: await server.end() });
      await server.begin();
    }
    await Promise.race([after((SECONDS * 1000) / (RESTARTS + 1)), running]);
    for (const stream of streams) stream.over = true;
    await running;
    state.over = true;
    await disturbing;

    for (const link of state.hit) link.cut();
    const end = (namespace) => server.api("/api/v1/emit", { method: "POST", body: { namespace, event: "end" } });
    await eventually("everybody", () => all("connected"), RETURN_MS).catch(() => {});
    const unheard = await eventually("the end for everybody", async () => {
      if (!all("ended")) await Promise.all(NAMESPACES.map(end));
      await after(500);
      return all("ended");
    }, END_MS).catch((error) => error.message);
    const reports = (await Promise.all(groups.map((group) => group.report()))).flat();
    await server.end();
    return conclude({ mode, server, streams, faults, stops, reports, unheard });
  } finally {
    for (const { child } of groups) child.kill("SIGKILL");
    await Promise.all(proxies.map((proxy) => proxy.stop()));
    await server.running.stop(2000);
    server.clear();
  }
}

/** Prints what came of it, and returns what is wrong. */
function conclude({ mode, server, streams, faults, stops, reports, unheard }) {
  const wrong = unheard === true ? [] : [`${unheard}`];
  const emitted = streams.reduce((sum, { fates }) => sum + fates.length, 0);
  const hits = Object.entries(faults).map(([name, count]) => `${count} × ${name}`);
  const slowest = Math.max(0, ...stops.map(({ took }) => took));
  const doubts = streams.flatMap((stream) => doubtsOf(stream, reports, wrong));
  console.log(`\n${mode}: ${emitted} events emitted, ${doubts.length} in doubt; ${hits.join(", ")}; ${stops.length} restarts, the slowest stop took ${slowest} ms`);
  if (doubts.length > 0) console.log(`in doubt: ${doubts.join(", ")}`);
  for (const { kind, index, namespace, transports, story, ended } of reports) {
    if (!ended) console.log(`${kind} ${index} ${namespace} over ${transports} has not come back: ${JSON.stringify(story.slice(-4))}`);
  }

  const failed = [];
  console.log(`${"clients".padEnd(10)} ${COLUMNS.map((word) => word.padStart(9)).join(" ")}`);
  for (const { namespace, fates } of streams) {
    const sum = Object.fromEntries(COLUMNS.map((what) => [what, 0]));
    for (const report of reports.filter((report) => report.namespace === namespace)) {
      const found = judge(report.index, report.got, fates.length, (number) => fates[number]);
      const counts = countsOf(report, found);
      for (const [what, count] of Object.entries(counts)) sum[what] += count;
      const broken = promised(namespace).filter((what) => counts[what] > 0);
      if (broken.length > 0) failed.push({ report, found, broken });
    }
    console.log(`${namespace.padEnd(10)} ${COLUMNS.map((what) => `${sum[what]}`.padStart(9)).join(" ")}`);
    totals[namespace] ??= { due: 0, returns: 0, lost: 0, twice: 0 };
    for (const what of Object.keys(totals[namespace])) totals[namespace][what] += sum[what];
    wrong.push(...verdict(namespace, sum));
  }
  const revived = reports.reduce((sum, { revived = 0 }) => sum + revived, 0);
  if (PYTHON > 0) console.log(`clients of python-socketio that gave up and were started again by their app: ${revived}`);
  const outcomes = [...server.outcomes].filter(([, count]) => count > 0).map(([outcome, count]) => `${count} ${outcome}`);
  console.log(`recoveries as the server counted them: ${outcomes.join(", ") || "none"}`);
  if (flags.keep) keep({ mode, server, streams, stops, reports });
  if (!flags.without) for (const one of failed.slice(0, STORIES)) tell(one, streams, stops);
  return wrong;
}

/** What is counted of a client, as the columns of the table. */
function countsOf(report, found) {
  return {
    clients: 1,
    returns: report.recovered,
    fresh: report.fresh - 1,
    due: found.due,
    lost: found.lost.length,
    twice: found.twice.length,
    overtaken: found.overtaken.length,
    foreign: found.foreign.length,
    spoilt: report.story.filter(([, what]) => what === "spoilt").length,
  };
}

/** What is wrong with the sums of a namespace. */
function verdict(namespace, sum) {
  if (sum.clients === 0) return [];
  const wrong = sum.due === 0 ? [`${namespace}: nobody was due anything`] : [];
  if (flags.without) {
    if (namespace === JAVASCRIPT && sum.lost === 0) wrong.push("nothing was lost without recovery: this test could not fail");
    return wrong;
  }
  if (sum.returns === 0) wrong.push(`${namespace}: nobody ever returned`);
  for (const what of promised(namespace)) if (sum[what] > 0) wrong.push(`${namespace}: ${sum[what]} ${what}`);
  return wrong;
}

/** Events whose emit was asked for and never answered. Each may have been sent or not, but not to some alone. */
function doubtsOf({ namespace, doubts }, reports, wrong) {
  return doubts.map(([number, code]) => {
    const due = reports.filter((report) => report.namespace === namespace && isDue(number, report.index));
    const had = due.filter(({ got }) => got.includes(number)).length;
    if (namespace === JAVASCRIPT && !flags.without && had > 0 && had < due.length) wrong.push(`${namespace} ${number} was got by ${had} of ${due.length}`);
    return `${namespace} ${number} (${code}, got by ${had} of ${due.length})`;
  });
}

/** What must not be, for clients of this namespace. Where events may come twice, one may also come after a later one. */
function promised(namespace) {
  // python-socketio takes the first text after a cut for the attachment that the cut has lost.
  const always = namespace === JAVASCRIPT ? ["fresh", "foreign", "spoilt"] : ["fresh", "foreign"];
  if (namespace === "/repeat") return [...always, "lost"];
  if (namespace === "/skip") return [...always, "twice", "overtaken"];
  return [...always, "lost", "twice", "overtaken"];
}

/** The story of a client that did not get what it was promised. */
function tell({ report, found, broken }, streams, stops) {
  const { times } = streams.find(({ namespace }) => namespace === report.namespace);
  const start = times[0];
  const numbers = broken.flatMap((what) => found[what] ?? []);
  const [low, high] = [times[Math.min(...numbers)] - 6000, times[Math.max(...numbers.slice(0, 50))] + 8000];
  const when = (at) => `${((at - start) / 1000).toFixed(2)}s`;
  console.log(`\n${report.kind} ${report.index} ${report.namespace} over ${report.transports}: ${broken.join(", ")}`);
  for (const what of ["lost", "twice", "overtaken", "foreign"]) {
    const some = found[what].slice(0, 12).map((number) => `${number} (${when(times[number])})`);
    if (some.length > 0) console.log(`  ${what} ${found[what].length}: ${some.join(" ")}`);
  }
  const lines = [...report.story, ...stops.map(({ at, took }) => [at, "stop", `took ${took} ms`])].toSorted(([a], [b]) => a - b);
  for (const [at, what, details] of lines) {
    if (!(at < low) && !(at > high)) console.log(`  ${when(at).padStart(9)} ${what} ${details}`);
  }
}

/** Leaves everything in a directory, for whoever wants to know why. */
function keep({ mode, server, streams, stops, reports }) {
  mkdirSync(flags.keep, { recursive: true });
  const plain = streams.map(({ namespace, fates, times, refused }) => ({ namespace, fates, times, refused }));
  writeFileSync(join(flags.keep, `${mode}.json`), JSON.stringify({ streams: plain, stops, reports }));
  writeFileSync(join(flags.keep, `${mode}.log`), server.log);
}

// Nothing outlives this, whatever ends it.
const living = new Set();
process.on("exit", () => living.forEach((child) => child.kill("SIGKILL")));
process.on("uncaughtException", (error) => {
  console.error(error);
  process.exit(1);
});
console.log(
  `${CLIENTS} JavaScript clients, ${PYTHON} of python-socketio, ${SECONDS} s, ${RATE} events/s in each of ${NAMESPACES.length} namespaces, ` +
    `${RESTARTS} restarts, ${flags.shards} shards, seed ${SEED}${flags.without ? ", without recovery" : ""}`,
);
const totals = {};
let [passed, broken] = [0, 0];
for (const mode of flags.modes.split(",")) {
  const wrong = await pass(mode);
  for (const line of wrong) console.log(`wrong, ${mode}: ${line}`);
  if (wrong.length === 0) passed += 1;
  else broken += 1;
}
const words = Object.entries(totals).map(([namespace, { due, returns, lost, twice }]) => `${namespace} ${due} due over ${returns} returns, ${lost} lost, ${twice} twice`);
console.log(`long: ${words.join("; ")}; seed ${SEED}\n${passed} passed, ${broken} failed`);
process.exit(broken > 0 ? 1 : 0);
