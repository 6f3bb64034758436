// Real, unmodified `webex_bot` processes behind Bowline while the far side is drained, forgotten, moved and cut: they
// answer every message once, and do not notice. Their own connection stays.

import assert from "node:assert/strict";
import { test } from "node:test";

import { eventually } from "../harness/programs.mjs";
import { startNat } from "./nat.mjs";
import { gatewayPid, startLinks } from "./rig.mjs";
import { BOTS, linkVariables, startWebexBot } from "./webex-bot.mjs";
import { startWebex } from "./webex.mjs";

const ANSWER_MS = 60_000;

const TROUBLES = {
  drained: ({ far }) => far.drain(),
  "drained and closed": ({ far }) => far.drain(0),
  deaf: ({ far }) => far.deafen(),
  "not routed to": ({ far }) => far.mute(),
  "without its device": ({ far }) => {
    far.forget();
    for (const socket of far.orphans) socket.terminate();
  },
  "moved to another region": ({ far }) => far.move(),
  "cut off": ({ nat }) => nat.cut(),
  "forgotten by the NAT": ({ nat }) => nat.drop(),
};

test("real webex_bots do not notice what becomes of the far side", { timeout: 500_000 }, async (t) => {
  const started = [];
  // The last first: nobody asks what is gone.
  t.after(async () => {
    for (const one of started.reverse()) await one.stop();
  });
  const start = async (one) => (started.push(await one), started.at(-1));
  const cloud = await start(startWebex());
  const bots = [];
  for (const { venv } of BOTS) {
    const nat = await start(startNat({ to: cloud.port }));
    bots.push({ name: `bot-${venv}`, venv, nat, far: cloud.bot(`bot-${venv}`) });
  }
  const files = Object.fromEntries(bots.map(({ name, far }) => [`${name}.token`, far.token]));
  const gateway = await start(startLinks(`attempts-per-second = 50
attempts-burst = 50
${bots.map(({ name, nat }) => `[links.${name}]
profile = "webex"
token-file = "$DIR/${name}.token"
proxy = "${nat.url}"
ca-file = "${cloud.caFile}"
deliver = "proxy"
probe-interval = "2s"
probe-timeout = "1900ms"
ping-interval = "500ms"
ping-timeout = "2s"
backoff = { first = "100ms", max = "1s" }
overlap = "200ms"
http = { reused-head-timeout = "500ms" }
`).join("")}`, { files }));

  await Promise.all(bots.map(async (one) => {
    const { name, venv, nat, far } = one;
    await gateway.inState(name, "live");
    const bot = one.bot = await start(startWebexBot(venv, { ...(await linkVariables(gateway, name)), WEBEX_TOKEN: far.token }));
    const hello = far.hear("echo hello");
    assert.ok(await far.answerTo(hello, 180_000), bot.said().slice(-2000));
    await eventually("the whole way of a message in its trace", async () => {
      const stages = (await gateway.trace(hello.uuid)).map(({ stage }) => stage);
      const whole = ["arrived", "offered", "fetched", "confirmed", "replied"];
      if (whole.every((stage) => stages.includes(stage))) return stages.filter((stage) => stage === "replied").length === 1;
      throw new Error(stages.join(" "));
    });
    for (const [trouble, make] of Object.entries(TROUBLES)) {
      make({ far, nat });
      const message = far.hear(`echo while it is ${trouble}`);
      const answer = await far.answerTo(message, ANSWER_MS);
      const told = () => `${name} while it is ${trouble}\n${bot.said().slice(-1000)}\n${gateway.said().slice(-3000)}`;
      assert.ok(answer, told());
      await eventually(`${name} to be live again`, async () => (await gateway.links())[name].state === "live");
      assert.equal(far.answers.filter(({ parent }) => parent === message.uuid).length, 1, told());
      // Its log is kept in part: what it said of its start is gone by the end.
      const opened = bot.said().split("\n").filter((line) => line.includes("WebSocket Opened")).length;
      assert.ok(opened <= 1, `its own WebSocket was opened again\n${told()}`);
      assert.ok(!bot.said().includes("Device does not exist"), "it has registered a device of its own");
    }
    await eventually("one connection of the bot", async () => (await gateway.links())[name].bot.connections === 1);
  }));

  // A gateway that is killed cuts them off; the door stays open, and they come back.
  const pid = await gatewayPid(gateway);
  process.kill(pid, "SIGKILL");
  await Promise.all(bots.map(async ({ name, far, bot }) => {
    assert.ok(await far.answerTo(far.hear("echo after the kill"), ANSWER_MS), `${name} after the kill\n${bot.said().slice(-3000)}\n${gateway.said().slice(-3000)}`);
  }));
});
