// Real, unmodified bots of `webex_bot`, each version in an environment of its own; `cargo xtask test python` installs them.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { run } from "../harness/programs.mjs";
import { bowline, place } from "../operations/services.mjs";

export const BOTS = [
  { name: "webex_bot 1.0.8 / websockets 11.0.3", venv: "108" },
  { name: `webex_bot ${pinned("webex_bot")} / websockets ${pinned("websockets")}`, venv: "new" },
];

/** Starts one: `bots/webex_echo.py`. It is told of its link by variables alone. */
export function startWebexBot(venv, env) {
  const python = fileURLToPath(new URL(`../.venv-webex-${venv}/bin/python`, import.meta.url));
  return run(python, [fileURLToPath(new URL("bots/webex_echo.py", import.meta.url))], { env });
}

/** What `bowline link env` prints, as an operator would use it. */
export async function linkVariables(gateway, name) {
  const { code, out, err } = await bowline(["link", "env", name, "--plain", "--config", gateway.config, ...place(gateway)]);
  assert.equal(code, 0, err);
  return Object.fromEntries(out.trim().split("\n").map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]));
}

function pinned(name) {
  const text = readFileSync(new URL("../python/webex-new.txt", import.meta.url), "utf8");
  return new RegExp(`^${name}==(.*)$`, "m").exec(text)[1];
}
