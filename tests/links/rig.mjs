// What the tests of links have in common: a gateway with links, how a link is, and bots of Python.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { eventually } from "../harness/programs.mjs";
import { before, freePort } from "../harness/server.mjs";
import { startGateway } from "../operations/gateway.mjs";
import { bowline, place } from "../operations/services.mjs";

/** Whether everything is run in full: `cargo xtask test --long`. */
export const LONG = process.env.LINKS_LONG === "1";

/** A gateway whose `[links]` have a free port of their own. */
export async function startLinks(toml, options = {}) {
  const listen = `127.0.0.1:${await freePort()}`;
  const gateway = await startGateway({ toml: `[links]\nlisten = "${listen}"\n${toml}`, ...options });
  /** All links by name, as the API has them. */
  const links = async () => Object.fromEntries((await gateway.control("/api/v1/links")).json.links.map((link) => [link.name, link]));
  return {
    ...gateway,
    listen,
    links,
    /** Waits until a link is in a state. */
    inState: (name, state, ms) =>
      eventually(`${name} to be ${state}`, async () => {
        const link = (await links())[name];
        if (link?.state === state) return link;
        throw new Error(`it is ${link?.state}: ${link?.text}`);
      }, ms),
    /** Renews a link, or fails. */
    async renew(name) {
      const answer = await gateway.control(`/api/v1/links/${name}/renew`, { method: "POST", timeout: 60_000 });
      assert.equal(answer.status, 200, answer.text);
      assert.equal(answer.json.outcome, "renewed", answer.text);
    },
    /** What `bowline link env` prints, as an environment. */
    async environment(name) {
      const { code, out, err } = await bowline(["link", "env", name, "--json", ...place(gateway)]);
      assert.equal(code, 0, err);
      return JSON.parse(out);
    },
    /** What happened with a message: `[{stage, …}]`. */
    trace: async (id) => (await gateway.control(`/api/v1/links/trace/${id}`)).json.steps ?? [],
  };
}

/** A link to `wss://echo.example/bots/NAME`, over a way that ends at an echo with a certificate of that authority. */
export const throughProxy = (name, { nat, authority }) => `
[links.${name}]
profile = "websocket"
url = "wss://echo.example/bots/${name}"
message-id = "/id"
room = "/room"
ack = '{"type":"ack","id":"{id}"}'
probe = '{"type":"probe","nonce":"{nonce}"}'
deliver = "proxy"
proxy = "${nat.url}"
ca-file = "${authority.caFile}"
`;

/** The gateway's process, once it has answered. */
export async function gatewayPid(gateway, than) {
  const status = await eventually("a gateway that answers", async () => {
    const { gateway: now } = (await gateway.control("/api/v1/status")).json;
    return now.answered && now.pid !== than ? now : false;
  });
  return status.pid;
}

/** Runs a bot of `bots/`: `{ said, messages(), count(event), stop() }`; `said` are its lines. */
export async function startBot(script, args, env = {}) {
  const python = process.env.PYTHON_BIN ?? fileURLToPath(new URL("../.venv/bin/python", import.meta.url));
  const path = fileURLToPath(new URL(`bots/${script}`, import.meta.url));
  const child = spawn(python, [path, ...args], { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  const said = [];
  let complained = "";
  child.stderr.on("data", (chunk) => (complained = (complained + chunk).slice(-4000)));
  createInterface({ input: child.stdout }).on("line", (line) => said.push(JSON.parse(line)));
  const exited = new Promise((resolve) => child.once("exit", resolve));
  const bot = {
    said,
    messages: () => said.filter(({ event }) => event === "message"),
    count: (event) => said.filter((line) => line.event === event).length,
    complained: () => complained,
    ended: () => child.exitCode !== null,
    async stop() {
      child.kill("SIGTERM");
      if ((await before(3000, exited, "late")) === "late") {
        child.kill("SIGKILL");
        await exited;
      }
    },
  };
  await eventually(`${script} to connect`, () => {
    if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}: ${complained}`);
    return bot.count("connect") > 0;
  }).catch(async (error) => {
    await bot.stop();
    throw new Error(`${error.message}\n${complained}`);
  });
  return bot;
}

/** What a bot got against what was sent: nothing lost, nothing twice, the order of each room kept. */
export function assertStream(sent, got) {
  const ids = new Set(got.map(({ id }) => id));
  const lost = sent.filter(({ id }) => !ids.has(id)).map(({ id }) => id);
  assert.deepEqual(lost.slice(0, 10), [], `${lost.length} of ${sent.length} lost`);
  const twice = got.map(({ id }) => id).filter((id, index, all) => all.indexOf(id) !== index);
  assert.deepEqual(twice.slice(0, 10), [], `${twice.length} of ${sent.length} twice`);
  const last = new Map();
  for (const { id, room, n } of got) {
    assert.equal(n, (last.get(room) ?? 0) + 1, `${id} is out of order`);
    last.set(room, n);
  }
}
