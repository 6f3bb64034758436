// The gateway is killed with -9 at chosen points of a message's way: nothing is lost. Killed before the hand-over to the
// bot, the message is answered once; between the hand-over and the confirmation it is offered again, with the same id, and
// counted.

import assert from "node:assert/strict";
import { test } from "node:test";

import { eventually } from "../harness/programs.mjs";
import { after } from "../harness/server.mjs";
import { alive } from "../operations/services.mjs";
import { startApp } from "./app.mjs";
import { makeAuthority } from "./authority.mjs";
import { startEcho } from "./echo.mjs";
import { startNat } from "./nat.mjs";
import { LONG, gatewayPid, startBot, startLinks, throughProxy } from "./rig.mjs";
import { startWebex } from "./webex.mjs";

/** Kills at each point. */
const ROUNDS = LONG ? 10 : 2;

/** Kills while messages flow. */
const FLOWING = LONG ? 20 : 3;
const BEHIND_PROXY = LONG ? 10 : 2;

const config = (service, app) => `attempts-per-second = 50
attempts-burst = 50
[backends.app]
url = "http://127.0.0.1:${app.port}/"
[links.ann]
profile = "websocket"
url = "${service.url}/bots/ann"
message-id = "/id"
room = "/room"
ack = '{"type":"ack","id":"{id}"}'
probe = '{"type":"probe","nonce":"{nonce}"}'
deliver = { http = "app" }
`;

test(`${5 * ROUNDS} gateways killed with -9: nothing is lost, and nothing is answered twice that was not handed over`, { timeout: 400_000 }, async (t) => {
  const service = await startEcho({ redeliver: true });
  t.after(() => service.stop());
  const app = await startApp();
  t.after(() => app.stop());
  const gateway = await startLinks(config(service, app));
  t.after(() => gateway.stop());
  const far = service.bot("ann");
  const world = { gateway, app, far };
  const kills = [];
  for (let round = 0; round < ROUNDS; round++) {
    for (const [point, act] of Object.entries(POINTS)) {
      await gateway.inState("ann", "live");
      const pid = await gatewayPid(gateway);
      const kill = () => process.kill(pid, "SIGKILL");
      const room = `${point}-${round}`;
      const messages = await act({ ...world, room, round, kill });
      for (let i = 0; alive(pid); i++) {
        assert.ok(i < 10_000, `${point} did not kill`);
        await after(1);
      }
      // What the killed one had sent may have to be read yet; the next one is not there so soon.
      for (let turn = 0; turn < 10; turn++) await after(1);
      const killed = performance.now();
      app.holds = () => false;
      await gatewayPid(gateway, pid);
      await eventually(`all of ${room} to be answered`, () => messages.every(({ id }) => far.answers.has(id)))
        .catch((error) => { throw new Error(`${error.message}\n${gateway.said()}`); });
      kills.push({ point, killed, messages });
    }
  }
  await eventually("nothing to wait", async () => (await gateway.links()).ann.messages.waiting === 0);

  const lost = far.sent.filter(({ id }) => !far.answers.has(id));
  assert.deepEqual(lost, [], "lost");
  const counted = { "handed over before": 0, "not handed over": 0, "confirmed": 0 };
  for (const { point, killed, messages } of kills) {
    for (const { id } of messages) {
      const deliveries = app.of(id);
      const told = `${point} ${id}: ${JSON.stringify(deliveries)}`;
      assert.ok(deliveries.every(({ data }) => data.id === id), told);
      if (deliveries[0].at > killed) {
        // Not handed over when the process was killed.
        assert.equal(deliveries.length, 1, told);
        assert.equal(far.answers.get(id).length, 1, told);
        counted["not handed over"]++;
      } else if (point === "confirmed") {
        assert.equal(deliveries.length, 1, `${told}: it was confirmed, and is offered again`);
        assert.equal(far.answers.get(id).length, 1, told);
        counted.confirmed++;
      } else if (deliveries.length > 1) {
        assert.deepEqual(deliveries.map(({ attempt }) => attempt), [1, 2], told);
        const offers = (await gateway.trace(id)).filter(({ stage }) => stage === "offered");
        assert.equal(offers.length, 2, `${told}: the trace has ${offers.length}`);
        counted["handed over before"]++;
      }
    }
    const certain = { acked: messages[1], handed: messages[0] }[point];
    if (certain) {
      assert.equal(app.of(certain.id).length, point === "handed" ? 2 : 1, `${point} ${certain.id}`);
    }
  }
  assertOrder(app.deliveries);
  t.diagnostic(`kills: ${kills.length} gateways killed with -9, ${far.sent.length} messages, 0 lost: ${Object.entries(counted).map(([what, count]) => `${count} ${what}`).join(", ")}`);
});

test(`${FLOWING} gateways killed with -9 at any moment while messages flow: nothing is lost, and the order of each room is kept`, { timeout: 400_000 }, async (t) => {
  const service = await startEcho({ redeliver: true });
  t.after(() => service.stop());
  const app = await startApp();
  t.after(() => app.stop());
  const gateway = await startLinks(config(service, app));
  t.after(() => gateway.stop());
  await gateway.inState("ann", "live");
  const far = service.bot("ann");
  // So that mostly one of each room is under way.
  app.thinksMs = 50;
  const flow = far.flow({ perSecond: 50, rooms: 5 });
  for (let i = 0; i < FLOWING; i++) {
    await after(200 + Math.random() * 500);
    const pid = await gatewayPid(gateway);
    process.kill(pid, "SIGKILL");
    await gatewayPid(gateway, pid);
    await gateway.inState("ann", "live");
  }
  flow.stop();
  await eventually("the last to be answered", () => far.answers.size === far.sent.length).catch((error) => {
    const lost = far.sent.filter(({ id }) => !far.answers.has(id)).map(({ id }) => `${id}${far.acked.has(id) ? " (acknowledged)" : ""} offered ${app.of(id).length} times`);
    throw new Error(`${error.message}: ${lost.length} of ${far.sent.length}: ${lost.slice(0, 5)}`);
  });
  assertOrder(app.deliveries);
  let again = 0;
  for (const { id } of far.sent) {
    const attempts = app.of(id).map(({ attempt }) => attempt);
    // A number may be missing: written down, and killed before it was handed over.
    assert.deepEqual(attempts, [...new Set(attempts)].toSorted((a, b) => a - b), `${id}: ${attempts}`);
    again += attempts.length - 1;
  }
  // One of each room is under way at the most.
  assert.ok(again <= 5 * FLOWING, `${again} offered again`);
  t.diagnostic(`kills: ${FLOWING} while ${far.sent.length} messages flowed: 0 lost, ${again} offered again, in order`);
});

test("gateways killed with -9 under a real websockets bot behind the proxy: it gets all that was said, in order", { timeout: 200_000 }, async (t) => {
  const authority = makeAuthority(["echo.example"]);
  t.after(() => authority.clear());
  const service = await startEcho({ authority, redeliver: true });
  t.after(() => service.stop());
  const nat = await startNat({ to: service.port });
  t.after(() => nat.stop());
  const gateway = await startLinks(`attempts-per-second = 50
attempts-burst = 50
${throughProxy("ann", { nat, authority })}`);
  t.after(() => gateway.stop());
  await gateway.inState("ann", "live");
  const bot = await startBot("websockets_bot.py", ["wss://echo.example/bots/ann"], await gateway.environment("ann"));
  t.after(() => bot.stop());
  const far = service.bot("ann");
  const flow = far.flow({ perSecond: 50, rooms: 5 });
  for (let i = 0; i < BEHIND_PROXY; i++) {
    await after(300 + Math.random() * 500);
    const pid = await gatewayPid(gateway);
    const before = bot.count("connect");
    process.kill(pid, "SIGKILL");
    await gatewayPid(gateway, pid);
    await eventually("the bot to be back", () => bot.count("connect") > before).catch((error) => {
      throw new Error(`${error.message}\n${bot.complained()}`);
    });
  }
  flow.stop();
  const got = () => new Set(bot.messages().map(({ id }) => id));
  await eventually("the last message to arrive", () => got().size === far.sent.length);
  assertOrder(bot.messages().map((one) => ({ ...one, data: one })));
  const again = bot.messages().length - far.sent.length;
  t.diagnostic(`kills: ${BEHIND_PROXY} under a bot behind the proxy, ${far.sent.length} messages: 0 lost, ${again} handed over again, in order`);
});

test("a gateway killed with -9 while its answer is on the way to Webex answers again", { timeout: 200_000 }, async (t) => {
  const cloud = await startWebex();
  t.after(() => cloud.stop());
  const nat = await startNat({ to: cloud.port });
  t.after(() => nat.stop());
  const app = await startApp();
  t.after(() => app.stop());
  const far = cloud.bot("larry");
  const gateway = await startLinks(`[backends.app]
url = "http://127.0.0.1:${app.port}/"
[links.larry]
profile = "webex"
token-file = "$DIR/token"
proxy = "${nat.url}"
ca-file = "${cloud.caFile}"
deliver = { http = "app" }
`, { files: { token: far.token } });
  t.after(() => gateway.stop());
  await gateway.inState("larry", "live");
  const posts = () => far.seen.filter(({ method, path }) => method === "POST" && path?.endsWith("/messages")).length;
  const before = posts();
  far.modes.postMs = 3_600_000;
  const message = far.hear("are you there?");
  await eventually("the answer to be on its way", () => posts() > before);
  const confirmed = (await gateway.trace(message.uuid)).filter(({ stage }) => stage === "confirmed");
  assert.deepEqual(confirmed, [], "it is confirmed, and its answer has not arrived");
  const pid = await gatewayPid(gateway);
  process.kill(pid, "SIGKILL");
  far.modes.postMs = 0;
  await gatewayPid(gateway, pid);
  await eventually("an answer", () => far.answers.some(({ parent }) => parent === message.uuid));
  assert.deepEqual(app.of(message.uuid).map(({ attempt }) => attempt), [1, 2]);
});

/** In each room messages are offered in the order in which they were said, whatever is offered again. */
function assertOrder(deliveries) {
  const last = new Map();
  const seen = new Set();
  for (const { id, room, data } of deliveries) {
    if (seen.has(id)) continue;
    seen.add(id);
    assert.ok(data.n > (last.get(room) ?? 0), `${id} is out of order`);
    last.set(room, data.n);
  }
}

/** Each says something, kills the gateway at its point, and returns what it said. */
const POINTS = {
  /** The service has sent it: whether it is stored, chance decides. */
  async sent({ far, room, round, kill }) {
    const messages = [far.hear(room)];
    // By turns at once, and as the acknowledgement may be on its way.
    if (round % 2) await new Promise((resolve) => setImmediate(resolve));
    kill();
    return messages;
  },
  /** The service saw that it is stored, and the bot is busy with another of its room. */
  async acked({ app, far, room, kill }) {
    app.holds = (message) => message.room === room;
    const first = far.hear(room);
    await eventually("the bot to be busy", () => app.of(first.id).length > 0);
    const second = far.hear(room);
    await when(far, "onAck", (id) => id === second.id);
    kill();
    return [first, second];
  },
  /** The bot got it and has not confirmed it. */
  async handed({ app, far, room, kill }) {
    app.holds = (message) => message.room === room;
    const message = far.hear(room);
    await eventually("the bot to have it", () => app.of(message.id).length > 0);
    kill();
    return [message];
  },
  /** The bot has confirmed it. */
  async confirmed({ gateway, far, room, kill }) {
    const message = far.hear(room);
    await eventually("its confirmation", async () => (await gateway.trace(message.id)).some(({ stage }) => stage === "confirmed"));
    kill();
    return [message];
  },
  /** A second connection is beside the first. */
  async renewal({ gateway, far, room, kill }) {
    const messages = [far.hear(room)];
    const opened = when(far, "onConnection", () => true);
    // Nobody is there any more to answer it.
    gateway.control("/api/v1/links/ann/renew", { method: "POST" }).catch(() => {});
    await opened;
    messages.push(far.hear(room));
    kill();
    return messages;
  },
};

/** Waits for something that a bot of the service calls back with. */
function when(far, callback, fits) {
  return new Promise((resolve) => {
    far[callback] = (what) => {
      if (!fits(what)) return;
      far[callback] = () => {};
      resolve();
    };
  });
}
