// The table of rude clients in docs/limits.md. Run by itself, writes it there.

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { CLIENTS } from "./clients.mjs";

export const DOCUMENT = fileURLToPath(new URL("../../docs/limits.md", import.meta.url));

const HEAD = "| client | what it does | what it gets | bound by | in the log |";

/** The table as it stands in the document. */
export function table() {
  const rows = CLIENTS.map(({ name, does, gets, bound, line }) => {
    const log = line.map((line) => `\`${line}\``).join(", ") || "at debug level";
    return `| ${[name, does, gets, bound, log].join(" | ")} |`;
  });
  return `${[HEAD, "|---|---|---|---|---|", ...rows].join("\n")}\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const text = readFileSync(DOCUMENT, "utf8");
  const start = text.indexOf(HEAD);
  const end = text.indexOf("\n\n", start);
  if (start < 0 || end < 0) throw new Error(`${DOCUMENT} has no table that begins with ${HEAD}`);
  writeFileSync(DOCUMENT, `${text.slice(0, start)}${table()}${text.slice(end + 1)}`);
}
