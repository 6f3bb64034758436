// Plays one script against one server and writes down everything that a client can see, in a form that is the same for two
// servers that behave alike.
//
// A script is `{ name, steps }`; a step is an array `[verb, ...arguments]`. The verbs:
//
//   ["open", { eio, query, headers, as }]   polling handshake; the session id is remembered as `$sid` (or `$<as>`)
//   ["GET", options], ["POST", body, options], ["request", method, options]
//                                           one request and its answer; options: target, query (added), sid, eio, headers, conn
//   ["start", name, step]                   begins a GET, POST or request without waiting
//   ["finish", name], ["abort", name]       waits for its answer; or ends its TCP connection
//   ["poll", n]                             GETs until n packets have come: how a server groups them is its own affair
//   ["ws", name, options]                   a WebSocket without a session; its open packet is read
//   ["upgrade", name, options]              a WebSocket for `$sid`
//   ["text", name, text], ["binary", name, bytes], ["frame", name, { opcode, payload, fin, rsv, masked }], ["write", name, bytes]
//   ["frames", name, n]                     reads n frames
//   ["closed", name, { within }]            reads frames until the server has closed; "still open" after `within` ms
//   ["drop", name]                          ends the TCP connection of a WebSocket without a word
//   ["bytes", text, { method }]             bytes on a new connection, and the answer
//   ["settle"]                              lets the server take in what was written: there is nothing to see when it parks a request
//   ["wait", ms]                            lets time pass, where time itself is what is tested
//
// `$sid` and other remembered ids, and `$path`, are replaced in targets, queries and texts.

import { createHash } from "node:crypto";
import { exchange, openConnection, sendBytes } from "../harness/http.mjs";
import { ACCEPT, openWebSocket } from "../harness/websocket.mjs";
import { after, before } from "../harness/server.mjs";

/** A step that takes longer than this has failed. */
const STEP_MS = 5_000;

/** Time for a server to take in bytes that it answers nothing to. */
const SETTLE_MS = 30;

/** Headers that say nothing about Engine.IO. `connection` is seen as `persistent`. */
const IGNORED_HEADERS = new Set(["date", "keep-alive", "connection", "content-length", "sec-websocket-accept"]);

/** Resolves to a list of `{ step, fields }`: what each step showed. `server` is from `startServer`. */
export async function play(script, server) {
  const player = new Player(server);
  const transcript = [];
  try {
    for (const [index, step] of script.steps.entries()) {
      const label = `${index + 1} ${describe(step)}`;
      const limit = step[0] === "closed" ? (step[2]?.within ?? 0) + STEP_MS : STEP_MS;
      const fields = await before(limit, player.take(step), "late");
      if (fields === "late") {
        transcript.push({ step: label, fields: { timeout: `nothing more within ${limit} ms`, ...player.partial } });
        break;
      }
      if (fields) transcript.push({ step: label, fields });
    }
  } finally {
    player.finish();
  }
  return transcript;
}

function describe(step) {
  const text = step.map((part) => (typeof part === "string" && !/[\x00-\x1f]/.test(part) ? part : JSON.stringify(part))).join(" ");
  return text.length > 90 ? `${text.slice(0, 87)}...` : text;
}

class Player {
  constructor(server) {
    this.port = server.port;
    this.path = server.path;
    this.eio = 4;
    this.names = new Map(); // session ids by name
    this.seen = new Map(); // real id -> what stands for it in a transcript
    this.pending = new Map();
    this.sockets = new Map();
    this.connections = new Map();
    this.partial = {};
  }

  take([verb, ...args]) {
    this.partial = {};
    switch (verb) {
      case "open": return this.open(...args);
      case "GET":
      case "POST":
      case "request": return this.answer(this.begin([verb, ...args]), args[0]);
      case "start": return void this.pending.set(args[0], this.begin(args[1]));
      case "finish": return this.answer(this.pending.get(args[0]));
      case "abort": return void this.pending.get(args[0]).abort();
      case "poll": return this.poll(args[0]);
      case "ws": return this.webSocket(args[0], { open: true, ...args[1] });
      case "upgrade": return this.webSocket(args[0], { sid: "$sid", ...args[1] });
      case "text": return this.sockets.get(args[0])?.text(this.fill(args[1]));
      case "binary": return this.sockets.get(args[0])?.binary(args[1]);
      case "frame": return this.sockets.get(args[0])?.frame({ ...args[1], payload: Buffer.from(args[1].payload ?? "") });
      case "write": return this.sockets.get(args[0])?.bytes(Buffer.from(args[1]));
      case "frames": return this.frames(...args);
      case "closed": return this.closed(...args);
      case "drop": return this.sockets.get(args[0])?.drop();
      case "bytes": return this.bytes(...args);
      case "settle": return this.settle();
      case "wait": return after(args[0]);
      default: throw new Error(`no such verb: ${verb}`);
    }
  }

  finish() {
    for (const { abort } of this.pending.values()) abort();
    for (const socket of this.sockets.values()) socket.drop();
    for (const { socket } of this.connections.values()) socket.destroy();
  }

  // -- steps over HTTP

  async open({ eio = 4, query = "", headers, as = "sid" } = {}) {
    this.eio = eio;
    const response = await exchange(this.port, { target: `${this.path}?EIO=${eio}&transport=polling${query}`, headers }).response;
    const sid = /\\?"sid\\?":\\?"([^"\\]+)/.exec(response.body?.toString() ?? "")?.[1];
    this.names.set(as, sid ?? "no-session");
    return this.showResponse(response);
  }

  /** Sends a GET, POST or request step without waiting for its answer. */
  begin([verb, ...args]) {
    switch (verb) {
      case "GET": return this.send("GET", args[0]);
      case "POST": return this.send("POST", { body: args[0], ...args[1] });
      default: return this.send(...args);
    }
  }

  send(method, { body, target, query = "", sid = "$sid", eio = this.eio, headers, conn } = {}) {
    const connection = conn && this.connection(conn);
    return exchange(this.port, {
      method,
      target: this.fill(target ?? `$path?EIO=${eio}&transport=polling&sid=${sid}${query}`),
      headers,
      body: this.fill(body),
      connection,
    });
  }

  async answer({ response }, method) {
    return this.showResponse(await response, method);
  }

  async poll(count) {
    const packets = [];
    const fields = (this.partial = {});
    while (packets.length < count) {
      const response = await this.send("GET").response;
      if (response.status !== 200) return Object.assign(fields, this.showResponse(response));
      packets.push(...splitPayload(response, this.eio));
      packets.forEach((packet, i) => (fields[`packet.${i + 1}`] = this.mask(packet)));
    }
    return fields;
  }

  async bytes(text, { method } = {}) {
    return this.showResponse(await sendBytes(this.port, this.fill(text), method));
  }

  async settle() {
    await exchange(this.port, { target: "/health/live" }).response;
    await after(SETTLE_MS);
  }

  connection(name) {
    if (!this.connections.has(name)) this.connections.set(name, openConnection(this.port));
    return this.connections.get(name);
  }

  // -- steps over WebSocket

  async webSocket(name, { open = false, eio = this.eio, sid, query = "", target, headers, method } = {}) {
    const url = this.fill(target ?? `$path?EIO=${eio}&transport=websocket${sid ? `&sid=${sid}` : ""}${query}`);
    const { response, socket } = await openWebSocket(this.port, url, { headers, method });
    if (socket) this.sockets.set(name, socket);
    const fields = this.showResponse(response);
    if (socket && open) Object.assign(fields, await this.frames(name, 1));
    return fields;
  }

  async frames(name, count) {
    const fields = (this.partial = {});
    for (let i = 1; i <= count; i++) {
      const frame = await this.sockets.get(name)?.next();
      fields[`frame.${i}`] = this.showFrame(frame);
      if (!frame) break;
    }
    return fields;
  }

  async closed(name, { within = STEP_MS } = {}) {
    const fields = (this.partial = {});
    const deadline = Date.now() + within;
    for (let i = 1; ; i++) {
      const frame = await before(Math.max(deadline - Date.now(), 0), this.sockets.get(name)?.next(), "open");
      if (frame === "open") {
        fields.end = "still open";
        return fields;
      }
      if (!frame) {
        fields.end = "closed";
        return fields;
      }
      fields[`frame.${i}`] = this.showFrame(frame);
    }
  }

  // -- what is written down

  showResponse(response, method) {
    if (response.error) return { answer: response.error };
    const fields = { status: response.status, persistent: response.persistent };
    const body = this.showBody(response); // first: it teaches the ids that a header may hold too
    for (const [name, value] of [...response.headers].sort()) {
      if (!IGNORED_HEADERS.has(name)) fields[`header.${name}`] = this.mask(value);
    }
    if (response.status === 101) {
      fields.accept = response.headers.get("sec-websocket-accept") === ACCEPT ? "right" : "wrong";
      delete fields.persistent;
      return fields;
    }
    // the length that a HEAD is told is that of a body it does not get
    if (response.headers.has("content-length") && method !== "HEAD") {
      // the length itself follows from the body, whose ids may be of another length
      const exact = Number(response.headers.get("content-length")) === response.body.length;
      fields["header.content-length"] = exact ? "of the body" : response.headers.get("content-length");
    }
    fields.body = body;
    return fields;
  }

  showBody(response) {
    if (response.headers.get("content-type") === "application/octet-stream") return `<${response.body.toString("hex")}>`;
    const text = response.headers.has("content-encoding") ? "(encoded)" : response.body.toString();
    // the length that EIO 3 puts before an open packet depends on the length of the id
    const [, before, length, rest] = /^(___eio\[\d*\]\(")?(\d+):(0\{.*)$/s.exec(text) ?? [];
    if (length === undefined) return this.mask(text);
    const packet = before ? JSON.parse(`"${rest.slice(0, -3)}"`) : rest;
    const right = packet.slice(0, Number(length)).endsWith("}");
    return this.mask(`${before ?? ""}${right ? "<length>" : length}:${rest}`);
  }

  showFrame(frame) {
    if (!frame) return "closed";
    const marks = `${frame.fin ? "" : " unfinished"}${frame.rsv ? ` rsv ${frame.rsv}` : ""}${frame.masked ? " masked" : ""}`;
    if (frame.kind === "text") return `text ${this.mask(frame.text)}${marks}`;
    if (frame.kind === "close") return `close ${frame.code}${marks}`;
    return `${frame.kind} <${frame.payload.toString("hex")}>${marks}`;
  }

  /** Puts names in the place of session ids, and a digest in the place of long texts. */
  mask(text) {
    for (const [, sid] of text.matchAll(/\\?"sid\\?":\\?"([^"\\]+)/g)) {
      if (!this.seen.has(sid)) this.seen.set(sid, `<sid ${this.seen.size + 1}>`);
    }
    for (const [sid, name] of this.seen) text = text.replaceAll(sid, name);
    if (text.length <= 300) return text;
    return `${text.slice(0, 40)}... (${text.length} characters, sha1 ${createHash("sha1").update(text).digest("hex").slice(0, 12)})`;
  }

  fill(text) {
    if (typeof text !== "string") return text;
    return text.replace(/\$([a-zA-Z]+)/g, (all, name) => (name === "path" ? this.path : (this.names.get(name) ?? all)));
  }
}

function splitPayload(response, eio) {
  if (eio === 4) return response.body.toString().split("\x1e");
  const packets = [];
  if (response.headers.get("content-type") === "application/octet-stream") {
    for (let at = 0, b = response.body; at < b.length; ) {
      const end = b.indexOf(0xff, at);
      const length = Number([...b.subarray(at + 1, end)].join(""));
      const packet = b.subarray(end + 1, end + 1 + length);
      packets.push(b[at] === 0 ? packet.toString() : `<${packet.toString("hex")}>`);
      at = end + 1 + length;
    }
    return packets;
  }
  for (let text = response.body.toString(); text; ) {
    const colon = text.indexOf(":");
    const length = Number(text.slice(0, colon));
    packets.push(text.slice(colon + 1, colon + 1 + length));
    text = text.slice(colon + 1 + length);
  }
  return packets;
}
