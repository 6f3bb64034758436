// Rude clients: what each does, and what it gets. docs/limits.md has them as a table (`node rude/table.mjs` writes it).

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { deflateRawSync } from "node:zlib";

import { openConnection } from "../harness/http.mjs";
import { eventually } from "../harness/programs.mjs";
import { encodeFrame, openWebSocket, OPCODES } from "../harness/websocket.mjs";
import { metric } from "../operations/gateway.mjs";
import { ask, closing, inTime, many, nextText, openPolling, openSocket, POLLING, tally, WEBSOCKET } from "./world.mjs";

const LIMIT = "clients went beyond a limit";
const REACHED = "a limit is reached: clients are refused";
const REFUSED = "requests were refused";
const ENDED = "sessions ended by what their clients sent";

/** Sends the same bytes again and again on a connection until it ends. */
function drip(channel, bytes, everyMs) {
  const timer = setInterval(() => (channel.socket.destroyed ? clearInterval(timer) : channel.socket.write(bytes)), everyMs);
  channel.socket.once("close", () => clearInterval(timer));
}

/** Sends the same requests one behind the other on one connection, and reads all answers. */
async function pipeline(port, targets) {
  const channel = openConnection(port);
  channel.socket.write(targets.map((target) => `GET ${target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`).join(""));
  const answers = [];
  for (const target of targets) answers.push(await inTime(target, channel.next()));
  channel.socket.destroy();
  return answers;
}

/**
 * `does` and `gets` are words for the table, `bound` the key or number that bounds it, `line` what the log says: one line,
 * however many there were. `toml` shortens times. `run(world)` proves `gets`; afterwards the server must be well.
 */
export const CLIENTS = [
  {
    name: "slow body",
    does: "announces a body, sends most of it and then a byte a second",
    gets: "HTTP 408 after 30 s; its session ends",
    bound: "30 s for a body, `engine.max-payload`",
    line: [`${REFUSED}: slow-body`],
    async run({ port }) {
      const answers = await many(40, async () => {
        const target = await openPolling(port);
        const channel = openConnection(port);
        channel.socket.write(`POST ${target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 990000\r\n\r\n4${"x".repeat(900_000)}`);
        drip(channel, "x", 1000);
        const { status } = await inTime("the answer", channel.next("POST"));
        channel.socket.destroy();
        return status;
      });
      assert.deepEqual(tally(answers), { 408: 40 });
    },
  },
  {
    name: "slow head",
    does: "sends the head of a request byte by byte and never ends it",
    gets: "is cut off when the time is over",
    bound: "`limits.request-head`",
    toml: `[limits]\nrequest-head = "1s"\n`,
    line: [`${LIMIT}: limits.request-head`],
    async run({ port, page }) {
      const ends = await many(500, async () => {
        const channel = openConnection(port);
        channel.socket.write(`GET /socket.io/ HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ${"a".repeat(28_000)}`);
        drip(channel, "a", 100);
        return (await inTime("the end", channel.next())).error;
      });
      assert.deepEqual(tally(ends), { "closed without an answer": 500 });
      assert.ok(metric(await page(), "bowline_limit_hits_total", "request-head") >= 500);
    },
  },
  {
    name: "half-open",
    does: "is there no longer, and nobody said so: it takes nothing and answers no ping",
    gets: "its session ends after `engine.ping-interval` and `engine.ping-timeout`",
    bound: "`engine.ping-interval`, `engine.ping-timeout`",
    toml: `[engine]\nping-interval = "1s"\nping-timeout = "8s"\n`,
    line: ["alert fires: BowlinePingTimeoutWave"],
    async run({ port, page }) {
      const channels = await many(300, async () => {
        const channel = openConnection(port);
        channel.socket.write(`GET ${WEBSOCKET} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`);
        assert.equal((await channel.next()).status, 101);
        channel.socket.write(encodeFrame({ opcode: OPCODES.text, payload: Buffer.from("40") }));
        channel.socket.pause();
        return channel;
      });
      const gone = async () => metric(await page(), "bowline_disconnects_total", "ping timeout") === 300;
      await eventually("all to be given up", gone);
      channels.forEach(({ socket }) => socket.destroy());
    },
  },
  {
    name: "giant frame",
    does: "announces a frame of a terabyte, a message in fragments without end, or a body of 10 GB",
    gets: "WebSocket 1009, or HTTP 413; nothing beyond the limit is read",
    bound: "`engine.max-payload`",
    line: [`${LIMIT}: engine.max-payload`],
    async run({ port, held }) {
      const announced = await many(50, async () => {
        const socket = await openSocket(port);
        const head = Buffer.from([0x82, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        socket.bytes(Buffer.concat([head, Buffer.alloc(1000)]));
        return closing(socket);
      });
      assert.deepEqual(tally(announced), { 1009: 50 });

      const part = Buffer.alloc(65_536, "x");
      const first = encodeFrame({ opcode: OPCODES.text, payload: part, fin: false });
      const next = encodeFrame({ opcode: OPCODES.continuation, payload: part, fin: false });
      const sockets = await many(60, () => openSocket(port));
      sockets.forEach((socket) => socket.bytes(Buffer.concat([first, ...Array.from({ length: 14 }, () => next)])));
      // 60 MB are held, and may be: each is below its limit.
      await eventually("it to be held", async () => (await held()) > 50_000_000);
      const fragments = await many(60, (index) => (sockets[index].bytes(next), closing(sockets[index])));
      assert.deepEqual(tally(fragments), { 1009: 60 });

      const bodies = await many(20, async () => {
        const target = await openPolling(port);
        const headers = { "Content-Length": 10_000_000_000 };
        return (await ask(port, { method: "POST", target, headers, body: "4x" })).status;
      });
      assert.deepEqual(tally(bodies), { 413: 20 });
      // A body that is too large is no reason to end a session, as in the reference: these just stay away.
    },
    toml: `[engine]\nping-interval = "1s"\nping-timeout = "8s"\n`,
    also: ["alert fires: BowlinePingTimeoutWave"],
  },
  {
    name: "bad UTF-8",
    does: "sends text that is not UTF-8",
    gets: "WebSocket 1007; on polling its session ends",
    bound: "RFC 6455, Engine.IO",
    line: [`${ENDED}: parse error`, `${ENDED}: broken frames`],
    async run({ port }) {
      const text = Buffer.concat([Buffer.from("42[\"a\",\""), Buffer.alloc(60_000, "x"), Buffer.from([0xc3, 0x28])]);
      const frame = encodeFrame({ opcode: OPCODES.text, payload: text });
      const codes = await many(300, async () => {
        const socket = await openSocket(port);
        socket.bytes(frame);
        return closing(socket);
      });
      assert.deepEqual(tally(codes), { 1007: 300 });
      const polls = await many(50, async () => {
        const target = await openPolling(port);
        return (await ask(port, { method: "POST", target, body: text })).status;
      });
      assert.deepEqual(tally(polls), { 200: 50 });
    },
  },
  {
    name: "unmasked",
    does: "sends frames without a mask, with reserved bits or opcodes",
    gets: "WebSocket 1002",
    bound: "RFC 6455",
    line: [`${ENDED}: broken frames`],
    async run({ port }) {
      const payload = Buffer.from(`42["a","${"x".repeat(60_000)}"]`);
      const wrong = [{ opcode: OPCODES.text, masked: false }, { opcode: OPCODES.text, rsv: 4 }, { opcode: 5 }];
      const frames = wrong.map((one) => encodeFrame({ payload, ...one }));
      const codes = await many(300, async (index) => {
        const socket = await openSocket(port);
        socket.bytes(frames[index % 3]);
        return closing(socket);
      });
      assert.deepEqual(tally(codes), { 1002: 300 });
    },
  },
  {
    name: "5,000 handshakes a second",
    does: "opens sessions as fast as it can and never comes back to them",
    gets: "HTTP 429 with `Retry-After` beyond the limit; the sessions end by ping timeout",
    bound: "`limits.handshakes-per-second`",
    toml: `[limits]\nhandshakes-per-second = 1000\n[engine]\nping-interval = "1s"\nping-timeout = "10s"\n`,
    line: [`${REACHED}: limits.handshakes-per-second`],
    also: ["alert fires: BowlinePingTimeoutWave"],
    async run({ port, page }) {
      const targets = Array.from({ length: 125 }, () => POLLING);
      const answers = (await many(40, () => pipeline(port, targets))).flat();
      const statuses = tally(answers.map(({ status }) => status));
      assert.deepEqual(Object.keys(statuses), ["200", "429"], JSON.stringify(statuses));
      assert.ok(statuses["200"] >= 900, JSON.stringify(statuses));
      const told = answers.filter(({ status }) => status === 429);
      assert.ok(told.every(({ headers }) => headers.get("retry-after") === "1"));
      assert.equal(metric(await page(), "bowline_limit_hits_total", "handshakes-per-second"), told.length);
    },
  },
  {
    name: "ids guessed",
    does: "asks for sessions that it does not have, by polling and by WebSocket",
    gets: "HTTP 400 `Session ID unknown`, whatever it guesses; 112 bits of a sid are random",
    bound: "the length of a sid",
    line: [`${REFUSED}: unknown-session`],
    async run({ port }) {
      const guess = () => randomBytes(15).toString("base64url");
      const answers = (await many(50, () => pipeline(port, Array.from({ length: 400 }, () => `${POLLING}&sid=${guess()}`)))).flat();
      assert.deepEqual(tally(answers.map(({ status, body }) => `${status} ${body}`)), { '400 {"code":1,"message":"Session ID unknown"}': 20_000 });
      const upgrades = await many(200, async () => (await openWebSocket(port, `${WEBSOCKET}&sid=${guess()}`)).response.status);
      assert.deepEqual(tally(upgrades), { 400: 200 });
    },
  },
  {
    name: "polling twice at once",
    does: "sends a poll while another one waits, or a post while another one is under way",
    gets: "HTTP 400, and its session ends; the poll that waited is told `1`",
    bound: "Engine.IO",
    line: [`${REFUSED}: session-ended`],
    async run({ port }) {
      const polls = await many(200, async () => {
        const target = await openPolling(port);
        const both = await many(2, () => ask(port, { target }));
        return both.map(({ status, body }) => `${status} ${body}`).toSorted();
      });
      assert.deepEqual(tally(polls), { "200 1,400 ": 200 });
      const post = async () => {
        const target = await openPolling(port);
        const channel = openConnection(port);
        channel.socket.write(`POST ${target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n4${"x".repeat(50_000)}`);
        // The second is a second one only when the server has begun with the first.
        let second;
        await eventually("the second post to be refused", async () => {
          second = await ask(port, { method: "POST", target, body: "3" });
          return second.status === 400;
        });
        channel.socket.destroy();
        return second.status;
      };
      const posts = [];
      for (let crowd = 0; crowd < 4; crowd++) posts.push(...(await many(100, post)));
      assert.deepEqual(tally(posts), { 400: 400 });
    },
  },
  {
    name: "`__proto__` as names",
    does: "uses names that every JavaScript object has: as transport, sid, namespace, event, member",
    gets: "HTTP 400, CONNECT_ERROR `Invalid namespace`; events and members with such names are data like any other",
    bound: "nothing: names are data",
    line: [`${REFUSED}: unknown-transport`, `${REFUSED}: unknown-session`],
    async run({ port }) {
      for (const name of ["__proto__", "constructor", "hasOwnProperty", "toString"]) {
        const transport = await ask(port, { target: `/socket.io/?EIO=4&transport=${name}` });
        assert.deepEqual([transport.status, transport.body.toString()], [400, '{"code":0,"message":"Transport unknown"}']);
        assert.equal((await ask(port, { target: `${POLLING}&sid=${name}` })).status, 400);
        const socket = await openSocket(port);
        socket.text(`40/${name},{"__proto__":{"admin":true}}`);
        assert.equal((await nextText(socket)).text, `44/${name},{"message":"Invalid namespace"}`);
        const event = `["${name}",{"${name}":{"admin":true}}]`;
        socket.text(`42${event}`);
        assert.equal((await nextText(socket)).text, `42${event}`);
        socket.drop();
      }
    },
  },
  {
    name: "10,000 rooms",
    does: "has its app join it to ever more rooms",
    gets: "WebSocket 1008 for the first beyond the limit",
    bound: "`limits.rooms-per-session`",
    line: [`${LIMIT}: limits.rooms-per-session`],
    async run({ port, gateway }) {
      const join = async (sid, rooms) => (await gateway.api("/api/v1/join", { method: "POST", body: { sid, rooms } })).status;
      const codes = [];
      // One after the other: tables that have grown stay, and the next one has them again.
      for (let client = 0; client < 12; client++) {
        const socket = await openSocket(port);
        for (let from = 0; from < 10_000; from += 1000) {
          const rooms = Array.from({ length: 1000 }, (_, index) => `${client}-${from + index}-${"x".repeat(200)}`);
          assert.equal(await join(socket.sid, rooms), 200);
        }
        socket.text(`42["still"]`);
        assert.equal((await nextText(socket)).text, `42["still"]`);
        assert.equal(await join(socket.sid, ["one more"]), 200);
        codes.push(await closing(socket));
      }
      assert.deepEqual(tally(codes), { 1008: 12 });
    },
  },
  {
    name: "acks never answered",
    does: "is asked for acks and gives none",
    gets: "whoever asked is told in time how many are missing; beyond the limit nobody waits for its acks",
    bound: "`limits.pending-acks-per-session`, the `timeout` of the emit",
    toml: `[limits]\npending-acks-per-session = 10\n`,
    line: [`${LIMIT}: limits.pending-acks-per-session`],
    async run({ port, page, gateway }) {
      const sockets = await many(50, () => openSocket(port));
      const body = { to: sockets.map(({ sid }) => sid), event: "ask", args: ["x".repeat(20_000)], ack: true, timeout: "2s" };
      const answers = await many(15, () => gateway.api("/api/v1/emit", { method: "POST", body }));
      assert.deepEqual(tally(answers.map(({ json }) => `${json.acks.length}, ${json.missing}`)), { "0, 50": 15 });
      assert.equal(metric(await page(), "bowline_limit_hits_total", "pending-acks-per-session"), 5 * 50);
      sockets.forEach((socket) => socket.frame({ opcode: OPCODES.close }));
    },
  },
  {
    name: "compressed bomb",
    does: "sends 100 kB that inflate to 100 MB, or rubbish that does not inflate",
    gets: "WebSocket 1009 as soon as the limit is passed; 1007 for rubbish",
    bound: "`engine.max-payload`, which counts after inflating",
    toml: `[engine]\ncompression = true\n`,
    line: [`${LIMIT}: engine.max-payload`, `${ENDED}: broken frames`],
    async run({ port, peak }) {
      const bomb = encodeFrame({ opcode: OPCODES.text, rsv: 4, payload: deflateRawSync(Buffer.alloc(100_000_000, "x")) });
      const rubbish = encodeFrame({ opcode: OPCODES.text, rsv: 4, payload: Buffer.alloc(1000, 0xff) });
      const headers = { "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits" };
      const codes = await many(60, async (index) => {
        const socket = await openSocket(port, { headers });
        socket.bytes(index % 3 === 0 ? rubbish : bomb);
        return closing(socket);
      });
      assert.deepEqual(tally(codes), { 1007: 20, 1009: 40 });
      // All of them inflated would be 4 GB, one alone 100 MB.
      assert.ok((await peak()) < 60_000_000, `${await peak()} bytes`);
    },
  },
  {
    name: "never reads",
    does: "asks for more and more and takes nothing of it",
    gets: "is cut off when too much waits for it",
    bound: "`limits.queued-bytes-per-session`",
    line: [`${LIMIT}: limits.queued-bytes-per-session`],
    async run({ port, page }) {
      const frame = encodeFrame({ opcode: OPCODES.text, payload: Buffer.from(`42["a","${"x".repeat(200_000)}"]`) });
      const sockets = await many(20, async () => {
        const channel = openConnection(port);
        channel.socket.write(`GET ${WEBSOCKET} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`);
        assert.equal((await channel.next()).status, 101);
        channel.socket.write(encodeFrame({ opcode: OPCODES.text, payload: Buffer.from("40") }));
        channel.socket.pause();
        return channel.socket;
      });
      const frames = Buffer.concat(Array.from({ length: 5 }, () => frame));
      const send = () => {
        for (const socket of sockets) if (socket.writableLength < frames.length) socket.write(frames);
      };
      const allAreCut = async () => (send(), metric(await page(), "bowline_slow_receivers_total") === 20);
      await eventually("all to be cut", allAreCut, 120_000);
      sockets.forEach((socket) => socket.destroy());
    },
  },
  {
    name: "flood of events",
    does: "sends thousands of events at once",
    gets: "WebSocket 1008 when its second is full",
    bound: "`limits.events-per-second`",
    toml: `[limits]\nevents-per-second = 1000\n`,
    line: [`${LIMIT}: limits.events-per-second`],
    async run({ port }) {
      const frame = encodeFrame({ opcode: OPCODES.text, payload: Buffer.from(`42["a"]`) });
      const flood = Buffer.concat(Array.from({ length: 5000 }, () => frame));
      const codes = await many(20, async () => {
        const socket = await openSocket(port);
        socket.bytes(flood);
        return closing(socket);
      });
      assert.deepEqual(tally(codes), { 1008: 20 });
    },
  },
  {
    name: "too many namespaces",
    does: "joins one namespace after the other",
    gets: "WebSocket 1008",
    bound: "`limits.namespaces-per-session`",
    toml: `[namespaces."/"]\nhandler = "echo"\n[namespaces."/room-*"]\nhandler = "relay"\n`,
    line: [`${LIMIT}: limits.namespaces-per-session`],
    async run({ port }) {
      const codes = await many(300, async (index) => {
        const socket = await openSocket(port);
        for (let number = 0; number < 64; number++) socket.text(`40/room-${index}-${number}-${"x".repeat(1000)},`);
        return closing(socket);
      });
      assert.deepEqual(tally(codes), { 1008: 300 });
    },
  },
  {
    name: "too many attachments",
    does: "announces an event with more binary attachments than there may be",
    gets: "WebSocket 1008",
    bound: "`limits.attachments`",
    line: [`${LIMIT}: limits.attachments`],
    async run({ port }) {
      const codes = await many(100, async () => {
        const socket = await openSocket(port);
        socket.text(`451000000-["a",{"_placeholder":true,"num":0}]`);
        return closing(socket);
      });
      assert.deepEqual(tally(codes), { 1008: 100 });
    },
  },
  {
    name: "small events, kept",
    does: "has each of thousands of tiny events kept for it that came in a large request of its own",
    gets: "an answer to each; what is kept of them is as small as they are",
    bound: "`continuity.max-bytes`",
    line: [],
    async run({ port }) {
      const target = await openPolling(port, '40{"recovery":true}');
      const headers = { "X-Pad": "x".repeat(12_000) };
      const answers = [];
      for (let crowd = 0; crowd < 20; crowd++) {
        for (let number = 0; number < 100; number++) answers.push((await ask(port, { method: "POST", target, headers, body: '42["a"]' })).status);
        const { body } = await ask(port, { target });
        assert.ok(body.includes('42["a","'), body.toString());
      }
      assert.deepEqual(tally(answers), { 200: 2000 });
      // It goes without a word in its namespace, and is kept.
      assert.equal((await ask(port, { method: "POST", target, body: "1" })).status, 200);
    },
  },
  {
    name: "back for too much",
    does: "has many sockets miss many events, brings each back on whatever shard, and takes nothing of them",
    gets: "a new session (`log-full`) for those whose share would be too much, and for who has missed more than 65,536",
    bound: "`continuity.max-bytes`, of what sockets bring from shard to shard too",
    toml: `[server]\nshards = 2\n[continuity]\nmax-bytes = "6MB"\nwindow = "6s"\n[namespaces."/"]\nhandler = "echo"\n[namespaces."/relay"]\nhandler = "relay"\n[engine]\nping-interval = "2s"\nping-timeout = "5s"\n[limits]\nevents-per-second = 500000\n`,
    line: ["alert fires: BowlineLogTooSmall"],
    async run({ port, page, held }) {
      const join = async (pid) => {
        const { socket } = await inTime("a handshake", openWebSocket(port, WEBSOCKET));
        await nextText(socket);
        socket.text(`40/relay,${JSON.stringify(pid ? { pid } : { recovery: true })}`);
        socket.pid = JSON.parse((await nextText(socket)).text.slice(9)).pid;
        return socket;
      };
      const first = await many(80, () => join());
      first.forEach((socket) => socket.drop());
      const sender = await join();
      const burst = Buffer.concat(Array.from({ length: 200 }, () => encodeFrame({ opcode: OPCODES.text, payload: Buffer.from('42/relay,["a"]') })));
      for (let sent = 0; sent < 12_000; sent += 200) {
        sender.bytes(burst);
        for (let came = 0; came < 200; ) if ((await nextText(sender)).text.startsWith("42")) came++;
      }
      sender.drop();
      for (let from = 0; from < 240; from += 4) {
        (await many(4, (index) => join(first[(from + index) % 80].pid))).forEach((socket) => socket.drop());
      }
      // What 80 of them would bring is 100 MB.
      assert.ok((await held()) < 60_000_000, `${await held()} bytes`);
      assert.ok(metric(await page(), "bowline_recoveries_total", "log-full") > 20);
    },
  },
];
