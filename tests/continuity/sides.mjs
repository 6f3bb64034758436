// The two sides of the loss matrix, with one face: a server that pings, emits, and can be started with recovery on.
//
//   const server = await startBowline({ pingInterval: 300 });
//   await server.emit("e", [1]);
//   await server.stop();

import { execFile } from "node:child_process";
import { createServer, Agent, request as httpRequest } from "node:http";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { Server } from "socket.io";

import { run } from "../harness/programs.mjs";
import { bowlineBinary, freePort } from "../harness/server.mjs";
import { metric } from "../operations/gateway.mjs";

/** How often the servers ping unless a case wants it otherwise: so rarely that no case is helped by it. */
const PING = { pingInterval: 25_000, pingTimeout: 20_000 };

const DEBUG_BUILD = fileURLToPath(new URL("../../target/debug/bowline", import.meta.url));

/** npm's socket.io in this process. `recovery` turns its connection state recovery on. */
export async function startReference({ pingInterval = PING.pingInterval, pingTimeout = PING.pingTimeout, recovery = false } = {}) {
  const http = createServer();
  const connectionStateRecovery = recovery ? { maxDisconnectionDuration: 120_000 } : undefined;
  const io = new Server(http, { pingInterval, pingTimeout, serveClient: false, connectionStateRecovery });
  await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
  const receivers = ({ to = [], except = [] } = {}) => io.to(to).except(except);
  return {
    port: http.address().port,
    async emit(event, args, options) {
      const all = receivers(options);
      (options?.volatile ? all.volatile : all).emit(event, ...args);
    },
    /** What those who got the event answered within the time. */
    ask: (event, args, timeoutMs) =>
      new Promise((resolve) => io.timeout(timeoutMs).emit(event, ...args, (_error, answers) => resolve(answers))),
    sessions: async () => io.engine.clientsCount,
    stop: () => io.close(),
  };
}

/**
 * `bowline serve` with a state directory that outlives restarts. `toml` is appended to its configuration, whose `[engine]`
 * and `[admin]` are written here.
 */
export async function startBowline({ pingInterval = PING.pingInterval, pingTimeout = PING.pingTimeout, toml = "" } = {}) {
  const [port, admin] = [await freePort(), await freePort()];
  const directory = mkdtempSync(join(tmpdir(), "bowline-continuity-"));
  const [config, state] = [join(directory, "bowline.toml"), join(directory, "state")];
  const engine = `[engine]\nping-interval = "${pingInterval}ms"\nping-timeout = "${pingTimeout}ms"\n`;
  const configure = (toml) => writeFileSync(config, `[admin]\nlisten = "127.0.0.1:${admin}"\n${engine}${toml}\n`);
  configure(toml);
  const args = ["serve", "--listen", `127.0.0.1:${port}`, "--config", config, "--state-dir", state];
  // The harness names an admin address for servers that have none of their own.
  const binary = bowlineBinary("gateway") ?? DEBUG_BUILD;
  const launch = () => run(binary, args, { port, env: { BOWLINE_ADMIN_LISTEN: undefined } });
  // One connection, so that what is asked for in turn is done in turn.
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const call = (path, body) => ask(agent, admin, path, body);
  const post = async (path, body) => {
    const { status, text } = await call(path, body);
    if (status !== 200) throw new Error(`${path}: ${status} ${text}`);
    return JSON.parse(text);
  };
  const page = async () => (await call("/metrics")).text;

  let running = await launch();
  return {
    port,
    admin,
    state,
    said: () => running.said(),
    call,
    emit: (event, args, { to = "all", ...options } = {}) => post("/api/v1/emit", { event, args, to, ...options }),
    async ask(event, args, timeoutMs) {
      // The answer keeps its connection busy: what is emitted meanwhile goes over others.
      const { text } = await ask(undefined, admin, "/api/v1/emit", { event, args, ack: true, timeout: `${timeoutMs}ms` });
      return JSON.parse(text).acks.map(({ args }) => args[0]);
    },
    /** `bowline`, asked over the control socket. */
    cli: (...words) => promisify(execFile)(binary, [...words, "--state-dir", state]),
    join: (sid, ...rooms) => post("/api/v1/join", { sid, rooms }),
    leave: (sid, ...rooms) => post("/api/v1/leave", { sid, rooms }),
    sockets: async () => JSON.parse((await call("/api/v1/sockets")).text).sockets,
    sessions: async () => JSON.parse((await call("/api/v1/sockets")).text).total,
    metric: async (name, label) => metric(await page(), name, label) ?? 0,
    /** How many returns ended like this: a value of the label `outcome`. */
    recoveries: async (outcome) => metric(await page(), "bowline_recoveries_total", `outcome="${outcome}"`) ?? 0,
    /** Another `toml`, from the next start on. */
    configure,
    /** Stops it with a signal and starts it again where it was. `meanwhile` runs in between. */
    async restart(signal = "SIGTERM", meanwhile = () => {}) {
      if (signal === "SIGTERM") {
        await running.stop(20_000);
      } else {
        // The master alone would have its gateway replaced, and a gateway its master.
        const { gateway } = JSON.parse((await call("/api/v1/status")).text);
        for (const pid of [running.pid, gateway.pid]) process.kill(pid, signal);
        await running.exited;
      }
      agent.destroy();
      await meanwhile();
      running = await launch();
    },
    async stop() {
      agent.destroy();
      await running.stop(10_000);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

function ask(agent, port, path, body) {
  return new Promise((resolve, reject) => {
    const bytes = body === undefined ? undefined : JSON.stringify(body);
    const headers = bytes === undefined ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(bytes) };
    const method = bytes === undefined ? "GET" : "POST";
    const request = httpRequest({ host: "127.0.0.1", port, path, method, headers, agent, timeout: 60_000 }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk) => (text += chunk));
      response.on("end", () => resolve({ status: response.statusCode, text }));
      response.on("error", reject);
    });
    request.on("timeout", () => request.destroy(new Error(`${path} was not answered`)));
    request.on("error", reject);
    request.end(bytes);
  });
}
