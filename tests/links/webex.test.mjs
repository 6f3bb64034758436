// What Webex does to its bots, one link for each, all at once: in the end every message was answered, and once.

import assert from "node:assert/strict";
import { test } from "node:test";

import { eventually } from "../harness/programs.mjs";
import { after } from "../harness/server.mjs";
import { startApp } from "./app.mjs";
import { startNat } from "./nat.mjs";
import { startLinks } from "./rig.mjs";
import { startWebex } from "./webex.mjs";

const PATIENCE_MS = 60_000;

/** Each plays with one bot: `far` is the bot in the cloud, `ask(message)` fails unless the message is answered once. */
const STORIES = {
  async "events that stop while pongs go on are noticed by a probe, and what was missed is asked for"({ far, ask, link }) {
    far.mute();
    const before = Date.now();
    await ask(far.hear("said into a dead socket"));
    const took = Date.now() - before;
    const { caught_up: caughtUp } = await renewed(link, "unrouted");
    assert.ok(caughtUp >= 1);
    return `noticed and answered in ${took} ms`;
  },
  async "one kind of event that stops is noticed though others arrive"({ far, ask, link }) {
    far.mute(({ activity }) => activity?.verb === "post");
    const typing = setInterval(() => far.typing(), 50);
    await ask(far.hear("a post")).finally(() => clearInterval(typing));
    await renewed(link, "unrouted");
  },
  async "frames may be binary"({ far, ask }) {
    far.modes.frames = "binary";
    far.drop();
    await ask(far.hear("a binary one"));
  },
  async "frames may be text"({ far, ask }) {
    far.modes.frames = "text";
    far.drop();
    await ask(far.hear("a text"));
  },
  async "an authorization that is not answered is no obstacle"({ far, ask }) {
    far.modes.bufferState = false;
    far.drop();
    await ask(far.hear("unanswered"));
  },
  async "a device that is gone is registered again"({ far, ask, link }) {
    far.forget();
    for (const socket of far.orphans) socket.terminate();
    await eventually("a new device", () => far.registrations.size === 1 && far.ready().length === 1);
    await ask(far.hear("after the device"));
    assert.ok(far.registered >= 2, `${far.registered} registrations`);
    await eventually("it to be live", async () => (await link()).state === "live");
  },
  async "a connection that was replaced stands down, and says why"({ far, ask, link }) {
    far.replace();
    const { text } = await eventually("it to stand down", async () => {
      const status = await link();
      return status.state === "replaced" && status;
    });
    assert.match(text, /another connection/);
    const sockets = () => far.seen.filter(({ what }) => what === "socket").length;
    const before = sockets();
    await after(1000);
    assert.equal(sockets(), before, "it came back at once");
    // After `refused-pause`.
    await ask(far.hear("to whoever is left"));
  },
  async "a drain is followed by a new device, and the loss of that is noticed"({ far, ask, link }) {
    far.drain();
    await ask(far.hear("while it is drained"));
    await eventually("the old one to be gone", () => far.ready().length === 1 && far.registrations.size === 1);
    await renewed(link, "drain");
    far.drop();
    await ask(far.hear("after the new one was lost"));
  },
  async "a drain that ends with 4001 at once loses nothing"({ far, ask }) {
    far.drain(0);
    await ask(far.hear("in between"));
  },
  async "a gap between frames is asked for, in the order of the room"({ far, ask, app }) {
    far.skip();
    const [swallowed, next] = [far.hear("swallowed"), far.hear("next")];
    await ask(swallowed);
    await ask(next);
    const order = app.deliveries.filter(({ id }) => [swallowed.uuid, next.uuid].includes(id)).map(({ id }) => id);
    assert.deepEqual(order, [swallowed.uuid, next.uuid]);
  },
  async "what the service sends again is not answered again"({ far, ask }) {
    far.modes.ackMs = 600_000;
    const message = far.hear("acknowledged in vain");
    await ask(message);
    far.drop();
    await ask(far.hear("the next"));
    await ask(message);
  },
  async "what came while there was no socket is answered"({ far, ask }) {
    far.refuseSockets = 503;
    far.drop();
    const message = far.hear("to nobody");
    await after(300);
    far.refuseSockets = undefined;
    await ask(message);
  },
  async "what the service has forgotten meanwhile is asked for"({ far, ask }) {
    far.modes.redeliverMs = 0;
    far.refuseSockets = 503;
    far.drop();
    const message = far.hear("kept by nobody");
    await after(300);
    far.refuseSockets = undefined;
    await ask(message);
  },
  async "what was answered is sent, though the connection ends before it is"({ far, ask, app }) {
    far.modes.postMs = 100;
    const messages = Array.from({ length: 12 }, (_, n) => far.hear(`question ${n}`, { person: `person-${n}@example.com` }));
    await eventually("the app to have them all", () => messages.every(({ uuid }) => app.of(uuid).length === 1));
    far.drop();
    far.modes.postMs = 10;
    for (const message of messages) await ask(message);
  },
  async "a service that is slow to answer is no fault"({ far, ask, link }) {
    Object.assign(far.modes, { bufferStateMs: 1000, jsonPongMs: 1000, ackMs: 1000 });
    far.drop();
    await ask(far.hear("slowly"));
    assert.equal((await link()).figures.renewals.silent ?? 0, 0);
  },
  async "a registration is tried again when the service says"({ far, ask }) {
    Object.assign(far.modes, { registrations: 429, retryAfter: 1 });
    far.forget();
    for (const socket of far.orphans) socket.terminate();
    const tried = () => far.seen.filter(({ method, path }) => method === "POST" && path?.endsWith("/devices"));
    // The first was before all this, and is not refused.
    await far.until(() => tried().length === 2, PATIENCE_MS);
    Object.assign(far.modes, { registrations: 200 });
    await ask(far.hear("late"));
    const [, refused, next] = tried();
    assert.ok(next.at - refused.at >= 990, `it came again after ${next.at - refused.at} ms`);
  },
  async "an account that was moved is followed to its region"({ far, ask }) {
    far.move();
    await ask(far.hear("from the other region"));
    // The message may have been asked for while the link still had its old device: only the end tells.
    await eventually("only the device of the new region", () => {
      const hosts = [...far.registrations.values()].map(({ host }) => host);
      assert.deepEqual(hosts, ["wdm-r.wbx2.com"]);
      return true;
    });
  },
  async "a file and a button are one message each"({ far, ask, app }) {
    const file = far.share("see the file");
    await ask(file);
    assert.equal(app.of(file.uuid)[0].data.text, "see the file");
    const button = far.press({ choice: "tea" });
    await ask(button);
    assert.deepEqual(app.of(button.uuid)[0].data.inputs, { choice: "tea" });
  },
  async "an account with too many devices gets rid of its own"({ far, ask }) {
    const name = far.registrations.values().next().value.given.name;
    far.forget();
    for (let n = 0; n < 100; n++) far.register({ name: n < 30 ? name.replace(/[^-]*$/, "another") : "somebody else's" }, far.region);
    for (const socket of far.orphans) socket.terminate();
    await ask(far.hear("a hundred devices"));
    const foreign = [...far.registrations.values()].filter(({ given }) => given.name === "somebody else's");
    assert.equal(foreign.length, 70, "devices of others are not ours to delete");
  },
  async "a dead socket is noticed by its pings, long before the next probe"({ far, ask, link }) {
    far.deafen();
    await ask(far.hear("to a dead socket"));
    const { renewals } = await renewed(link, "silent");
    assert.equal(renewals.unrouted, undefined, JSON.stringify(renewals));
  },
  async "routing that dies is noticed by a look, long before the next probe"({ far, ask, link }) {
    far.mute();
    await ask(far.hear("nobody was told"));
    await eventually("a device that is routed to", async () => (await link()).figures.renewals.unrouted >= 1);
    await ask(far.hear("somebody was told"));
  },
  async "pings of the protocol that nobody answers are no fault"({ far, ask, link }) {
    far.modes.jsonPongs = false;
    far.drop();
    await ask(far.hear("no pongs here"));
    assert.equal((await link()).figures.renewals.silent ?? 0, 0);
  },
  async "a token that is refused is a matter for people"({ far, link }) {
    far.refuseSockets = 401;
    far.drop();
    const { text } = await eventually("it to be refused", async () => {
      const status = await link();
      return status.state === "refused" && status;
    });
    assert.match(text, /401/);
  },
};

/** Settings of a story; those of all are with the test. */
const SETTINGS = {
  // A routing round trip would notice it as well: none may come in between.
  "a dead socket is noticed by its pings, long before the next probe": { "probe-interval": "1h" },
  "routing that dies is noticed by a look, long before the next probe": { "probe-interval": "1h", "look-interval": "500ms" },
  // That a busy machine is late is no fault of the service.
  "pings of the protocol that nobody answers are no fault": { "ping-timeout": "10s" },
  "a service that is slow to answer is no fault": { "ping-timeout": "10s" },
  // So that it is seen while it waits.
  "a connection that was replaced stands down, and says why": { "refused-pause": "6s" },
};

/** Of every link. What may take a time is given more than a busy machine takes. */
const ALL = {
  "probe-interval": "2s", "probe-timeout": "1900ms", "ping-interval": "500ms", "ping-timeout": "2s", "refused-pause": "2s", overlap: "200ms",
};

test("Webex does its worst", { timeout: 240_000, concurrency: true }, async (t) => {
  const started = [];
  // The last first: nobody asks what is gone.
  t.after(async () => {
    for (const one of started.reverse()) await one.stop();
  });
  const start = async (one) => (started.push(await one), started.at(-1));
  const cloud = await start(startWebex());
  const nat = await start(startNat({ to: cloud.port }));
  const app = await start(startApp());
  const stories = Object.entries(STORIES).map(([name, play], number) => ({ name, play, link: `bot-${number}` }));
  for (const story of stories) story.far = cloud.bot(story.link);
  const files = Object.fromEntries(stories.map(({ link, far }) => [`${link}.token`, far.token]));
  const gateway = await start(startLinks(`attempts-per-second = 100
attempts-burst = 100
[backends.app]
url = "http://127.0.0.1:${app.port}/"
${stories.map(({ link, name }) => `[links.${link}]
profile = "webex"
token-file = "$DIR/${link}.token"
proxy = "${nat.url}"
ca-file = "${cloud.caFile}"
deliver = { http = "app" }
backoff = { first = "100ms", max = "1s" }
${Object.entries({ ...ALL, ...SETTINGS[name] }).map(([key, value]) => `${key} = "${value}"`).join("\n")}
`).join("")}`, { files }));
  await Promise.all(stories.map(({ link }) => gateway.inState(link, "live", PATIENCE_MS)))
    .catch((error) => { throw new Error(`${error.message}\n${gateway.said().slice(-3000)}`); });

  for (const { name, play, far, link } of stories) {
    story(t, name, () => play({ far, app, link: async () => (await gateway.links())[link], ask: (message) => ask({ far, app }, message) }), gateway);
  }
  await Promise.all(t.stories);
  await eventually("nothing to wait", async () => Object.values(await gateway.links()).every(({ messages }) => messages.waiting === 0));
  for (const { name, far } of stories) {
    await eventually("probes to be taken out of their spaces", () => {
      const probes = far.answers.filter(({ text }) => text.startsWith("bowline-probe-"));
      const left = probes.filter(({ uuid }) => far.messages.has(uuid));
      assert.ok(left.length <= 3, `${name}: ${left.length} of ${probes.length} probes were left in their space`);
      return true;
    });
  }
});

/** Waits until the connection was renewed for this reason, and says what was counted: a busy machine may do it again. */
async function renewed(link, reason) {
  const { figures } = await eventually(`a renewal: ${reason}`, async () => {
    const status = await link();
    if (status.figures.renewals[reason] >= 1) return status;
    throw new Error(JSON.stringify(status));
  });
  return figures;
}

/** A story is a subtest; all of them play at once. */
function story(t, name, play, gateway) {
  t.stories ??= [];
  t.stories.push(t.test(name, async (t) => {
    try {
      const told = await play();
      if (told) t.diagnostic(told);
    } catch (error) {
      error.message += `\n${gateway.said().split("\n").filter((line) => line.includes("WARN") || line.includes("ERROR")).join("\n").slice(-2000)}`;
      throw error;
    }
  }));
}

/** The message is answered, and the app got it once. */
async function ask({ far, app }, message) {
  const find = () => far.answers.filter(({ parent }) => parent === message.uuid);
  await far.until(() => find().length > 0, PATIENCE_MS);
  assert.equal(find().length, 1, `"${message.text}" has ${find().length} answers`);
  assert.equal(app.of(message.uuid).length, 1, `"${message.text}" was delivered ${app.of(message.uuid).length} times`);
}
