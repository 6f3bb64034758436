// What tests of services ask for: the command line, the list of services, a state, whether a process lives.

import { execFile } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { eventually } from "../harness/programs.mjs";
import { serverCommand } from "../harness/server.mjs";

/** Where the apps are that are run as services. */
export const APPS = fileURLToPath(new URL("apps", import.meta.url));

/** Runs a command of bowline: `{ code, out, err }`. */
export function bowline(args, { timeout = 60_000 } = {}) {
  const { file } = serverCommand("gateway", "bowline");
  // The harness names an admin address for servers that have none of their own.
  const env = { ...process.env, BOWLINE_ADMIN_LISTEN: undefined };
  return new Promise((resolve) => {
    execFile(file, args, { env, timeout }, (error, out, err) => resolve({ code: error ? error.code : 0, out, err }));
  });
}

/** The flags by which a command finds the server of a gateway of `startGateway`. */
export const place = (gateway) => ["--state-dir", join(gateway.directory, "state")];

/** All services by name, as the API has them. */
export async function services(gateway) {
  const { services } = (await gateway.control("/api/v1/services")).json;
  return Object.fromEntries(services.map((service) => [service.name, service]));
}

/** Waits until a service is in a state and, if that is given, as `which` wants it; returns it. */
export const inState = (gateway, name, state, which = () => true) =>
  eventually(`${name} to be ${state}`, async () => {
    const service = (await services(gateway))[name];
    if (service?.state === state && which(service)) return service;
    throw new Error(`it is ${service?.state}: ${[service?.text, service?.awaited, service?.last_end, ...(service?.ends.at(-1)?.lines ?? [])].join("; ")}`);
  });

/** Whether a process runs: one that has ended and that nobody has waited for does not. */
export function alive(pid) {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

/** Processes by number and start: a number alone may be somebody else's by the time it is looked at again. */
export const known = (pids) => pids.map((pid) => ({ pid, start: start(pid) }));

/** Those of them that run, in words. */
export const living = (processes) => processes.filter(({ pid, start: begun }) => alive(pid) && start(pid) === begun).map(({ pid }) => `${pid} ${said(pid)}`);

/** What a process is, and whose. */
function said(pid) {
  try {
    const [, state, parent] = readFileSync(`/proc/${pid}/status`, "utf8").match(/^State:\s+(.*)$[^]*^PPid:\s+(\d+)$/m);
    return `(${state}, of ${parent}): ${readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")}`;
  } catch {
    return "gone";
  }
}

/** When a process has begun, in ticks since the boot. The name before it may hold anything. */
function start(pid) {
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\)/s, "").trim().split(" ")[19];
  } catch {
    return undefined;
  }
}

/** The processes that have all of these `NAME=value` in their environment, and so all that a service with them has started. */
export function withinEnvironment(...wanted) {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number);
  return pids.filter((pid) => {
    try {
      const has = readFileSync(`/proc/${pid}/environ`, "utf8").split("\0");
      return alive(pid) && wanted.every((variable) => has.includes(variable));
    } catch {
      // It is gone.
      return false;
    }
  });
}
