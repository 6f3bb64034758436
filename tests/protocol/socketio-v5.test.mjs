// Socket.IO protocol, revision 5 (over Engine.IO 4), clause by clause, and what revision 4 (over Engine.IO 3) does otherwise.
// docs/protocol.md says which clause each test covers.

import test from "node:test";
import assert from "node:assert/strict";
import { Client, Polling, settle, target } from "./support.mjs";

const server = await target("suite");
const hasty = await target("suite", { "connect-timeout": "300ms" });

/** A client that is on `/`, its `auth` event read. */
async function joined(auth = "") {
  const client = await Client.open(server);
  client.send(`40${auth}`);
  const [connect] = await client.take(2);
  client.sid = JSON.parse(connect.slice(2)).sid;
  return client;
}

/** Proves that the connection to `/` is alive. */
async function expectAlive(client) {
  client.send('42["message","are you there?"]');
  assert.equal(await client.next(), '42["message-back","are you there?"]');
}

async function expectFatal(...data) {
  const client = await joined();
  for (const part of data) client.send(part);
  await client.expectClose();
}

const hole = (num) => `{"_placeholder":true,"num":${num}}`;

// -- connect

test("a client connects to the main namespace", async () => {
  const client = await Client.open(server);
  client.send("40");
  const [connect, auth] = await client.take(2);
  assert.equal(connect.slice(0, 2), "40");
  const payload = JSON.parse(connect.slice(2));
  assert.deepEqual(Object.keys(payload), ["sid"]);
  assert.equal(typeof payload.sid, "string");
  assert.equal(auth, '42["auth",{}]');
  client.end();
});

test("the id of the socket is not the id of the session", async () => {
  const client = await joined();
  assert.notEqual(client.sid, client.handshake.sid);
  client.end();
});

test("a client connects with a payload", async () => {
  const client = await Client.open(server);
  client.send('40{"token":"123"}');
  const [, auth] = await client.take(2);
  assert.equal(auth, '42["auth",{"token":"123"}]');
  client.end();
});

test("a client connects to a custom namespace", async () => {
  for (const packet of ["40/custom,", "40/custom"]) {
    const client = await Client.open(server);
    client.send(packet);
    const [connect, auth] = await client.take(2);
    assert.match(connect, /^40\/custom,\{"sid":"[^"]+"\}$/);
    assert.equal(auth, '42/custom,["auth",{}]');
    client.end();
  }
});

test("a client connects to a custom namespace with a payload", async () => {
  const client = await Client.open(server);
  client.send('40/custom,{"token":"abc"}');
  const [, auth] = await client.take(2);
  assert.equal(auth, '42/custom,["auth",{"token":"abc"}]');
  client.end();
});

test("a client is in two namespaces at once", async () => {
  const client = await joined();
  client.send("40/custom,");
  const [connect] = await client.take(2);
  assert.notEqual(JSON.parse(connect.slice("40/custom,".length)).sid, client.sid);
  client.send('42/custom,["message",1]');
  client.send('42["message",2]');
  assert.deepEqual(await client.take(2), ['42/custom,["message-back",1]', '42["message-back",2]']);
  client.end();
});

test("an unknown namespace is refused, and the connection goes on", async () => {
  const client = await Client.open(server);
  client.send("40/random");
  assert.equal(await client.next(), '44/random,{"message":"Invalid namespace"}');
  client.send("40");
  await client.take(2);
  await expectAlive(client);
  client.end();
});

test("connecting twice to a namespace closes the connection", async () => {
  const client = await joined();
  client.send("40");
  await client.expectClose();
});

test("an event before connecting closes the connection", async () => {
  const client = await Client.open(server);
  client.send('42["message"]');
  await client.expectClose();
});

test("an event to a namespace not joined closes the connection", async () => {
  await expectFatal('42/custom,["message"]');
});

test("a first packet that is none closes the connection", async () => {
  const client = await Client.open(server);
  client.send("4abc");
  await client.expectClose();
});

test("a payload that is not an object closes the connection", async () => {
  for (const packet of ["40[1]", '40"abc"', "40null"]) {
    const client = await Client.open(server);
    client.send(packet);
    await client.expectClose();
  }
});

test("a connection without a CONNECT is closed after a while", async () => {
  const client = await Client.open(hasty);
  await client.expectClose();
});

test("connecting works over polling", async () => {
  const session = await Polling.open(server);
  await session.send("40");
  const [connect, auth] = await session.packets(2);
  assert.match(connect, /^40\{"sid":"[^"]+"\}$/);
  assert.equal(auth, '42["auth",{}]');
});

// -- disconnect

test("a client leaves the main namespace, and the connection goes on", async () => {
  const client = await joined();
  client.send("41");
  await settle(server); // the reference would still see it joined if a CONNECT came with the same bytes
  client.send("40");
  const [connect] = await client.take(2);
  assert.notEqual(JSON.parse(connect.slice(2)).sid, client.sid);
  await expectAlive(client);
  client.end();
});

test("a client leaves a custom namespace and stays in the other", async () => {
  for (const packet of ["41/custom,", "41/custom"]) {
    const client = await joined();
    client.send("40/custom");
    await client.take(2);
    client.send(packet);
    await expectAlive(client);
    client.end();
  }
});

test("a disconnect with a payload closes the connection", async () => {
  await expectFatal("41{}");
});

// -- events

test("an event carries its arguments", async () => {
  const client = await joined();
  client.send('42["message",1,"2",{"3":[true]}]');
  assert.equal(await client.next(), '42["message-back",1,"2",{"3":[true]}]');
  client.end();
});

test("an event carries binary attachments", async () => {
  const client = await joined();
  client.send(`452-["message",${hole(0)},${hole(1)}]`);
  client.send(Uint8Array.of(1, 2, 3));
  client.send(Uint8Array.of(4, 5, 6));
  assert.deepEqual(await client.take(3), [`452-["message-back",${hole(0)},${hole(1)}]`, Buffer.of(1, 2, 3), Buffer.of(4, 5, 6)]);
  client.end();
});

test("an event carries binary attachments in a custom namespace", async () => {
  const client = await joined();
  client.send("40/custom,");
  await client.take(2);
  client.send(`451-/custom,["message",${hole(0)}]`);
  client.send(Uint8Array.of(1));
  assert.deepEqual(await client.take(2), [`451-/custom,["message-back",${hole(0)}]`, Buffer.of(1)]);
  client.end();
});

test("an event carries binary attachments over polling", async () => {
  const session = await Polling.open(server);
  await session.send("40");
  await session.packets(2);
  await session.send(`451-["message",${hole(0)}]\x1ebAQID`);
  assert.deepEqual(await session.packets(2), [`451-["message-back",${hole(0)}]`, "bAQID"]);
});

test("an event whose payload is no array with a name closes the connection", async () => {
  for (const packet of ["42{}", "42[]", '42"message"', "42[null]"]) await expectFatal(packet);
});

test("an unknown packet type closes the connection", async () => {
  for (const packet of ["4abc", '47["message"]']) await expectFatal(packet);
});

test("letters in the place of an ack id close the connection", async () => {
  await expectFatal('42abc["message-with-ack",1]');
});

test("a reserved event name closes the connection", async () => {
  for (const name of ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]) {
    await expectFatal(`42["${name}"]`);
  }
});

test("text where an attachment is due closes the connection", async () => {
  await expectFatal(`451-["message",${hole(0)}]`, '42["message"]');
});

test("an attachment that is not due closes the connection", async () => {
  await expectFatal(Uint8Array.of(1, 2, 3));
});

test("a placeholder without its attachment closes the connection", async () => {
  await expectFatal(`451-["message",${hole(1)}]`, Uint8Array.of(1));
});

test("more attachments than ten close the connection", async () => {
  await expectFatal(`4511-["message",${Array.from({ length: 11 }, (_, i) => hole(i))}]`);
});

// -- acks

test("an event with an id is acknowledged with the same id", async () => {
  const client = await joined();
  client.send('42456["message-with-ack",1,"2",{"3":[false]}]');
  assert.equal(await client.next(), '43456[1,"2",{"3":[false]}]');
  client.end();
});

test("an acknowledgement may be empty", async () => {
  const client = await joined();
  client.send('420["message-with-ack"]');
  assert.equal(await client.next(), "430[]");
  client.end();
});

test("an acknowledgement carries binary attachments", async () => {
  const client = await joined();
  client.send(`452-789["message-with-ack",${hole(0)},${hole(1)}]`);
  client.send(Uint8Array.of(1, 2, 3));
  client.send(Uint8Array.of(4, 5, 6));
  assert.deepEqual(await client.take(3), [`462-789[${hole(0)},${hole(1)}]`, Buffer.of(1, 2, 3), Buffer.of(4, 5, 6)]);
  client.end();
});

test("acknowledgement ids belong to their namespace", async () => {
  const client = await joined();
  client.send("40/custom,");
  await client.take(2);
  client.send('42/custom,5["message-with-ack","custom"]');
  client.send('425["message-with-ack","main"]');
  assert.deepEqual(await client.take(2), ['43/custom,5["custom"]', '435["main"]']);
  client.end();
});

test("an acknowledgement of nothing is ignored", async () => {
  const client = await joined();
  client.send('4399["x"]');
  client.send(`461-98[${hole(0)}]`);
  client.send(Uint8Array.of(1));
  await expectAlive(client);
  client.end();
});

test("an acknowledgement that is no array closes the connection", async () => {
  await expectFatal("430{}");
});

// -- revision 4, over Engine.IO 3

test("revision 4: the main namespace is joined unasked", async () => {
  const client = await Client.open(server, { eio: 3 });
  assert.deepEqual(await client.take(2), ["40", '42["auth",{}]']);
  await expectAlive(client);
  client.end();
});

test("revision 4: the main namespace is joined unasked over polling", async () => {
  const session = await Polling.open(server, { eio: 3, query: "&b64=1" });
  // the handshake itself may have brought both packets
  const text = session.first.includes('"auth"') ? session.first : session.first + (await session.poll());
  assert.match(text, /\}2:4013:42\["auth",\{\}\]$/);
});

test("revision 4: a custom namespace takes its auth from the query", async () => {
  const client = await Client.open(server, { eio: 3 });
  await client.take(2);
  client.send("40/custom?token=1,");
  assert.deepEqual(await client.take(2), ["40/custom,", '42/custom,["auth",{"token":"1"}]']);
  client.end();
});

test("revision 4: binary attachments begin with the type of the engine packet", async () => {
  const client = await Client.open(server, { eio: 3 });
  await client.take(2);
  client.send(`451-["message",${hole(0)}]`);
  client.send(Uint8Array.of(4, 1, 2, 3));
  assert.deepEqual(await client.take(2), [`451-["message-back",${hole(0)}]`, Buffer.of(4, 1, 2, 3)]);
  client.end();
});

test("revision 4: acknowledgements work as in revision 5", async () => {
  const client = await Client.open(server, { eio: 3 });
  await client.take(2);
  client.send('427["message-with-ack",1]');
  assert.equal(await client.next(), "437[1]");
  client.end();
});
