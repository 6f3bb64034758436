// One measurement: a server that is started for it alone on one core, the load tool on the other.
import { execFile, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

import { SERVERS, appCommand, bowlineBinary, loadTool, strippedBytes } from "./servers.mjs";
import { median } from "./figures.mjs";

export const SERVER_CORE = "0";
export const LOAD_CORE = "1";
/** A measurement that takes longer hangs. */
const DEADLINE_MS = 180_000;
/** So long a server may take until it answers, on a busy machine. */
const START_DEADLINE_MS = 20_000;
/** What a server still does after its first answer does not belong to the measurement. */
const SETTLE_MS = 300;

/** Measures a server under a workload; `scale` makes it handle fewer messages. */
export async function measure(id, workload, scale) {
  const temporary = mkdtempSync(join(tmpdir(), "bowline-bench-"));
  folders.add(temporary);
  try {
    if (workload.starts) return await firstAnswer(id, workload, temporary);
    if (workload.figure === "stripped_mb") {
      const bytes = strippedBytes(bowlineBinary, join(temporary, "stripped"));
      return bytes === undefined ? {} : { stripped_mb: bytes / 1e6 };
    }
    return await underLoad(id, workload, scale, temporary);
  } finally {
    remove(temporary);
  }
}

/** What the load tool is asked for; nothing where there is no load. */
export function loadArguments(id, workload, scale) {
  if (!workload.load) return [];
  const { speed = 1, wire } = SERVERS[id];
  const many = (count) => Math.max(1, Math.round(count * (workload.alike ? 1 : speed) * scale));
  const args = workload.load(many).map(String);
  if (wire === undefined) return args;
  // It speaks nothing else.
  const at = args.indexOf("--wire");
  return [...(at < 0 ? args : args.toSpliced(at, 2)), "--wire", wire];
}

async function underLoad(id, workload, scale, temporary) {
  const server = SERVERS[id];
  const appPort = workload.app ? await freePort() : undefined;
  // The app has the core of the load tool: only the gateway is measured.
  const app = workload.app ? new Process(LOAD_CORE, appCommand(appPort)) : undefined;
  if (app) await app.answers(appPort, true);
  const { process: started, port } = await start(id, workload, temporary, appPort);
  try {
    await started.answers(port, server.wire !== "raw");
    await sleep(SETTLE_MS);
    const args = [...loadArguments(id, workload, scale), "--target", `http://127.0.0.1:${port}`, "--pid", String(serving(started.pid))];
    return await load(args).catch((error) => {
      throw new Error(started.said === "" ? error.message : `${error.message}\nthe server says: ${started.said}`);
    });
  } finally {
    await started.end();
    await app?.end();
  }
}

/** What the load tool has measured. */
async function load(args) {
  try {
    const command = ["-c", LOAD_CORE, loadTool, "bench", ...args, "--json"];
    const { stdout } = await promisify(execFile)("taskset", command, { timeout: DEADLINE_MS });
    return JSON.parse(stdout);
  } catch (error) {
    if (error.killed) throw new Error(`not done after ${DEADLINE_MS / 1000} s: bowline bench ${args.join(" ")}`);
    // The message of a failed command is its command line: what it says is of more interest.
    throw new Error(error.stderr?.trim() || error.message);
  }
}

/** Milliseconds from just before exec until a request is answered. */
async function firstAnswer(id, workload, temporary) {
  const times = [];
  for (let i = 0; i < workload.starts; i++) {
    const begun = performance.now();
    const { process: started, port } = await start(id, workload, join(temporary, String(i)));
    try {
      await started.answers(port, true, 1);
      times.push(performance.now() - begun);
    } finally {
      await started.end();
    }
  }
  return { first_answer_ms: median(times), first_answers_ms: times };
}

async function start(id, workload, temporary, appPort) {
  const server = SERVERS[id];
  const port = await freePort();
  mkdirSync(temporary, { recursive: true });
  const config = join(temporary, "bowline.toml");
  if (server.config) writeFileSync(config, server.config({ workload, appPort }));
  const state = join(temporary, "state");
  return { port, process: new Process(SERVER_CORE, server.command({ port, workload, folder: state, config })) };
}

function remove(temporary) {
  folders.delete(temporary);
  rmSync(temporary, { recursive: true, force: true });
}

// No server and no folder outlives the run, whatever ends it.
const living = new Set();
const folders = new Set();
process.on("exit", () => {
  living.forEach((process) => process.kill());
  folders.forEach(remove);
});
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(130));

/** A process on one core, with all that it starts. */
export class Process {
  said = "";
  #child;
  #gone;

  constructor(core, command, env = {}) {
    this.#child = spawn("taskset", ["-c", core, ...command], {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, NODE_ENV: "production", NO_COLOR: "1", ...env },
      detached: true, // a group of its own, so that the end also reaches its children
    });
    this.#child.stderr.on("data", (data) => (this.said = (this.said + data).slice(-2000)));
    this.#gone = new Promise((done) => this.#child.once("exit", done));
    living.add(this);
  }

  get pid() {
    return this.#child.pid;
  }

  get #ended() {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** Waits until it answers a request, or at least takes a connection. */
  async answers(port, http, pause = 20, patience = START_DEADLINE_MS) {
    const deadline = Date.now() + patience;
    while (!(await (http ? isAnswered(port) : isAccepted(port)))) {
      if (this.#ended) throw new Error(`it ended by itself: ${this.said}`);
      if (Date.now() > deadline) throw new Error(`nothing answers on port ${port}: ${this.said}`);
      await sleep(pause);
    }
  }

  kill() {
    living.delete(this);
    if (!this.#ended) process.kill(-this.pid, "SIGKILL");
  }

  async end() {
    this.kill();
    await this.#gone;
  }
}

/** The process that speaks to clients: Bowline's is a child of the one that was started. */
function serving(pid) {
  const children = readdirSync(`/proc/${pid}/task`)
    .flatMap((task) => readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").split(" "))
    .filter((child) => child !== "");
  return children.length === 0 ? pid : Number(children[0]);
}

function isAccepted(port) {
  return new Promise((done) => {
    const socket = connect(port, "127.0.0.1", () => {
      socket.destroy();
      done(true);
    });
    socket.on("error", () => done(false));
  });
}

function isAnswered(port) {
  return new Promise((done) => {
    // Any answer will do; a path of Engine.IO would open a session.
    const asked = request({ port, host: "127.0.0.1", path: "/health/live", agent: false }, (response) => {
      response.resume();
      response.on("end", () => done(true));
      response.on("error", () => done(false));
    });
    asked.on("error", () => done(false));
    asked.end();
  });
}

/** A port that was free a moment ago, below those that the system gives to outgoing connections. */
export function freePort() {
  return new Promise((done) => {
    const tryOne = () => {
      const port = 20_000 + Math.floor(Math.random() * 12_000);
      const probe = createServer().once("error", tryOne);
      probe.listen(port, "127.0.0.1", () => probe.close(() => done(port)));
    };
    tryOne();
  });
}
