// Starts servers under test and ends them: each on a free port of 127.0.0.1, ready when `/health/live` answers.
//
//   const server = await startServer(serverCommand("engine", "bowline"), { "ping-interval": "300ms" });
//   ... server.port ...
//   await server.stop();

import { spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { createServer } from "node:net";
import { get } from "node:http";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const TESTS = fileURLToPath(new URL("../", import.meta.url));

/** How long a server may take until it answers: a debug build on a busy machine needs well under a second. */
const READY_MS = 60_000;

/**
 * What each kind of server is: the reference's file, and the variable that names Bowline's binary.
 * `engine` and `suite` are the examples of DESIGN section 4 ("Embedding"), `gateway` is `bowline serve`.
 */
const KINDS = {
  engine: { path: "/engine.io/", reference: "engine-echo.mjs", variable: "ENGINE_ECHO_BIN", built: "examples/engine_echo" },
  suite: { path: "/socket.io/", reference: "socket-suite.mjs", variable: "SOCKET_SUITE_BIN", built: "examples/socket_suite" },
  gateway: { path: "/socket.io/", reference: "gateway.mjs", variable: "BOWLINE_BIN", built: "bowline" },
};

export const enginePath = (kind) => KINDS[kind].path;

/** The binary of Bowline for this kind, or undefined when the environment names none. */
export function bowlineBinary(kind) {
  const path = process.env[KINDS[kind].variable];
  if (path && !existsSync(path)) {
    throw new Error(`${KINDS[kind].variable} names ${path}, which does not exist`);
  }
  return path || undefined;
}

/** The command of a kind of server: `side` is "reference" or "bowline". */
export function serverCommand(kind, side) {
  if (side === "reference") {
    return { kind, side, file: process.execPath, args: [join(TESTS, "reference", KINDS[kind].reference)] };
  }
  const binary = bowlineBinary(kind);
  if (!binary) {
    throw new Error(`set ${KINDS[kind].variable} (for instance to target/debug/${KINDS[kind].built})`);
  }
  return { kind, side, file: binary, args: kind === "gateway" ? ["serve"] : [] };
}

/** Starts a server with flags such as `{ "ping-interval": "300ms" }` and waits until it is ready. */
export async function startServer(command, flags = {}) {
  const port = await freePort();
  const scratch = command.kind === "gateway" && command.side === "bowline" ? mkdtempSync(join(tmpdir(), "bowline-test-")) : undefined;
  const args = scratch
    ? [...command.args, "--listen", `127.0.0.1:${port}`, "--config", writeConfig(scratch, flags)]
    : [...command.args, "--listen", `127.0.0.1:${port}`, ...flagList(flags)];
  const child = spawn(command.file, args, { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.on("data", (chunk) => (said = (said + chunk).slice(-4000)));
  const exited = new Promise((resolve) => {
    child.once("exit", (code, signal) => resolve({ code, signal }));
    child.once("error", (error) => resolve({ error }));
  });
  const server = {
    port,
    pid: child.pid,
    path: enginePath(command.kind),
    url: `http://127.0.0.1:${port}`,
    exited,
    said: () => said,
    /** SIGTERM, and SIGKILL when that is not heeded in time. */
    async stop(graceMs = 500) {
      child.kill("SIGTERM");
      if ((await before(graceMs, exited, "late")) === "late") {
        child.kill("SIGKILL");
        await exited;
      }
      if (scratch) rmSync(scratch, { recursive: true, force: true });
    },
  };
  const end = await Promise.race([answers(port, () => child.exitCode !== null || child.signalCode !== null), exited]);
  if (end !== true) {
    await server.stop();
    throw new Error(`${command.file} ${args.join(" ")} did not become ready: ${JSON.stringify(end)}\n${said}`);
  }
  return server;
}

/** The flags of the examples as a configuration file of `bowline serve`: all of them are keys of `[engine]`. */
function writeConfig(directory, flags) {
  const value = (name, given) => {
    if (name === "cors-origin") return ["cors-allowed-origins", `[${[given].flat().map((origin) => JSON.stringify(origin)).join(", ")}]`];
    if (given === "true" || given === "false") return [name, given];
    return [name, JSON.stringify(given)];
  };
  const lines = Object.entries(flags).map(([name, given]) => value(name, given).join(" = "));
  const file = join(directory, "bowline.toml");
  writeFileSync(file, `[admin]\nlisten = "127.0.0.1:0"\n\n[engine]\n${lines.join("\n")}\n`);
  return file;
}

function flagList(flags) {
  return Object.entries(flags).flatMap(([name, given]) => [given].flat().flatMap((value) => [`--${name}`, value]));
}

/** A port that was free a moment ago, below the range given to outgoing connections, so that a server can be started again
 * on it; each is given once. */
export async function freePort() {
  for (;;) {
    const port = randomInt(20_000, 32_000);
    if (given.has(port)) continue;
    given.add(port);
    const free = await new Promise((resolve) => {
      const server = createServer();
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
}

const given = new Set();

/** Asks `/health/live` until it answers 200; there is no event for "a process now listens", so it asks again. */
async function answers(port, isOver) {
  const deadline = Date.now() + READY_MS;
  while (Date.now() < deadline && !isOver()) {
    const status = await new Promise((resolve) => {
      const request = get({ host: "127.0.0.1", port, path: "/health/live", agent: false, timeout: 1000 }, (response) => {
        response.resume();
        response.on("end", () => resolve(response.statusCode));
      });
      request.on("timeout", () => request.destroy());
      request.on("error", () => resolve(undefined));
    });
    if (status === 200) return true;
    await after(20);
  }
  return "no answer";
}

export function after(ms, value) {
  return new Promise((resolve) => setTimeout(resolve, ms, value));
}

/** What a promise comes to, or `otherwise` when it has not within `ms`; leaves no timer behind. */
export async function before(ms, promise, otherwise) {
  let timer;
  const late = new Promise((resolve) => (timer = setTimeout(resolve, ms, otherwise)));
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
