// What /proc says of a process.

import { readFileSync, readdirSync } from "node:fs";

/** Resident bytes. */
export function memory(pid) {
  const line = readFileSync(`/proc/${pid}/status`, "utf8").split("\n").find((line) => line.startsWith("VmRSS:"));
  return Number(/(\d+) kB/.exec(line)[1]) * 1024;
}

/** Open descriptors: sockets, above all. */
export function descriptors(pid) {
  return readdirSync(`/proc/${pid}/fd`).length;
}
