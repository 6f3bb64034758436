// What is measured: how each server is started, and which of its files make it what it is.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
export const root = join(here, "..");
const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
const peer = (name) => join(target, "peers/release", name);

/** The program under test, and the load tool: by default it is in the same one. */
export const bowlineBinary = process.env.BOWLINE_BIN ?? join(target, "release/bowline");
export const loadTool = process.env.LOAD_BIN ?? join(target, "release/bowline");
const rooms = join(target, "release/examples/rooms");
const app = peer("app");
const python = join(here, ".venv/bin/python");

/** Where results and reports are. */
export const folder = join(target, "bench");

const installed = (name) =>
  JSON.parse(readFileSync(join(here, "package-lock.json"), "utf8")).packages[`node_modules/${name}`].version;
const required = (name) =>
  new RegExp(`^${name}==(.+)$`, "m").exec(readFileSync(join(here, "requirements.txt"), "utf8"))[1];
const locked = (name) =>
  new RegExp(`name = "${name}"\nversion = "(.+)"`).exec(readFileSync(join(here, "peers/Cargo.lock"), "utf8"))[1];

/**
 * `name` is for tables, `short` for the chart. `speed` makes slow ones handle fewer messages, `rounds`
 * fewer rounds. `command` gets `port`, `workload`, a `folder` of its own and the `appPort`.
 */
export const SERVERS = {
  floor: {
    name: "bare epoll + write(2), no protocol (the floor)",
    short: "the floor",
    wire: "raw",
    needs: [peer("floor")],
    command: ({ port, workload }) => [peer("floor"), `127.0.0.1:${port}`, workload.audience ?? "echo"],
  },
  bowline: bowline("Bowline, one shard", "Bowline", 1),
  bowline2: bowline("Bowline, two shards on the one core", "Bowline, two shards", 2),
  socketioxide: {
    name: `socketioxide ${locked("socketioxide")} (Rust)`,
    short: "socketioxide",
    needs: [peer("socketioxide-peer")],
    command: ({ port }) => [peer("socketioxide-peer"), `127.0.0.1:${port}`],
  },
  socketio: {
    name: `Socket.IO ${installed("socket.io")} (Node ${process.versions.node})`,
    short: "Socket.IO (Node)",
    speed: 0.25,
    needs: [join(here, "peers/socketio.mjs"), join(here, "node_modules/socket.io/package.json")],
    command: ({ port }) => [process.execPath, join(here, "peers/socketio.mjs"), String(port)],
  },
  python: {
    name: `python-socketio ${required("python-socketio")} (asyncio, aiohttp)`,
    short: "python-socketio",
    speed: 0.05,
    rounds: 3,
    needs: [python, join(here, "requirements.txt"), join(here, "peers/python_server.py")],
    command: ({ port }) => [python, join(here, "peers/python_server.py"), String(port)],
  },
};

function bowline(name, short, shards) {
  return {
    name,
    short,
    needs: [bowlineBinary],
    command({ port, workload, folder, config }) {
      const listen = ["--listen", `127.0.0.1:${port}`, "--shards", String(shards)];
      if (workload.rooms) return [rooms, ...listen];
      return [bowlineBinary, "serve", ...listen, "--admin-listen", "127.0.0.1:0", "--state-dir", folder, "--config", config];
    },
    config: ({ workload, appPort }) => `
[limits]
handshakes-per-second = 1_000_000
events-per-second = 500_000
${workload.app ? `
[namespaces."/"]
handler = { http = "app" }

[backends.app]
url = "http://127.0.0.1:${appPort}/bowline"
` : ""}`,
  };
}

/** The command of the app behind HTTP. */
export const appCommand = (port) => [app, `127.0.0.1:${port}`];

/** The files without which a server cannot be measured under a workload. */
export function missing(id, workload) {
  const needs = [...SERVERS[id].needs, loadTool];
  if (workload.app) needs.push(app);
  if (workload.rooms && id.startsWith("bowline")) needs.push(rooms);
  return needs.filter((file) => !existsSync(file));
}

/** All files of which the figures depend. */
export const measuredFiles = [
  ...new Set([...Object.values(SERVERS).flatMap((server) => server.needs), loadTool, rooms, app]),
  join(here, "servers.mjs"),
  join(here, "workloads.mjs"),
  join(here, "package-lock.json"),
].filter((file) => file !== python);

/** The size of a binary without what debuggers need; undefined without `strip`. */
export function strippedBytes(file, copy) {
  try {
    execFileSync("strip", ["-o", copy, file], { stdio: "ignore" });
    return readFileSync(copy).length;
  } catch {
    return undefined;
  }
}
