// Measures Bowline and its peers in one run, in turns, on two cores: the server pinned to one, the
// load tool to the other. README.md says how to prepare it.
//
//   node run.mjs [--rounds 7] [--servers floor,bowline,…] [--measures echo,wide,…] [--sessions 10000] [--quick]
//
// A Markdown table of medians comes out, and with each the least and the greatest figure.
import { execFile, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { cpus, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";

import { freePort, toToml } from "../tests/clients/target.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const built = (name) => process.env[`${name.toUpperCase()}_BIN`] ?? join(root, "target/release", name);
const SERVER_CORE = "0";
const LOAD_CORE = "1";
// Seconds one measurement may take.
const DEADLINE = 180;

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "7" },
    servers: { type: "string", default: "floor,bowline,bowline2,socketioxide,socketio,python" },
    measures: { type: "string", default: "echo,broadcast,broadcast10,wide,idle" },
    sessions: { type: "string", default: "10000" },
    quick: { type: "boolean", default: false },
  },
});
const rounds = options.quick ? 1 : Number(options.rounds);
const folder = mkdtempSync(join(tmpdir(), "bowline-bench-"));

/** `command(port, measure)` starts the server; `speed` makes slow ones handle fewer messages. */
const SERVERS = {
  floor: {
    name: "bare epoll + write(2), no protocol (the floor)",
    command: (port, measure) => [built("load"), "floor", "--listen", `127.0.0.1:${port}`, "--fanout", String(measure !== "echo")],
    wire: "raw",
  },
  bowline: { name: "Bowline, one shard", command: (port) => bowline(port, 1) },
  bowline2: { name: "Bowline, two shards on the one core", command: (port) => bowline(port, 2) },
  socketioxide: {
    name: "socketioxide 0.18 (Rust)",
    command: (port) => [join(root, "target/peers/release/socketioxide-peer"), `127.0.0.1:${port}`],
  },
  socketio: {
    name: `Socket.IO 4.8.4 (Node ${process.versions.node})`,
    command: (port) => [process.execPath, join(root, "tests/reference/relay-server.mjs"), "--listen", `127.0.0.1:${port}`],
    speed: 0.25,
  },
  python: {
    name: "python-socketio 5.18.1 (asyncio, aiohttp)",
    command: (port) => [join(root, "tests/.venv/bin/python"), join(root, "bench/peers/python_server.py"), String(port)],
    speed: 0.05,
  },
};

const scaled = (count, speed = 1) => String(Math.max(1, Math.round(count * speed * (options.quick ? 0.4 : 1))));
const MEASURES = {
  echo: { figure: "server_us", args: (speed) => ["echo", "--sessions", "100", "--messages", scaled(200_000, speed)] },
  broadcast: { figure: "server_us", args: (speed) => ["broadcast", "--sessions", "1000", "--rounds", scaled(250, speed)] },
  "broadcast10": { figure: "server_us", args: (speed) => ["broadcast", "--sessions", "1000", "--burst", "10", "--rounds", scaled(100, speed)] },
  // As broadcast, with nineteen times the sessions: the cost of a delivery should not grow.
  wide: { figure: "server_us", args: (speed) => ["broadcast", "--sessions", "19000", "--rounds", scaled(20, speed)] },
  idle: { figure: "session_bytes", args: () => ["idle", "--sessions", options.sessions] },
};

function bowline(port, shards) {
  const config = join(folder, `${shards}.toml`);
  const settings = { server: { shards }, limits: { "events-per-second": 500_000 } };
  writeFileSync(config, toToml(settings));
  return [built("bowline"), "serve", "--listen", `127.0.0.1:${port}`, "--admin-listen", "127.0.0.1:0", "--config", config];
}

/** One measurement of a server that was started for it alone. */
async function measure(server, what) {
  const port = await freePort();
  const child = spawn("taskset", ["-c", SERVER_CORE, ...server.command(port, what)], {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, NODE_ENV: "production" },
    detached: true, // a group of its own, so that the end also reaches its children
  });
  let said = "";
  child.stderr.on("data", (data) => (said = (said + data).slice(-2000)));
  const gone = new Promise((done) => child.once("exit", done));
  try {
    await accepts(port);
    const load = [
      "-c", LOAD_CORE, built("load"), ...MEASURES[what].args(server.speed),
      "--target", `127.0.0.1:${port}`, "--pid", String(serving(child.pid)), "--wire", server.wire ?? "socketio",
    ];
    const { stdout } = await promisify(execFile)("taskset", load, { timeout: DEADLINE * 1000 });
    return JSON.parse(stdout);
  } catch (error) {
    throw new Error(`${error.message}\n${said}`);
  } finally {
    // It may have ended by itself, and is one of those that were measured all the same.
    if (child.exitCode === null && child.signalCode === null) process.kill(-child.pid, "SIGKILL");
    await gone;
  }
}

/** The process that speaks to clients: Bowline's is a child of the one that was started. */
function serving(pid) {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
  return children === "" ? pid : Number(children.split(" ")[0]);
}

/** Waits until the port takes connections, and the server has settled. */
async function accepts(port) {
  for (let tries = 0; tries < 1000; tries++) {
    const accepted = await new Promise((done) => {
      const socket = connect(port, "127.0.0.1", () => done(true));
      socket.on("error", () => done(false));
      socket.on("connect", () => socket.destroy());
    });
    if (accepted) return sleep(300);
    await sleep(20);
  }
  throw new Error(`nothing listens on ${port}`);
}

function median(figures) {
  const sorted = figures.toSorted((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

function cell(figures, digits) {
  if (figures.length === 0) return "–";
  const shown = [median(figures), Math.min(...figures), Math.max(...figures)].map((figure) => figure.toFixed(digits));
  return `${shown[0]} (${shown[1]}–${shown[2]})`;
}

const chosen = options.servers.split(",").filter((id) => {
  const missing = SERVERS[id].command(0, "echo").find((part) => part.startsWith("/") && !part.endsWith(".toml") && !existsSync(part));
  if (missing) console.error(`${id} is left out: ${missing} is missing`);
  return !missing;
});
const figures = Object.fromEntries(chosen.map((id) => [id, { echo: [], broadcast: [], broadcast10: [], wide: [], idle: [], join: [] }]));

for (let round = 1; round <= rounds; round++) {
  for (const what of options.measures.split(",")) {
    for (const id of chosen) {
      // The slow ones would take minutes to let 19,000 sessions in.
      if (what === "wide" && SERVERS[id].speed) continue;
      try {
        const result = await measure(SERVERS[id], what);
        figures[id][what].push(result[MEASURES[what].figure]);
        if (what === "idle") figures[id].join.push(result.join_us);
        console.error(`round ${round}  ${id.padEnd(9)} ${JSON.stringify(result)}`);
      } catch (error) {
        console.error(`round ${round}  ${id.padEnd(9)} ${what} failed: ${error.message}`);
      }
    }
  }
}
rmSync(folder, { recursive: true });

console.log(`${new Date().toISOString().slice(0, 10)}, ${cpus().length} cores (${cpus()[0].model}), ${rounds} rounds, median (least–greatest)\n`);
console.log("| server | echo, µs | broadcast, µs a delivery | in bursts of ten | to 19,000 sessions | idle session, bytes | join, µs |");
console.log("|---|---|---|---|---|---|---|");
for (const id of chosen) {
  const row = figures[id];
  const cells = [cell(row.echo, 2), cell(row.broadcast, 2), cell(row.broadcast10, 2), cell(row.wide, 2), cell(row.idle, 0), cell(row.join, 1)];
  console.log(`| ${SERVERS[id].name} | ${cells.join(" | ")} |`);
}
