// The chat of ../chat-python once more, behind plain node:http: one route for Bowline, four for the page, no packages.

import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const PAGE = new URL("../chat-page/", import.meta.url);
const FILES = {
  "/": ["index.html", "text/html"],
  "/chat.js": ["chat.js", "text/javascript"],
  "/chat.css": ["chat.css", "text/css"],
  "/socket.io.js": ["node_modules/socket.io-client/dist/socket.io.esm.min.js", "text/javascript"],
};
const ROOMS = ["lounge", "kitchen", "garden"];
const HISTORY_MAX = 100;
/** Where Bowline listens for operators; from another machine it wants a token. */
const ADMIN = process.env.BOWLINE_ADMIN ?? "http://127.0.0.1:8001";
const BODY_MAX = 2_000_000;

const key = Buffer.from(readFileSync(new URL("secret", import.meta.url), "utf8").trim().replace(/^whsec_/, ""), "base64");
const people = new Map(); // sid -> { name, room }
const away = new Map(); // sid -> since when
/** Longer than Bowline keeps a place (`continuity.window`). A Bowline that was killed could not say who has left. */
const AWAY_MAX_MS = 300_000;
const history = Object.fromEntries(ROOMS.map((room) => [room, []]));

// What is to happen when somebody connects, sends an event, is away, is back, is gone. docs/backend.md has all keys.

function connect({ auth }) {
  const name = typeof auth?.name === "string" ? auth.name.trim() : "";
  if (!name || name.length > 20) return { allow: false, message: "Please say a name of up to 20 letters.", data: { code: "name-missing" } };
  return { allow: true, data: { name } };
}

const events = {
  enter({ sid, data: { name }, rooms }, room) {
    if (!ROOMS.includes(room)) return error("unknown-room", "there is no such room");
    const data = { name, room };
    people.set(sid, data);
    const leave = rooms.filter((other) => other.startsWith("room:") && other !== `room:${room}`);
    return { data, join: [`room:${room}`], leave, emit: [peopleToAll()], ack: [{}] };
  },
  history: ({ data: { room } }) => ({ ack: [{ messages: history[room] ?? [], people: whoIsWhere() }] }),
  say({ data: { name, room } }, text) {
    if (!room) return error("no-room", "please enter a room first");
    if (typeof text !== "string" || !text.trim() || text.length > 2000) return error("bad-text", "a message has 1 to 2000 letters");
    const message = { id: number(), room, name, text: text.trim(), at: Date.now() };
    if (history[room].push(message) > HISTORY_MAX) history[room].shift();
    return { emit: [{ to: [`room:${room}`], event: "message", args: [message] }], ack: [{ id: message.id }] };
  },
  // To the others in the room: each socket is a room of its own too, by its sid.
  typing: ({ sid, data: { name, room } }, on) =>
    room ? { emit: [{ to: [`room:${room}`], except: [sid], event: "typing", args: [{ room, name, on: on === true }] }] } : {},
};

/** Somebody has lost the connection, has found it again, or is gone. Nobody waits for the answer: the others are told by Bowline's API. */
async function presence({ type, sid }) {
  away.delete(sid);
  if (type === "away") away.set(sid, Date.now());
  const known = people.has(sid);
  if (type === "disconnect") people.delete(sid);
  if (!known) return {};
  const post = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(peopleToAll()), signal: AbortSignal.timeout(3000) };
  await fetch(`${ADMIN}/api/v1/emit`, post).then((response) => response.arrayBuffer()).catch((error) => console.error("the others do not know yet:", error));
  return {};
}

function answer(call) {
  if (call.type === "connect") return connect(call);
  if (["away", "back", "disconnect"].includes(call.type)) return presence(call);
  if (call.type !== "event") return {};
  // What was answered as `data` comes back with each event: so an app that was started anew knows its people again.
  if (call.data.room && !people.has(call.sid)) people.set(call.sid, call.data);
  return Object.hasOwn(events, call.event) ? events[call.event](call, call.args[0]) : error("unknown-event", `there is no event ${call.event}`);
}

const peopleToAll = () => ({ to: "all", event: "people", args: [whoIsWhere()] });

function whoIsWhere() {
  for (const [sid, since] of away) if (Date.now() - since > AWAY_MAX_MS) away.delete(sid) && people.delete(sid);
  const there = (room) => [...people].filter(([, person]) => person.room === room).map(([sid, { name }]) => ({ name, away: away.has(sid) }));
  return { version: number(), rooms: Object.fromEntries(ROOMS.map((room) => [room, there(room)])) };
}

let lastNumber = 0;
/** Numbers that grow, over restarts too. */
const number = () => (lastNumber = Math.max(lastNumber + 1, Date.now()));

/** In the shape in which Bowline tells clients of its own troubles. */
const error = (code, message) => ({ ack: [{ error: { code, message, retry: false } }] });

/** Whether Bowline has signed this, as in the Standard Webhooks specification, within the last five minutes. */
function signed(headers, body) {
  const { "webhook-id": id, "webhook-timestamp": time, "webhook-signature": signatures = "" } = headers;
  const wanted = createHmac("sha256", key).update(`${id}.${time}.${body}`).digest();
  const fits = (signature) => signature.length === wanted.length && timingSafeEqual(signature, wanted);
  return Math.abs(Date.now() / 1000 - Number(time)) < 300 && signatures.split(" ").some((text) => fits(Buffer.from(text.replace(/^v1,/, ""), "base64")));
}

async function read(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > BODY_MAX) throw new Error("too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

const server = createServer(async (request, response) => {
  const send = (status, type, body) => response.writeHead(status, { "content-type": `${type}; charset=utf-8` }).end(body);
  try {
    if (request.method === "POST" && request.url === "/bowline") {
      const body = await read(request);
      if (!signed(request.headers, body)) return send(401, "text/plain", "the signature is wrong");
      return send(200, "application/json", JSON.stringify(await answer(JSON.parse(body))));
    }
    if (request.url === "/config.json") {
      return send(200, "application/json", JSON.stringify({ bowline: process.env.BOWLINE_URL ?? "http://127.0.0.1:8000", rooms: ROOMS }));
    }
    const [file, type] = Object.hasOwn(FILES, request.url) ? FILES[request.url] : [];
    return file ? send(200, type, readFileSync(new URL(file, PAGE))) : send(404, "text/plain", "not found");
  } catch (error) {
    console.error(error);
    return response.headersSent ? response.destroy() : send(500, "text/plain", "failed");
  }
});

// Longer than Bowline keeps idle connections (60 s), so that none closes under a request.
server.keepAliveTimeout = 75_000;
const port = Number(process.env.CHAT_PORT ?? 5050);
server.listen(port, "127.0.0.1", () => console.log(`the chat is at http://127.0.0.1:${port}/`));
