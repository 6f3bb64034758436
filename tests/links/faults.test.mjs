// What goes wrong at a service or on this machine, one at a time and in real time, with a real gateway: the simulator has
// all of it in every combination.

import assert from "node:assert/strict";
import { renameSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { eventually } from "../harness/programs.mjs";
import { metric } from "../operations/gateway.mjs";
import { startApp } from "./app.mjs";
import { startEcho } from "./echo.mjs";
import { LONG, gatewayPid, startLinks } from "./rig.mjs";

/** A link to the echo whose bot is an app behind HTTP. */
const link = (name, service, more = "") => `
[links.${name}]
profile = "websocket"
url = "${service.url}/bots/${name}"
message-id = "/id"
room = "/room"
ack = '{"type":"ack","id":"{id}"}'
probe = '{"type":"probe","nonce":"{nonce}"}'
deliver = { http = "app" }
${more}
`;

const backend = (app) => `
[backends.app]
url = "http://127.0.0.1:${app.port}/"
`;

test("links outlive what happens to them", { concurrency: true, timeout: 240_000 }, async (t) => {
  const service = await startEcho({ redeliver: true });
  t.after(() => service.stop());
  const app = await startApp();
  t.after(() => app.stop());
  const gateway = await startLinks(`${backend(app)}
${link("muted", service, 'probe-interval = "2s"\nprobe-timeout = "1900ms"')}
${link("frozen", service, 'ping-interval = "300ms"\nping-timeout = "2s"')}
${link("drained", service)}
${link("quiet", service, 'probe-interval = "3s"\nprobe-timeout = "2900ms"\nping-interval = "300ms"')}
`);
  t.after(() => gateway.stop());
  await Promise.all(["muted", "frozen", "drained", "quiet"].map((name) => gateway.inState(name, "live")));

  /** Says something, and waits for its answer. Returns the link afterwards. */
  const answered = async (name) => {
    const bot = service.bot(name);
    const { id } = bot.hear("lobby");
    await eventually(`${id} of ${name} to be answered`, () => bot.answers.has(id));
    assert.equal(bot.answers.get(id).length, 1);
    await gateway.inState(name, "live");
    return (await gateway.links())[name];
  };

  await Promise.all([
    t.test("nothing is routed to a connection whose pings are answered: a round trip finds it", async () => {
      service.bot("muted").mute();
      const { figures } = await answered("muted");
      assert.ok(figures.renewals.unrouted >= 1, JSON.stringify(figures));
    }),
    t.test("pings are not answered any more: another connection takes its place", async () => {
      service.bot("frozen").freeze();
      const { figures } = await answered("frozen");
      assert.ok(figures.renewals.silent >= 1, JSON.stringify(figures));
    }),
    t.test("the service ends the connection: there is another one soon", async () => {
      service.bot("drained").drain();
      await eventually("another connection", () => service.bot("drained").opened >= 2);
      const { figures } = await answered("drained");
      assert.equal(figures.renewals.lost, 1, JSON.stringify(figures));
    }),
    t.test("nothing happens at all: nothing is made anew", async () => {
      const { figures } = await eventually("three round trips", async () => {
        const { quiet } = await gateway.links();
        return quiet.figures.probes.some(({ cause, count }) => cause === "interval" && count >= 3) && quiet;
      });
      assert.deepEqual(figures.renewals, { first: 1 });
      assert.equal(service.bot("quiet").opened, 1);
    }),
  ]);
});

test("two servers never keep a link with one token: the second names the first, and takes over when that is gone", { timeout: 240_000 }, async (t) => {
  const service = await startEcho();
  t.after(() => service.stop());
  const app = await startApp();
  t.after(() => app.stop());
  const toml = `${backend(app)}${link("ann", service, 'token-file = "$DIR/token"')}`;
  const options = { files: { token: "secret-of-ann" } };
  const first = await startLinks(toml, options);
  let stopped = false;
  t.after(() => stopped || first.stop());
  await first.inState("ann", "live");
  const second = await startLinks(toml, options);
  t.after(() => second.stop());
  const off = await eventually("the second to know of the first", async () => {
    const { ann } = await second.links();
    return ann.state === "off" && /held by/.test(ann.text) ? ann : false;
  });
  assert.match(off.text, new RegExp(`pid ${await gatewayPid(first)}\\b`));
  assert.equal(service.bot("ann").opened, 1, "the second has not tried");
  assert.ok(!JSON.stringify(await second.links()).includes("secret-of-ann"), "the token is shown");
  stopped = true;
  await first.stop();
  await second.inState("ann", "live");
});

test("a store that cannot be used degrades to memory, which is said, and goes back to the disk by itself", { timeout: 240_000 }, async (t) => {
  const service = await startEcho({ redeliver: true });
  t.after(() => service.stop());
  const app = await startApp();
  t.after(() => app.stop());
  const broken = "state/links/links.db";
  const gateway = await startLinks(`${backend(app)}${link("ann", service)}`, { files: { [broken]: "no database".repeat(1000) } });
  t.after(() => gateway.stop());
  await gateway.inState("ann", "live");
  const bot = service.bot("ann");
  bot.hear("lobby");
  await eventually("the answer", () => bot.answers.size === 1);
  const { store } = (await gateway.control("/api/v1/links")).json;
  assert.equal(store.healthy, false);
  assert.match(store.text, /links\.db.*no database/);
  const page = (await gateway.api("/metrics")).text;
  assert.equal(metric(page, "bowline_store_healthy"), 0);
  assert.equal(gateway.said().split("goes on in memory").length - 1, 1, "said once");

  // The disk is tried every 30 s.
  if (!LONG) return;
  renameSync(join(gateway.directory, broken), join(gateway.directory, "broken.db"));
  await eventually("the disk", async () => (await gateway.control("/api/v1/links")).json.store.healthy, 40_000);
  // What was confirmed in the meantime is known.
  process.kill(await gatewayPid(gateway), "SIGKILL");
  service.bot("ann").acked.clear();
  await eventually("the message to come again", () => bot.acked.size === 1);
  assert.equal(app.deliveries.length, 1, "and is not offered again");
});
