// A link is renewed again and again while messages flow at 50 a second: real bots of Python do not notice, nothing is lost
// or twice, and the order of each room is kept.

import assert from "node:assert/strict";
import { test } from "node:test";
import { io } from "socket.io-client";

import { eventually } from "../harness/programs.mjs";
import { after } from "../harness/server.mjs";
import { makeAuthority } from "./authority.mjs";
import { startEcho } from "./echo.mjs";
import { startNat } from "./nat.mjs";
import { LONG, assertStream, startBot, startLinks, throughProxy } from "./rig.mjs";
import { startSocketIo } from "./socketio.mjs";

const RENEWALS = LONG ? 10 : 3;
const FLOW = { perSecond: 50, rooms: 5 };

test(`python-socketio in a namespace does not notice ${RENEWALS} renewals of a Socket.IO link`, { timeout: 200_000 }, async (t) => {
  const service = await startSocketIo();
  t.after(() => service.stop());
  const gateway = await startLinks(inNamespace(service));
  t.after(() => gateway.stop());
  await gateway.inState("ann", "live");
  const bot = await startBot("socketio_bot.py", [gateway.url, "/bots"]);
  t.after(() => bot.stop());

  const far = service.bot("ann");
  await renewed(t, { gateway, far, bot });
  await eventually("the old connections to be closed", () => far.sockets.size === 1);
  // What the bot acknowledged with is what the service gets.
  // One that was late for its connection is nobody's any more; the next test has one that is just in time.
  const late = ({ id }) => far.answeredAt.get(id) - far.saidAt.get(id) > 1000;
  await eventually("the acknowledgements", () => {
    const owed = far.sent.filter((message) => !far.acked.has(message.id) && !late(message)).map(({ id }) => id);
    if (owed.length > 0) throw new Error(`${owed.length} of ${far.sent.length} are owed: ${owed.slice(0, 5)}`);
    return true;
  });
  for (const [id, answer] of far.acked) assert.deepEqual(answer, [`thanks for ${id}`]);
});

test("an acknowledgement that comes when the connection of its event is being closed reaches the service", { timeout: 240_000 }, async (t) => {
  const service = await startSocketIo();
  t.after(() => service.stop());
  const gateway = await startLinks(inNamespace(service));
  t.after(() => gateway.stop());
  await gateway.inState("ann", "live");
  const bot = io(`${gateway.url}/bots`, { transports: ["websocket"] });
  t.after(() => bot.close());
  let acknowledge;
  bot.on("message", (_, done) => (acknowledge = done));
  await eventually("the bot to be in", () => bot.connected);

  const far = service.bot("ann");
  // On a busy machine the time may be missed, and it is done again.
  for (let round = 0; round < 5 && far.acked.size === 0; round++) {
    acknowledge = undefined;
    const opened = far.opened;
    const { id } = far.hear("lobby");
    await eventually("the bot to have it", () => acknowledge);
    const renewed = gateway.renew("ann");
    // Beside each other they are for a second; the old one is then closed within two.
    await eventually("the new connection", () => far.opened > opened);
    await after(1500);
    acknowledge("late");
    await renewed;
    await eventually("the acknowledgement, or the old connection to be closed", () => far.acked.has(id) || far.sockets.size === 1);
  }
  assert.ok(far.acked.size > 0, "no acknowledgement has reached the service");
  for (const answer of far.acked.values()) assert.deepEqual(answer, ["late"]);
  await eventually("the old connection to be closed", () => far.sockets.size === 1);
});

test(`websockets through the loopback proxy does not notice ${RENEWALS} renewals of a WebSocket link`, { timeout: 200_000 }, async (t) => {
  const authority = makeAuthority(["echo.example"]);
  t.after(() => authority.clear());
  const service = await startEcho({ authority });
  t.after(() => service.stop());
  const nat = await startNat({ to: service.port });
  t.after(() => nat.stop());
  const gateway = await startLinks(throughProxy("ann", { nat, authority }));
  t.after(() => gateway.stop());
  await gateway.inState("ann", "live");
  const bot = await startBot("websockets_bot.py", ["wss://echo.example/bots/ann"], await gateway.environment("ann"));
  t.after(() => bot.stop());

  const far = service.bot("ann");
  await renewed(t, { gateway, far, bot });
  await eventually("the old connections to be closed", () => far.connections.size === 1);
  await eventually("all to be acknowledged", () => far.acked.size === far.sent.length);
  assert.equal(bot.count("other"), 0, "round trips of the link are not the bot's");
});

/** A link to a Socket.IO service, for bots in a namespace. */
const inNamespace = (service) => `
[namespaces."/bots"]
handler = "link"
[links.ann]
profile = "socketio"
url = "${service.url}"
auth = { token = "ann" }
message-id = "/1/id"
room = "/1/room"
probe = "echo"
deliver = { namespace = "/bots" }
`;

/** Renews while messages flow, and looks at everything. */
async function renewed(t, { gateway, far, bot }) {
  const before = far.opened;
  const flow = far.flow(FLOW);
  for (let i = 0; i < RENEWALS; i++) {
    await after(200);
    await gateway.renew("ann");
  }
  await after(500);
  flow.stop();
  await eventually("the last message to be answered", () => far.answers.size === far.sent.length).catch((error) => {
    assertStream(far.sent, bot.messages());
    throw error;
  });
  assertStream(far.sent, bot.messages());
  for (const [id, answers] of far.answers) assert.equal(answers.length, 1, `${id} was answered ${answers.length} times`);
  assert.equal(far.opened - before, RENEWALS, "each renewal is one connection");
  assert.deepEqual([bot.count("connect"), bot.count("disconnect")], [1, 0], "the bot has noticed");
  await eventually("nothing to wait", async () => (await gateway.links()).ann.messages.waiting === 0);
  assert.equal((await gateway.links()).ann.messages.parked, 0);
  t.diagnostic(`renewal: ${RENEWALS} renewals, ${far.sent.length} messages: none lost, none twice, in order; the bot's connection unbroken`);
}
