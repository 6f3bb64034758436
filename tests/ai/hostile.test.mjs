// Providers that lie, flood and repeat what they should keep: a server of plain bytes, since no HTTP library would send this.

import assert from "node:assert/strict";
import { connect, createServer } from "node:net";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";

import { eventually } from "../harness/programs.mjs";
import { memory } from "./process.mjs";
import { HELLO, model, startAi } from "./rig.mjs";

const SECRET = "sk-provider-0123456789abcdef";
const MIB = 2 ** 20;

const STREAM = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
const whole = (status, body, headers = "") => `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\n${headers}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
const answer = (text) => JSON.stringify({ id: "x", object: "chat.completion", created: 1, model: "m", choices: [{ index: 0, message: { role: "assistant", content: text }, finish_reason: "stop" }] });
const event = (delta, finish_reason = null) => `data: ${JSON.stringify({ id: "x", object: "chat.completion.chunk", created: 1, model: "m", choices: [{ index: 0, delta, finish_reason }] })}\n\n`;
const repeating = (head) => JSON.stringify({ error: { message: `debug: ${head}`, code: /authorization: (.*)/i.exec(head)?.[1].trim(), param: head.slice(0, 300) } });

/** What each model's provider does with a request. */
const HOSTILE = {
  good: (socket) => socket.write(whole("200 OK", answer("hello"))),
  "at-once": (socket) => socket.write(`${STREAM}${event({ role: "assistant", content: "hello" })}${event({}, "stop")}data: [DONE]\n\n`),
  "echo-400": (socket, head) => socket.write(whole("400 X", repeating(head))),
  "echo-401": (socket, head) => socket.write(whole("401 X", repeating(head))),
  "echo-500": (socket, head) => socket.write(whole("500 X", repeating(head))),
  "echo-frame": (socket, head) => socket.write(`${STREAM}${event({ content: "hello" })}data: ${repeating(head)}\n\n`),
  "two-answers": (socket) => socket.write(whole("200 OK", answer("first")) + whole("200 OK", answer("poison"))),
  redirect: (socket) => socket.write("HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"),
  gzip: (socket) => {
    const bomb = gzipSync(Buffer.alloc(64 * MIB, " "));
    socket.write(`HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: ${bomb.length}\r\n\r\n`);
    socket.write(bomb);
  },
  "too-short": (socket) => socket.end("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{}"),
  "two-lengths": (socket) => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 9\r\n\r\n{"a":1}xx'),
  "endless-header": (socket) => flood(socket, "HTTP/1.1 200 OK\r\nx-a: ", "a".repeat(65_536)),
  "endless-headers": (socket) => flood(socket, "HTTP/1.1 200 OK\r\n", "x-a: b\r\n".repeat(1_000)),
  "endless-1xx": (socket) => trickle(socket, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
  "endless-line": (socket) => flood(socket, `${STREAM}data: `, "a".repeat(65_536)),
  "endless-comments": (socket) => flood(socket, STREAM, ": hello\n\n".repeat(1_000)),
  "endless-answer": (socket) => flood(socket, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n", " ".repeat(65_536)),
  "endless-error": (socket) => flood(socket, "HTTP/1.1 500 X\r\ncontent-type: application/json\r\n\r\n", " ".repeat(65_536)),
  "large-events": (socket) => flood(socket, STREAM, event({ content: "a".repeat(8 * MIB) })),
  deep: (socket) => socket.write(whole("200 OK", "[".repeat(200_000))),
  "not-http": (socket) => socket.write("hello there\n"),
};

/** What clients are told, plain and streamed; what is missing is not asked for. */
const ENDS = {
  redirect: { plain: /^(404|502) / },
  gzip: { plain: "502 upstream_malformed" },
  "too-short": { plain: "502 upstream_truncated" },
  "two-lengths": { plain: "502 upstream_broken" },
  "endless-header": { plain: "502 upstream_broken", stream: "502 upstream_broken" },
  "endless-headers": { plain: "502 upstream_broken", stream: "502 upstream_broken" },
  "endless-1xx": { plain: "504 upstream_timeout", stream: "504 upstream_timeout" },
  "endless-line": { stream: "502 upstream_malformed" },
  "endless-comments": { stream: "502 upstream_malformed" },
  "endless-answer": { plain: "502 upstream_malformed" },
  "endless-error": { plain: "502 upstream_error", stream: "502 upstream_error" },
  deep: { plain: "502 upstream_malformed", stream: "502 upstream_malformed" },
  "not-http": { plain: "502 upstream_broken", stream: "502 upstream_broken" },
};

let server, gateway;
const seen = { paths: [], open: 0 };

before(async () => {
  server = await listening();
  const provider = (name, total) =>
    `[ai.providers.${name}]\nkind = "openai"\nbase-url = "http://127.0.0.1:${server.address().port}/v1"\napi-key-env = "HOSTILE_KEY"\npool.idle = "500ms"\ntimeout = { connect = "1s", first-content = "2s", idle = "2s", total = "${total}" }\n`;
  process.env.HOSTILE_KEY = SECRET;
  gateway = await startAi({
    log: "trace",
    toml: [
      '[ai]\ndeadline = "2m"\nclient-stall = "2s"',
      provider("evil", "20s"),
      provider("long", "2m"),
      ...Object.keys(HOSTILE).map((name) => model(name, [`${name === "large-events" ? "long" : "evil"}/${name}`])),
    ].join("\n"),
  });
});

after(async () => {
  await gateway?.stop();
  server?.close();
});

test("a stream that comes in one piece says who gave it", async () => {
  const response = await asked("at-once", true);
  const text = await response.text();
  assert.match(text, /hello/);
  assert.equal(response.headers.get("bowline-served-by"), "evil/at-once");
  assert.match(response.headers.get("bowline-attempts"), /^evil;ok;\d+ms$/);
});

test("a provider that repeats the gateway's key tells it nobody else", async () => {
  for (const name of ["echo-400", "echo-401", "echo-500", "echo-frame"]) {
    const response = await asked(name, name === "echo-frame");
    const text = await response.text();
    assert.match(text, /"error"/, name);
    assert.ok(!`${text}${JSON.stringify([...response.headers])}`.includes(SECRET.slice(0, 11)), `${name}: ${text}`);
  }
  const pages = ["/api/v1/ai/requests?limit=2000", "/api/v1/ai/providers", "/metrics"];
  for (const page of pages) assert.ok(!(await gateway.api(page)).text.includes(SECRET.slice(0, 11)), page);
  assert.ok(!gateway.said().includes(SECRET.slice(0, 11)));
});

test("what stands behind an answer is nobody else's", async () => {
  for (let number = 0; number < 10; number += 1) {
    const text = await (await asked("two-answers", false)).text();
    assert.match(text, /first/);
    assert.match(await (await asked("good", false)).text(), /hello/);
  }
});

test("floods, lies and bombs end as docs/ai.md says", async () => {
  const wrong = [];
  // One after another: floods are not to keep each other from being sent.
  for (const [name, ways] of Object.entries(ENDS)) {
    for (const [way, expected] of Object.entries(ways)) {
      const response = await asked(name, way === "stream");
      const came = `${response.status} ${JSON.parse(await response.text()).error.code}`;
      const fits = expected instanceof RegExp ? expected.test(came) : came === expected;
      if (!fits) wrong.push(`${name}, ${way}: ${came}, not ${expected}`);
    }
  }
  assert.deepEqual(wrong, []);
  assert.ok(!seen.paths.includes("/elsewhere"), "a redirect was followed");
});

test("a client that does not read large events takes little memory", async () => {
  const { gateway: process_ } = (await gateway.control("/api/v1/status")).json;
  const before = memory(process_.pid);
  const [open, client] = [seen.open, silent("large-events")];
  await eventually("the stream to begin", () => seen.open > open);
  // Until it counts as one that has left, long before the timers of its request. What waits for a client was once bounded in pieces, of whatever size.
  let most = before;
  await eventually("the stream to end", async () => {
    most = Math.max(most, memory(process_.pid));
    return seen.open === 0;
  });
  client.destroy();
  assert.ok(most - before < 80 * MIB, `${((most - before) / MIB).toFixed(0)} MiB for one client`);
  const { requests } = (await gateway.api("/api/v1/ai/requests?limit=2000")).json;
  assert.equal(requests.find((request) => request.requested === "large-events").status, 499);
});

test("a body that is announced and does not come takes no room from others", async () => {
  const announced = Array.from({ length: 20 }, () => {
    const socket = connect(gateway.port, "127.0.0.1", () => {
      socket.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: ${16 * MIB}\r\n\r\n{`);
    });
    return socket.on("error", () => {});
  });
  // Once all are there, as many as would fill `max-bytes` with what they announce.
  await Promise.all(announced.map((socket) => new Promise((resolve) => socket.once("connect", resolve))));
  assert.match(await (await asked("good", false)).text(), /hello/);
  for (const socket of announced) socket.destroy();
});

test("afterwards nobody holds anything", async () => {
  await eventually("all permits to be given back", async () => (await gateway.permits()) === 0);
  await eventually("all connections to be closed", () => seen.open === 0);
  assert.doesNotMatch(gateway.said(), /panicked/);
});

function asked(name, stream) {
  return fetch(`${gateway.base}/chat/completions`, { method: "POST", body: JSON.stringify({ model: name, messages: HELLO, stream }) });
}

/** A client that asks for a stream and reads nothing of it. */
function silent(name) {
  const body = JSON.stringify({ model: name, messages: HELLO, stream: true });
  const socket = connect(gateway.port, "127.0.0.1", () => {
    socket.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
  });
  socket.on("error", () => {});
  socket.pause();
  return socket;
}

/** Sends as fast as it is taken, for ever. */
function flood(socket, first, piece) {
  socket.write(first);
  const go = () => {
    while (!socket.destroyed && socket.write(piece));
  };
  socket.on("drain", go);
  go();
}

function trickle(socket, piece) {
  const timer = setInterval(() => socket.write(piece.repeat(20)), 10);
  socket.on("close", () => clearInterval(timer));
}

function listening() {
  const server = createServer((socket) => {
    seen.open += 1;
    socket.on("close", () => (seen.open -= 1));
    socket.on("error", () => {});
    let read = "";
    socket.on("data", (data) => {
      read += data.toString("latin1");
      for (;;) {
        const end = read.indexOf("\r\n\r\n");
        const length = Number(/content-length: (\d+)/i.exec(read.slice(0, Math.max(end, 0)))?.[1] ?? 0);
        if (end < 0 || read.length < end + 4 + length) return;
        const [head, body] = [read.slice(0, end), read.slice(end + 4, end + 4 + length)];
        read = read.slice(end + 4 + length);
        seen.paths.push(head.split(" ")[1]);
        HOSTILE[JSON.parse(body).model](socket, head);
      }
    });
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}
