// Starts the real programs that stand around a server: nginx, HAProxy, Caddy, Prometheus, Alertmanager. Each runs in the
// foreground, in a scratch directory of its own, on free ports of 127.0.0.1, and is ready when its port accepts.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { after, before, freePort } from "./server.mjs";

const READY_MS = 60_000;

/** Where Debian puts them; `cargo xtask test debian` installs what is missing. */
const PROGRAMS = {
  nginx: "/usr/sbin/nginx",
  haproxy: "/usr/sbin/haproxy",
  caddy: "/usr/bin/caddy",
  prometheus: "/usr/bin/prometheus",
  promtool: "/usr/bin/promtool",
  alertmanager: "/usr/bin/prometheus-alertmanager",
  chromium: "/usr/bin/chromium",
  redis: "/usr/bin/redis-server",
};

/** The path of a program; one that is missing fails the test, with what to do. */
export function program(name) {
  const path = PROGRAMS[name];
  if (!existsSync(path)) throw new Error(`${path} is not there: run \`cargo xtask test debian\``);
  return path;
}

/** Runs a process until `stop()`; `port` must accept connections, within `patience`, before it counts as started. */
export async function run(file, args, { port, cwd, env = {}, patience = READY_MS } = {}) {
  const child = spawn(file, args, { cwd, env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  const hear = (chunk) => (said = (said + chunk).slice(-20_000));
  child.stdout.on("data", hear);
  child.stderr.on("data", hear);
  const exited = new Promise((resolve) => {
    child.once("exit", (code, signal) => resolve({ code, signal }));
    child.once("error", (error) => resolve({ error }));
  });
  const running = {
    pid: child.pid,
    exited,
    said: () => said,
    kill: (signal) => child.kill(signal),
    async stop(graceMs = 2000) {
      child.kill("SIGTERM");
      if ((await before(graceMs, exited, "late")) === "late") {
        child.kill("SIGKILL");
        await exited;
      }
    },
  };
  if (port !== undefined) {
    const end = await Promise.race([accepts(port, patience, () => child.exitCode !== null || child.signalCode !== null), exited]);
    if (end !== true) {
      await running.stop();
      throw new Error(`${file} ${args.join(" ")} did not become ready: ${JSON.stringify(end)}\n${said}`);
    }
  }
  return running;
}

/** A scratch directory that goes away with the process it was made for. */
function scratch(name) {
  const directory = mkdtempSync(join(tmpdir(), `bowline-${name}-`));
  return { directory, clear: () => rmSync(directory, { recursive: true, force: true }) };
}

async function inScratch(name, start) {
  const { directory, clear } = scratch(name);
  try {
    const running = await start(directory);
    return { ...running, directory, stop: () => running.stop().finally(clear) };
  } catch (error) {
    clear();
    throw error;
  }
}

/** nginx whose `http` block is `http`, which may use `$DIR` for its scratch directory; it listens on `port`. */
export function nginx(port, http) {
  return inScratch("nginx", (directory) => {
    const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    const temporary = paths.map((name) => `${name}_temp_path ${directory}/${name};`).join(" ");
    // As root it would become somebody who may not write here.
    const user = process.getuid() === 0 ? "user root; " : "";
    const config = `${user}worker_processes 1; daemon off; pid ${directory}/pid; error_log stderr warn;
events { worker_connections 1024; }
http { access_log off; ${temporary}
${http.replaceAll("$DIR", directory)} }`;
    writeFileSync(join(directory, "nginx.conf"), config);
    return run(program("nginx"), ["-e", "stderr", "-p", directory, "-c", join(directory, "nginx.conf")], { port });
  });
}

/** A `server` block that passes everything on. `headers` are its `proxy_set_header` lines. */
export function nginxServer(port, upstream, { headers = UPGRADE_HEADERS, more = "" } = {}) {
  return `server { listen 127.0.0.1:${port}; location / { proxy_pass http://127.0.0.1:${upstream}; proxy_http_version 1.1;
    ${headers} ${more} } }`;
}

const UPGRADE_HEADERS = `proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_buffering off;`;

/** HAProxy with the text of a configuration; it listens on `port`. */
export function haproxy(port, config) {
  return inScratch("haproxy", (directory) => {
    writeFileSync(join(directory, "haproxy.cfg"), config);
    return run(program("haproxy"), ["-db", "-f", join(directory, "haproxy.cfg")], { port });
  });
}

/** Caddy with the text of a Caddyfile; it listens on `port`. */
export function caddy(port, config) {
  return inScratch("caddy", (directory) => {
    writeFileSync(join(directory, "Caddyfile"), config);
    const env = { HOME: directory, XDG_CONFIG_HOME: directory, XDG_DATA_HOME: directory };
    return run(program("caddy"), ["run", "--adapter", "caddyfile", "--config", join(directory, "Caddyfile")], { port, env });
  });
}

/** Prometheus that scrapes `target` each second, with optional rule files. Has `port`. */
export async function prometheus(target, { rules = [] } = {}) {
  const port = await freePort();
  const running = await inScratch("prometheus", (directory) => {
    const config = {
      global: { scrape_interval: "1s", scrape_timeout: "1s", evaluation_interval: "1s" },
      rule_files: rules,
      scrape_configs: [{ job_name: "bowline", static_configs: [{ targets: [target] }] }],
    };
    // JSON is YAML.
    writeFileSync(join(directory, "prometheus.yml"), JSON.stringify(config));
    const args = [`--config.file=${directory}/prometheus.yml`, `--storage.tsdb.path=${directory}/data`, `--web.listen-address=127.0.0.1:${port}`];
    return run(program("prometheus"), args, { port, cwd: directory });
  });
  return { ...running, port };
}

/** Alertmanager that keeps what it is told. Has `port`, and `alerts()` as its API v2 lists them. */
export async function alertmanager() {
  const port = await freePort();
  const running = await inScratch("alertmanager", (directory) => {
    writeFileSync(join(directory, "alertmanager.yml"), JSON.stringify({ route: { receiver: "none" }, receivers: [{ name: "none" }] }));
    const args = [`--config.file=${directory}/alertmanager.yml`, `--storage.path=${directory}/data`, `--web.listen-address=127.0.0.1:${port}`, "--cluster.listen-address="];
    return run(program("alertmanager"), args, { port, cwd: directory });
  });
  const alerts = async () => (await fetch(`http://127.0.0.1:${port}/api/v2/alerts`)).json();
  return { ...running, port, alerts };
}

async function accepts(port, patience, isOver) {
  const deadline = Date.now() + patience;
  while (Date.now() < deadline && !isOver()) {
    const open = await new Promise((resolve) => {
      const socket = connect(port, "127.0.0.1");
      socket.once("connect", () => (socket.destroy(), resolve(true)));
      socket.once("error", () => resolve(false));
    });
    if (open) return true;
    await after(20);
  }
  return "no answer";
}

/** Asks again until `check` returns something true; fails with what it returned last. */
export async function eventually(what, check, ms = 60_000) {
  const deadline = Date.now() + ms;
  let last;
  for (;;) {
    try {
      last = await check();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`${what} has not happened within ${ms} ms; last: ${last}`);
    await after(50);
  }
}
