// `bowline serve` as an operator runs it: with a configuration, a state directory and an admin listener of its own.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

import { eventually, run } from "../harness/programs.mjs";
import { freePort, serverCommand } from "../harness/server.mjs";

/**
 * Starts one. `toml` is appended to a file that sets the two listeners; `openFiles` limits descriptors as `ulimit -n`,
 * `alsoListen` names further public ports.
 * Returns `{ port, admin, pid, said, api(path), control(path), stop() }`.
 */
export async function startGateway({ toml = "", files = {}, openFiles, port: wanted, admin: wantedAdmin, alsoListen = [] } = {}) {
  const [port, admin] = [wanted ?? (await freePort()), wantedAdmin ?? (await freePort())];
  const directory = mkdtempSync(join(tmpdir(), "bowline-operate-"));
  const config = join(directory, "bowline.toml");
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, name)), { recursive: true, mode: 0o700 });
    writeFileSync(join(directory, name), text);
  }
  const state = join(directory, "state");
  writeFileSync(config, `[admin]\nlisten = "127.0.0.1:${admin}"\n${toml.replaceAll("$DIR", directory)}\n`);
  const { file: binary } = serverCommand("gateway", "bowline");
  const listen = [port, ...alsoListen].flatMap((port) => ["--listen", `127.0.0.1:${port}`]);
  const args = ["serve", ...listen, "--config", config, "--state-dir", state];
  // The harness names an admin address for servers that have none of their own.
  const env = { BOWLINE_ADMIN_LISTEN: undefined };
  const limited = ["-c", `ulimit -n ${openFiles} && exec "$0" "$@"`, binary, ...args];
  const running = await (openFiles ? run("/bin/bash", limited, { port, env }) : run(binary, args, { port, env }));
  // The public listener is bound first.
  await eventually("the admin listener to answer", async () => {
    await ask({ host: "127.0.0.1", port: admin }, "/health/live");
    return true;
  });
  return {
    ...running,
    port,
    admin,
    directory,
    config,
    url: `http://127.0.0.1:${port}`,
    /** Asks the admin listener. */
    api: (path, options) => ask({ host: "127.0.0.1", port: admin }, path, options),
    /** Asks the control socket. */
    control: (path, options) => ask({ socketPath: join(state, "control.sock") }, path, options),
    async stop() {
      await running.stop(10_000);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** One request on a connection of its own: `{ status, headers, text, json }`. */
export function ask(where, path, { method = "GET", body, headers = {}, timeout = 60_000 } = {}) {
  return new Promise((resolve, reject) => {
    const bytes = body === undefined ? undefined : JSON.stringify(body);
    const all = bytes === undefined ? headers : { "content-type": "application/json", "content-length": Buffer.byteLength(bytes), ...headers };
    const request = httpRequest({ ...where, path, method, headers: all, agent: false, timeout }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk) => (text += chunk));
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, text, get json() { return JSON.parse(text); } }));
      response.on("error", reject);
    });
    request.on("timeout", () => request.destroy(new Error(`${path} was not answered within ${timeout} ms`)));
    request.on("error", reject);
    request.end(bytes);
  });
}

/** The value of a series of a Prometheus page: `value(text, "bowline_x_total", 'reason="y"')`. */
export function metric(page, name, label = "") {
  const line = page.split("\n").find((line) => line.startsWith(name) && (line[name.length] === "{" || line[name.length] === " ") && line.includes(label));
  return line === undefined ? undefined : Number(line.split(" ").at(-1));
}
