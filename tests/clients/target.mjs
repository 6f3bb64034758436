// Starts the server under test: `bowline serve` (BOWLINE_BIN, by default the debug build), or with
// TARGET=reference the reference server with the same two handlers.
//
// Settings have the keys of bowline.toml, for example { server: { shards: 2 } }.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { freePort } from "../harness/server.mjs";

const here = dirname(fileURLToPath(import.meta.url));

export const targetName = process.env.TARGET === "reference" ? "reference" : "bowline";

// Milliseconds until a server that was started must answer. A debug build on a busy machine.
const START_DEADLINE = 60_000;
// The last lines of a server's output that a failure shows.
const LOG_LINES = 40;

/** A TOML duration (`300ms`, `25s`, `2m`) in milliseconds. */
export function milliseconds(text) {
  const [, number, unit] = /^(\d+)(ms|s|m)$/.exec(text);
  return Number(number) * { ms: 1, s: 1000, m: 60_000 }[unit];
}

/** A TOML size (`1MB`, `64KiB`, or plain bytes) in bytes. */
export function bytes(size) {
  const [, number, unit] = /^(\d+)(B|KB|MB|KiB|MiB)?$/.exec(String(size));
  return Number(number) * { B: 1, KB: 1e3, MB: 1e6, KiB: 1024, MiB: 1024 ** 2 }[unit ?? "B"];
}

/** Starts a server and waits until it answers. */
export async function startTarget(settings = {}) {
  const target = new Target(settings, await freePort());
  await target.start();
  return target;
}

export class Target {
  #settings;
  #child;
  #folder;
  #log = [];

  constructor(settings, port) {
    this.#settings = settings;
    this.port = port;
    this.url = `http://127.0.0.1:${port}`;
  }

  get pid() {
    return this.#child.pid;
  }

  /** The last lines that the server printed. */
  get log() {
    return this.#log.join("\n");
  }

  /** The exit code, or the name of the signal that ended it; undefined while it runs. */
  get ended() {
    return this.#child.exitCode ?? this.#child.signalCode ?? undefined;
  }

  /** Starts the process without waiting for anything. */
  launch() {
    const [file, args] = this.#command();
    this.#child = spawn(file, args, {
      stdio: ["ignore", "pipe", "pipe"],
      detached: true, // a group of its own, so that kill() also reaches its children
      env: { ...process.env, NO_COLOR: "1" },
    });
    living.add(this);
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.setEncoding("utf8");
      stream.on("data", (text) => {
        if (process.env.SHOW_LOG) process.stderr.write(text);
        this.#log.push(...text.trimEnd().split("\n"));
        this.#log.splice(0, this.#log.length - LOG_LINES);
      });
    }
  }

  async start() {
    this.launch();
    const deadline = Date.now() + START_DEADLINE;
    while (!(await isLive(this.port))) {
      if (this.ended !== undefined) throw new Error(`the server ended: ${this.ended}\n${this.log}`);
      if (Date.now() > deadline) throw new Error(`the server does not answer\n${this.log}`);
      await new Promise((done) => setTimeout(done, 20));
    }
  }

  /** Sends a signal to the server and its children, and waits until it has gone. */
  async kill(signal = "SIGKILL") {
    living.delete(this);
    if (this.ended !== undefined) return;
    const gone = new Promise((done) => this.#child.once("exit", done));
    this.#signal(signal);
    await gone;
  }

  /** Ends the server for good, and fails if it had ended by itself. */
  async stop() {
    const before = this.ended;
    await this.kill();
    if (this.#folder) rmSync(this.#folder, { recursive: true });
    if (before !== undefined) throw new Error(`the server ended by itself: ${before}\n${this.log}`);
  }

  #signal(signal) {
    try {
      process.kill(-this.#child.pid, signal);
    } catch (error) {
      if (error.code !== "ESRCH") throw error;
    }
  }

  killNow() {
    if (this.ended === undefined) this.#signal("SIGKILL");
  }

  #command() {
    const listen = `127.0.0.1:${this.port}`;
    if (targetName === "reference") {
      const script = join(here, "../reference/relay-server.mjs");
      const settings = JSON.stringify(this.#settings);
      return [process.execPath, [script, "--listen", listen, "--settings", settings]];
    }
    const binary = resolve(process.env.BOWLINE_BIN ?? join(here, "../../target/debug/bowline"));
    if (!existsSync(binary)) throw new Error(`${binary} is missing: cargo build -p bowline`);
    // Port 0: servers of several tests may run at once.
    const args = ["serve", "--listen", listen, "--admin-listen", "127.0.0.1:0"];
    if (Object.keys(this.#settings).length > 0) {
      this.#folder ??= mkdtempSync(join(tmpdir(), "bowline-test-"));
      const file = join(this.#folder, "bowline.toml");
      writeFileSync(file, toToml(this.#settings));
      args.push("--config", file);
    }
    return [binary, args];
  }
}

// No server outlives its test, whatever ends the test.
const living = new Set();
process.on("exit", () => living.forEach((target) => target.killNow()));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

/** The text of a bowline.toml with these sections. */
export function toToml(settings) {
  return Object.entries(settings)
    .map(([section, keys]) => {
      const lines = Object.entries(keys).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
      return `[${section}]\n${lines.join("\n")}\n`;
    })
    .join("\n");
}

/** Whether `/health/live` answers 200, asked over a connection of its own. */
export function isLive(port) {
  return new Promise((done) => {
    let answer = "";
    const socket = connect(port, "127.0.0.1", () => {
      socket.write(`GET /health/live HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: close\r\n\r\n`);
    });
    socket.setTimeout(2000, () => socket.destroy());
    socket.on("data", (data) => {
      answer += data.toString("latin1");
      if (answer.includes("\r\n\r\n")) socket.destroy();
    });
    socket.on("error", () => {});
    socket.on("close", () => done(answer.startsWith("HTTP/1.1 200")));
  });
}
