// A server that ends and is started again, as an unmodified bot finds it.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { eventually } from "../harness/programs.mjs";
import { freePort } from "../harness/server.mjs";
import { bowline } from "../operations/services.mjs";
import { makeAuthority } from "./authority.mjs";
import { startEcho } from "./echo.mjs";
import { startNat } from "./nat.mjs";
import { startBot, throughProxy } from "./rig.mjs";

const RESTARTS = 3;

/** The bots' own pauses before they try again: the library's are several seconds. */
const SOON = { WEBSOCKETS_BACKOFF_INITIAL_DELAY: "0.2", WEBSOCKETS_BACKOFF_MIN_DELAY: "0.2", WEBSOCKETS_BACKOFF_MAX_DELAY: "0.5" };

test("bots of websockets outlive restarts of the server, and get what is said afterwards", { timeout: 240_000 }, async (t) => {
  const authority = makeAuthority(["echo.example"]);
  const service = await startEcho({ authority, redeliver: true });
  const nat = await startNat({ to: service.port });
  const directory = mkdtempSync(join(tmpdir(), "bowline-restart-"));
  const config = join(directory, "bowline.toml");
  const place = ["--state-dir", join(directory, "state")];
  const names = ["ann", "bob", "cat"];
  const links = names.map((name) => throughProxy(name, { nat, authority })).join("");
  writeFileSync(config, `[admin]\nlisten = "127.0.0.1:${await freePort()}"\n[links]\nlisten = "127.0.0.1:${await freePort()}"\n${links}`);
  const run = async (...args) => {
    const { code, out, err } = await bowline([...args, ...place]);
    assert.equal(code, 0, out + err);
    return out;
  };
  const bots = new Map();
  t.after(async () => {
    for (const bot of bots.values()) await bot.stop();
    await bowline(["stop", ...place]);
    await nat.stop();
    await service.stop();
    authority.clear();
    rmSync(directory, { recursive: true, force: true });
  });

  await run("start", "--listen", `127.0.0.1:${await freePort()}`, "--config", config);
  for (const name of names) {
    const environment = JSON.parse(await run("link", "env", name, "--json", "--config", config));
    bots.set(name, await startBot("websockets_bot.py", [`wss://echo.example/bots/${name}`], { ...environment, ...SOON }));
  }
  for (let restarts = 0; restarts <= RESTARTS; restarts++) {
    if (restarts > 0) await run("restart");
    for (const [name, bot] of bots) {
      const { id } = service.bot(name).hear("lobby");
      await eventually(`${name} to get ${id} after ${restarts} restarts`, () => {
        if (bot.ended()) throw new Error(`it has ended: ${bot.complained()}`);
        return bot.messages().some((message) => message.id === id);
      });
      const goodbyes = bot.said.filter(({ event }) => event === "disconnect").map(({ code }) => code);
      assert.deepEqual(goodbyes, Array(restarts).fill(1001), name);
    }
  }
});
