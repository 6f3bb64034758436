// A fake Webex cloud, as far as bots use it: catalog, devices, Mercury sockets, conversations and the public API, all on
// one TLS listener, told apart by the host that is asked for. Written from facts/links-and-fleet.md, section 2.1.
//
//   const cloud = await startWebex();
//   const bot = cloud.bot("ann");                // an identity: its token is bot.token
//   const message = bot.hear("hello");           // a person writes to it
//   await bot.answerTo(message, 5000);           // the text of its answer, or undefined
//
// What goes wrong is asked for: `bot.modes` (below) and the methods `mute`, `deafen`, `drain`, `drop`, `replace`, `forget`, `skip`,
// `move`. Everything that arrives is in `bot.seen`, in order.

import { randomUUID } from "node:crypto";
import { createServer } from "node:https";
import { WebSocketServer } from "ws";

import { makeAuthority } from "./authority.mjs";

export const HOSTS = {
  catalog: "u2c.wbx2.com",
  devices: "wdm-a.wbx2.com",
  conversations: "conv-a.wbx2.com",
  mercury: "mercury-connection-a.wbx2.com",
  api: "webexapis.com",
};

/** Where an account is that was moved to another region: its devices are here, and those elsewhere hear nothing. */
const OTHER_DEVICES = "wdm-r.wbx2.com";

const DEVICES_MAX = 100;
const BODY_MAX = 1_000_000;

/** How each identity is treated, unless its `modes` say otherwise. */
const MODES = {
  /** Frames: what the URL asks for ("asked", as the cloud), always "binary" or always "text". */
  frames: "asked",
  /** Whether `mercury.buffer_state` answers the authorization, and after how long. */
  bufferState: true,
  bufferStateMs: 0,
  /** How long the authorization may take. */
  authorizationMs: 30_000,
  /** Whether pings of the WebSocket are answered. */
  pongs: true,
  /** Whether `{type: "ping"}` is answered, and after how long. */
  jsonPongs: true,
  jsonPongMs: 0,
  /** How long an event that was not acknowledged is kept for the next connection. */
  redeliverMs: 15 * 60_000,
  /** After how long an acknowledgement counts. */
  ackMs: 0,
  /** How long `POST /messages` takes. */
  postMs: 0,
  /** Whether the bot's own messages come back as events. */
  ownMessages: true,
  /** A status that registrations are refused with, and its `Retry-After` in seconds. */
  registrations: 200,
  retryAfter: undefined,
  /** A status that lists of spaces and messages are refused with; `retryAfter` counts for them too. */
  lists: 200,
  /** The host and port of socket URLs; for bots that go there without a proxy: `localhost:${cloud.port}`. */
  socketHost: HOSTS.mercury,
};

/** Starts one on a free port. */
export async function startWebex({ hosts = [] } = {}) {
  const authority = makeAuthority(["*.wbx2.com", HOSTS.api, "localhost", "IP:127.0.0.1", ...hosts]);
  const bots = new Map();
  const connections = new Set();
  const server = createServer({ key: authority.key, cert: authority.cert, keepAliveTimeout: 0, requestTimeout: 0 });
  // Pongs are ours to send, or not.
  const sockets = new WebSocketServer({ noServer: true, autoPong: false, maxPayload: BODY_MAX, perMessageDeflate: false });

  server.on("secureConnection", (socket) => {
    connections.add(socket);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => connections.delete(socket));
  });
  server.on("request", (request, response) => {
    read(request).then(
      (body) => serve(request, body, (status, json, headers = {}) => {
        const text = json === undefined ? "" : JSON.stringify(json);
        response.writeHead(status, { "content-type": "application/json;charset=utf-8", "content-length": Buffer.byteLength(text), ...headers });
        response.end(text);
      }),
      () => response.destroy(),
    );
  });
  server.on("upgrade", (request, socket, head) => {
    const url = new URL(request.url, "https://mercury");
    const [, id] = /^\/v1\/apps\/wx2\/registrations\/([^/]+)\/messages$/.exec(url.pathname) ?? [];
    const bot = [...bots.values()].find((bot) => bot.registrations.has(id));
    const device = bot?.registrations.get(id);
    const given = request.headers.authorization;
    const refused = !device ? 404 : given !== undefined && given !== `Bearer ${bot.token}` ? 401 : bot.refuseSockets;
    if (refused) return socket.end(`HTTP/1.1 ${refused} Refused\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`);
    sockets.handleUpgrade(request, socket, head, (socket) => bot.accept(device, socket, url.searchParams));
  });

  function serve(request, body, answer) {
    const host = (request.headers.host ?? "").replace(/:\d+$/, "");
    const url = new URL(request.url, `https://${host}`);
    const bot = bots.get(/^Bearer (.*)$/.exec(request.headers.authorization ?? "")?.[1]);
    if (!bot) return answer(401, { message: "The request requires a valid access token." });
    bot.seen.push({ what: "request", host, method: request.method, path: url.pathname, query: url.search, at: Date.now() });
    bot.happened();
    const service = { [HOSTS.catalog]: catalog, [HOSTS.devices]: devices, [OTHER_DEVICES]: devices, [HOSTS.conversations]: conversations, [HOSTS.api]: api }[host];
    if (!service) return answer(404, { message: `there is no ${host}` });
    service({ bot, host, method: request.method, path: url.pathname, query: url.searchParams, body, answer });
  }

  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: server.address().port,
    caFile: authority.caFile,
    /** An identity with this name and a token of its own. */
    bot(name, modes = {}) {
      const bot = new Bot(name, modes);
      bots.set(bot.token, bot);
      return bot;
    },
    async stop() {
      for (const bot of bots.values()) bot.end();
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of connections) socket.destroy();
      await closed;
      authority.clear();
    },
  };
}

/** A bot of the cloud: its devices, its sockets, its spaces. */
class Bot {
  constructor(name, modes) {
    this.name = name;
    this.id = randomUUID();
    this.token = `token-${name}-${randomUUID()}`;
    this.email = `${name}@webex.bot`;
    this.modes = { ...MODES, ...modes };
    this.seen = [];
    /** Devices by the id in their URL; the registration is the same id. */
    this.registrations = new Map();
    this.rooms = new Map();
    this.messages = new Map();
    this.actions = new Map();
    this.answers = [];
    this.registered = 0;
    this.region = HOSTS.devices;
    this.refuseSockets = undefined;
    this.waiting = new Set();
    this.timers = new Set();
  }

  /** A person writes to the bot, in a space of the two unless `room` says in which. The message, with both its ids. In a
   * group a bot is told of what mentions it, and of nothing else. */
  hear(text, { person = "paula@example.com", room, mentioned = true } = {}) {
    const space = room ?? this.direct(person);
    const message = this.keep({ room: space, text, email: person, own: false, mentioned });
    if (mentioned || space.direct) this.tell("post", message);
    return message;
  }

  /** How often spaces and their messages were listed: `{ rooms, messages }`. */
  listings() {
    const of = (path) => this.seen.filter((one) => one.method === "GET" && one.path === path).length;
    return { rooms: of("/v1/rooms"), messages: of("/v1/messages") };
  }

  /** A person shares a file with the bot: two events, of which the second makes it a message. */
  share(text, { person = "paula@example.com" } = {}) {
    const message = this.keep({ room: this.direct(person), text, email: person, own: false, mentioned: true });
    this.tell("share", message);
    const files = { items: [{ malwareQuarantineState: "safe" }] };
    this.tell("update", message, { id: randomUUID(), object: { objectType: "content", contentCategory: "documents", files } });
    return message;
  }

  /** A person presses a button of a card. */
  press(inputs, { person = "paula@example.com" } = {}) {
    const message = this.keep({ room: this.direct(person), text: "", email: person, own: false, mentioned: true });
    this.messages.delete(message.uuid);
    this.actions.set(message.uuid, { ...message, inputs });
    this.tell("cardAction", message);
    return message;
  }

  /** The space of the bot and this person. */
  direct(person) {
    return [...this.rooms.values()].find((room) => room.direct === person) ?? this.space({ direct: person, title: person });
  }

  /** A new space; a group unless `direct` names the other one in it. */
  space({ title, direct } = {}) {
    const room = { uuid: randomUUID(), title, direct, activity: Date.now() };
    this.rooms.set(room.uuid, room);
    return room;
  }

  keep({ room, text, email, own, mentioned, parent }) {
    const uuid = randomUUID();
    room.activity = Date.now();
    const message = { uuid, id: publicId("MESSAGE", uuid), room, text, email, own, mentioned, parent, created: Date.now() };
    this.messages.set(uuid, message);
    return message;
  }

  /** Tells every device that is routed to of an activity. */
  tell(verb, message, more = {}) {
    const tags = message.room.direct ? ["ONE_ON_ONE"] : [];
    const activity = {
      id: message.uuid, objectType: "activity", verb, published: new Date(message.created).toISOString(),
      actor: { id: message.own ? this.id : randomUUID(), objectType: "person", type: message.own ? "BOT" : "PERSON", emailAddress: message.email, displayName: message.email },
      object: { objectType: "comment", content: "eyJhbGciOiJkaXIi.encrypted" },
      target: { id: message.room.uuid, objectType: "conversation", tags, url: `https://${HOSTS.conversations}/conversation/api/v1/conversations/${message.room.uuid}` },
      ...(message.parent ? { parent: { type: "reply", id: message.parent } } : {}),
      ...more,
    };
    const data = { eventType: "conversation.activity", activity };
    this.publish(data);
  }

  /** Somebody types: an event that is of no use to a bot. */
  typing() {
    this.publish({ eventType: "status.start_typing", actor: { id: randomUUID() } });
  }

  publish(data) {
    for (const device of this.registrations.values()) {
      if (device.host === this.region && device.hears(data)) device.put({ id: randomUUID(), data });
    }
  }

  /** Resolves to the text of the bot's answer to a message; undefined when it has not come within `ms`. */
  async answerTo(message, ms) {
    const find = () => this.answers.find((answer) => answer.parent === message.uuid || answer.parent === message.id || answer.text.includes(message.text));
    await this.until(find, ms);
    return find()?.text;
  }

  /** Resolves to what `condition` returns as soon as that is something; to undefined after `ms`. */
  until(condition, ms) {
    return new Promise((resolve) => {
      const waiter = { condition, resolve: (found) => { clearTimeout(waiter.timer); this.waiting.delete(waiter); resolve(found); } };
      waiter.timer = setTimeout(() => waiter.resolve(undefined), ms);
      this.waiting.add(waiter);
      this.happened();
    });
  }

  happened() {
    for (const waiter of [...this.waiting]) {
      const found = waiter.condition();
      if (found) waiter.resolve(found);
    }
  }

  sockets() {
    return [...this.registrations.values()].flatMap((device) => [...device.sockets]);
  }

  /** Sockets that have authorised themselves. */
  ready() {
    return this.sockets().filter((socket) => socket.ready);
  }

  /** Events of the devices there are now stop, everything else goes on; with `of(data)`, those events only. */
  mute(of = () => true) {
    for (const device of this.registrations.values()) device.hears = (data) => !of(data);
  }

  /** The sockets there are now say nothing any more, and hear nothing: as behind a NAT that has forgotten them. */
  deafen() {
    for (const socket of this.sockets()) socket.deaf = true;
  }

  /** The account moves to another region: the sockets stay as they are, and hear nothing. */
  move() {
    this.region = OTHER_DEVICES;
  }

  /** Announces the end of every socket; the next one on the same device takes its place, and it is closed with 4001. After
   * `ms` it is closed so in any case. */
  drain(ms = 30_000) {
    for (const socket of this.ready()) {
      socket.draining = true;
      socket.envelope({ id: randomUUID(), type: "shutdown", data: { eventType: "mercury.shutdown" } });
      this.later(ms, () => socket.close(4001, "Replaced during shutdown"));
    }
  }

  /** Sockets end without a word. */
  drop(of = () => true) {
    for (const socket of this.sockets().filter(of)) socket.terminate();
  }

  /** Sockets are closed because another connection took their place, or with another code. */
  replace(code = 4000, reason = "Replaced") {
    for (const socket of this.sockets()) socket.close(code, reason);
  }

  /** The devices are gone: their sockets are answered with 404. */
  forget() {
    for (const device of [...this.registrations.values()]) this.remove(device);
  }

  /** The next frame of each socket is left out: a gap in the numbers. */
  skip() {
    for (const socket of this.sockets()) socket.skip = true;
  }

  remove(device) {
    this.registrations.delete(device.id);
    // Nobody says so to the sockets: they hear nothing any more.
    for (const socket of device.sockets) this.later(30_000, () => socket.terminate());
    this.orphans = [...(this.orphans ?? []), ...device.sockets];
  }

  register(given, host) {
    this.registered += 1;
    const device = new Device(this, given, host);
    this.registrations.set(device.id, device);
    this.happened();
    return device;
  }

  accept(device, socket, query) {
    const text = this.modes.frames === "text" || (this.modes.frames === "asked" && query.get("outboundWireFormat") === "text");
    let number = 0;
    socket.since = Date.now();
    socket.ready = false;
    socket.envelope = (envelope) => {
      number += 1;
      if (socket.deaf) return;
      if (socket.skip) {
        socket.skip = false;
        return;
      }
      const whole = { timestamp: Date.now(), trackingId: `fake_${randomUUID()}`, sequenceNumber: number, filterMessage: false, headers: {}, ...envelope };
      const bytes = JSON.stringify(whole);
      if (socket.readyState === socket.OPEN) socket.send(text ? bytes : Buffer.from(bytes), { binary: !text });
    };
    this.seen.push({ what: "socket", device: device.id, query: query.toString(), at: Date.now() });
    device.sockets.add(socket);
    const authorization = this.later(this.modes.authorizationMs, () => socket.close(1008, "authorization timeout"));
    socket.on("ping", (payload) => this.modes.pongs && !socket.deaf && socket.pong(payload));
    socket.on("error", () => socket.terminate());
    socket.on("close", (code) => {
      clearTimeout(authorization);
      device.sockets.delete(socket);
      this.seen.push({ what: "closed", device: device.id, code, at: Date.now() });
      this.happened();
    });
    socket.on("message", (bytes) => {
      if (socket.deaf) return;
      const frame = parse(bytes);
      this.seen.push({ what: "frame", device: device.id, frame, at: Date.now() });
      if (frame?.type === "authorization" && !socket.ready) {
        clearTimeout(authorization);
        if (frame.data?.token !== `Bearer ${this.token}`) return socket.close(4401, "unauthorized");
        this.admit(device, socket, query);
      } else if (!socket.ready) {
        socket.close(1008, "authorization expected");
      } else if (frame?.type === "ping") {
        const { jsonPongs, jsonPongMs } = this.modes;
        const pong = { id: frame.id, type: "pong", data: { eventType: "pong", wsWriteTimestamp: Date.now() } };
        if (jsonPongs) this.later(jsonPongMs, () => socket.envelope(pong));
      } else if (frame?.type === "ack") {
        this.later(this.modes.ackMs, () => device.acknowledge(String(frame.messageId)));
      }
      this.happened();
    });
  }

  admit(device, socket, query) {
    const many = query.get("multipleConnections") === "true";
    for (const other of device.sockets) {
      if (other === socket || many) continue;
      other.close(...(other.draining ? [4001, "Replaced during shutdown"] : [4000, "Replaced"]));
    }
    socket.ready = true;
    if (this.modes.bufferState) {
      const state = { id: randomUUID(), data: { eventType: "mercury.buffer_state", bufferState: {} } };
      this.later(this.modes.bufferStateMs, () => socket.envelope(state));
    }
    device.redeliver(socket);
    this.happened();
  }

  /** A timer that ends with the cloud; at once when there is nothing to wait for. */
  later(ms, act) {
    if (ms === 0) return void act();
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      act();
    }, ms);
    this.timers.add(timer);
    return timer;
  }

  end() {
    this.timers.forEach(clearTimeout);
    for (const waiter of [...this.waiting]) waiter.resolve(undefined);
    for (const socket of [...this.sockets(), ...(this.orphans ?? [])]) socket.terminate();
  }
}

/** A registered device. */
class Device {
  constructor(bot, given, host) {
    this.bot = bot;
    this.id = randomUUID();
    this.host = host;
    this.given = given;
    this.hears = () => true;
    this.sockets = new Set();
    this.unacknowledged = [];
  }

  describe() {
    const socket = `wss://${this.bot.modes.socketHost}/v1/apps/wx2/registrations/${this.id}/messages`;
    const url = `https://${this.host}/wdm/api/v1/devices/${this.id}`;
    return { ...this.given, url, webSocketUrl: socket, services: {}, modificationTime: new Date().toISOString() };
  }

  put(envelope) {
    this.unacknowledged.push({ envelope, at: Date.now() });
    for (const socket of this.sockets) if (socket.ready) socket.envelope(envelope);
  }

  /** By the id of the envelope, of the activity, or the public id of the message. */
  acknowledge(id) {
    const plain = id.replace(/=+$/, "");
    const meant = ({ envelope }) => {
      const uuid = envelope.data.activity?.id;
      return uuid === undefined ? envelope.id === plain : [envelope.id, uuid, publicId("MESSAGE", uuid), publicId("ATTACHMENT_ACTION", uuid)].includes(plain);
    };
    this.unacknowledged = this.unacknowledged.filter((kept) => !meant(kept));
    this.bot.happened();
  }

  redeliver(socket) {
    const since = Date.now() - this.bot.modes.redeliverMs;
    this.unacknowledged = this.unacknowledged.filter(({ at }) => at >= since);
    for (const { envelope } of this.unacknowledged) socket.envelope(envelope);
  }
}

function catalog({ bot, path, answer }) {
  if (path !== "/u2c/api/v1/catalog") return answer(404, { message: "no such resource" });
  answer(200, { serviceLinks: { wdm: `https://${bot.region}/wdm/api/v1`, conversation: `https://${HOSTS.conversations}/conversation/api/v1` } });
}

function devices({ bot, host, method, path, body, answer }) {
  const [, id] = /^\/wdm\/api\/v1\/devices(?:\/([^/]+))?$/.exec(path) ?? [path];
  const device = id && bot.registrations.get(id);
  if (path === "/wdm/api/v1/devices" && method === "GET") {
    const here = [...bot.registrations.values()].filter((device) => device.host === host);
    return answer(200, { devices: here.map((device) => device.describe()) });
  }
  if (path === "/wdm/api/v1/devices" && method === "POST") {
    const { registrations, retryAfter } = bot.modes;
    if (registrations !== 200) return answer(registrations, { message: "refused" }, retryAfter ? { "retry-after": String(retryAfter) } : {});
    if (bot.registrations.size >= DEVICES_MAX) return answer(403, { message: "User has excessive device registrations" });
    return answer(200, bot.register(body ?? {}, host).describe());
  }
  if (!device) return answer(404, { message: "device not found" });
  if (method === "DELETE") {
    bot.remove(device);
    bot.happened();
    return answer(204);
  }
  if (method === "PUT") device.given = { ...device.given, ...body };
  if (method === "PUT" || method === "GET") return answer(200, device.describe());
  answer(405, { message: "not allowed" });
}

/** Activities by their UUID: what bots ask for to learn the public id. */
function conversations({ bot, method, path, answer }) {
  const [, kind, uuid] = /^\/conversation\/api\/v1\/(messages|attachment\/actions)\/([^/]+)$/.exec(path) ?? [];
  const found = kind === "messages" ? bot.messages.get(uuid) : bot.actions.get(uuid);
  if (method !== "GET" || !found) return answer(404, { message: "activity not found" });
  answer(200, { id: publicId(kind === "messages" ? "MESSAGE" : "ATTACHMENT_ACTION", uuid) });
}

function api({ bot, method, path, query, body, answer }) {
  const [, resource, id] = /^\/v1\/(people|messages|rooms|attachment\/actions)(?:\/([^/]+))?$/.exec(path) ?? [];
  const uuid = id && uuidOf(id);
  const call = `${method} ${resource}${id ? "/id" : ""}`;
  if (call === "GET people/id") {
    return answer(200, { id: publicId("PEOPLE", bot.id), displayName: bot.name, emails: [bot.email], type: "bot", avatar: "https://example.com/a.png" });
  }
  if (call === "GET messages/id") {
    const message = bot.messages.get(uuid);
    return message ? answer(200, describe(bot, message)) : answer(404, { message: "not found" });
  }
  if (call === "DELETE messages/id") {
    const message = bot.messages.get(uuid);
    // That is an activity as well.
    if (message) message.room.activity = Date.now();
    return answer(bot.messages.delete(uuid) ? 204 : 404);
  }
  if (call === "GET attachment/actions/id") {
    const action = bot.actions.get(uuid);
    return action ? answer(200, { ...describe(bot, action), type: "submit", inputs: action.inputs, messageId: action.id }) : answer(404, { message: "not found" });
  }
  if (call === "POST messages") return void bot.later(bot.modes.postMs, () => post(bot, body ?? {}, answer));
  const { lists, retryAfter } = bot.modes;
  if (["GET messages", "GET rooms"].includes(call) && lists !== 200) {
    return answer(lists, { message: "refused" }, retryAfter ? { "retry-after": String(retryAfter) } : {});
  }
  if (call === "GET messages") return list(bot, query, answer);
  if (call === "GET rooms") {
    const of = query.get("type");
    const rooms = [...bot.rooms.values()].filter((room) => !of || of === (room.direct ? "direct" : "group"));
    return page("rooms", rooms.sort((a, b) => b.activity - a.activity).map(describeRoom), query, 100, answer);
  }
  if (call === "POST rooms") return answer(200, describeRoom(bot.space({ title: body?.title })));
  const room = resource === "rooms" && bot.rooms.get(uuid);
  if (room && method === "GET") return answer(200, describeRoom(room));
  if (room && method === "DELETE") return answer(bot.rooms.delete(uuid) ? 204 : 404);
  answer(404, { message: "not found" });
}

/** The bot says something. */
function post(bot, body, answer) {
  const room = body.toPersonEmail ? bot.direct(body.toPersonEmail) : bot.rooms.get(uuidOf(body.roomId ?? ""));
  if (!room) return answer(404, { message: "Could not find a room with provided ID." });
  const text = body.markdown ?? body.text ?? "";
  const message = bot.keep({ room, text, email: bot.email, own: true, mentioned: false, parent: body.parentId });
  bot.answers.push({ ...message, at: Date.now() });
  answer(200, describe(bot, message));
  if (bot.modes.ownMessages) bot.tell("post", message);
  bot.happened();
}

/** The newest first; in a group a bot may only list what mentions it. */
function list(bot, query, answer) {
  const room = bot.rooms.get(uuidOf(query.get("roomId") ?? ""));
  if (!room) return answer(404, { message: "Could not find a room with provided ID." });
  const mentions = query.get("mentionedPeople") === "me";
  if (!room.direct && !mentions) return answer(403, { message: "Failed to get messages: bots may only list mentions." });
  const before = query.has("before") ? Date.parse(query.get("before")) : Infinity;
  const found = [...bot.messages.values()]
    .filter((message) => message.room === room && message.created < before && (!mentions || message.mentioned))
    .reverse();
  page("messages", found.map((message) => describe(bot, message)), query, 50, answer);
}

/** A page of a list, and where the next one is (RFC 8288). */
function page(resource, items, query, most, answer) {
  const [from, max] = [Number(query.get("cursor") ?? 0), Number(query.get("max") ?? most)];
  const next = new URLSearchParams(query);
  next.set("cursor", String(from + max));
  const link = from + max < items.length ? { link: `<https://${HOSTS.api}/v1/${resource}?${next}>; rel="next"` } : {};
  answer(200, { items: items.slice(from, from + max) }, link);
}

function describe(bot, { id, room, text, email, own, parent, created }) {
  const person = own ? publicId("PEOPLE", bot.id) : publicId("PEOPLE", email);
  return {
    id, roomId: publicId("ROOM", room.uuid), roomType: room.direct ? "direct" : "group", text, personId: person, personEmail: email,
    created: new Date(created).toISOString(), ...(parent ? { parentId: parent } : {}),
  };
}

function describeRoom({ uuid, title, direct, activity }) {
  return { id: publicId("ROOM", uuid), title, type: direct ? "direct" : "group", isLocked: false, lastActivity: new Date(activity).toISOString() };
}

export function publicId(kind, uuid) {
  return Buffer.from(`ciscospark://us/${kind}/${uuid}`).toString("base64").replace(/=+$/, "");
}

export function uuidOf(id) {
  return Buffer.from(id, "base64").toString().split("/").at(-1);
}

async function read(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > BODY_MAX) throw new Error("too large");
    chunks.push(chunk);
  }
  return parse(Buffer.concat(chunks));
}

function parse(bytes) {
  try {
    return JSON.parse(bytes.toString());
  } catch {
    return undefined;
  }
}
