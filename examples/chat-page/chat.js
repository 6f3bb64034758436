// The page of the chat. It uses the official client and knows nothing of Bowline.

import { io } from "./socket.io.js";

const { bowline, rooms } = await (await fetch("config.json")).json();
const $ = (id) => document.getElementById(id);

/** How long the app may take to answer, the gateway's own patience included. */
const ANSWER_MS = 8000;
/** Somebody who typed this long ago has stopped. */
const TYPING_MS = 4000;

let me, room, socket, retry;
/** What is shown: messages by id, who types, which list of people is the newest. */
const shown = new Map();
const typists = new Map();
let people = { version: 0, rooms: {} };

// ── coming in ──────────────────────────────────────────────────────────────────────────────────

$("name").value = sessionStorage.getItem("name") ?? "";

$("join").addEventListener("submit", (event) => {
  event.preventDefault();
  me = $("name").value.trim();
  $("refused").textContent = "";
  $("join").querySelector("button").disabled = true;
  connect();
});
// Not before: the browser would send the form by itself.
$("join").querySelector("button").disabled = false;

function connect() {
  socket?.close();
  socket = io(bowline, { auth: { name: me } });

  socket.on("connect", async () => {
    sessionStorage.setItem("name", me);
    $("door").hidden = true;
    $("chat").hidden = false;
    online(socket.io.engine.transport);
    socket.io.engine.once("upgrade", online);
    // Who was away for a moment is in the room still, and has got all that was said there. Otherwise the socket is a new one, and in no room.
    if (!socket.recovered) await enter(room ?? rooms[0]);
    $("text").focus();
  });

  socket.on("connect_error", (error) => {
    // Refused by the app: there is nothing to try again. Without `data` the network is to blame.
    if (error.data?.code?.startsWith("name-")) return leave(error.message);
    state("failed", error.data ? "the app is away, trying again" : "no connection, trying again");
    $("refused").textContent = `${words(error.message)}. Trying again…`;
    // The client comes back by itself after an outage, but not after a refusal.
    if (!socket.active) retry = setTimeout(() => socket.connect(), 1000 + 1000 * Math.random());
  });

  socket.on("disconnect", (reason) => {
    if (reason === "io server disconnect") return leave("The server has closed this connection.");
    if (socket.active) state("waiting", "connection lost, trying again");
  });

  socket.on("people", showPeople);
  socket.on("message", showMessage);
  socket.on("typing", ({ room: where, name, on }) => where === room && name !== me && type(name, on));
  socket.on("notice", showNotice);
}

// Who closes the page says so, and is gone at once. Who only loses the connection is away, and may come back.
addEventListener("pagehide", () => socket?.disconnect());
addEventListener("pageshow", ({ persisted }) => persisted && socket?.connect());

function leave(why) {
  clearTimeout(retry);
  socket.close();
  $("chat").hidden = true;
  $("door").hidden = false;
  $("join").querySelector("button").disabled = false;
  $("refused").textContent = why;
}

function online({ name }) {
  state("connected", `connected over ${name === "websocket" ? "WebSocket" : name}`);
}

function state(is, words) {
  $("state").dataset.is = is;
  $("state").textContent = words;
  $("compose").querySelector("button").disabled = is !== "connected";
}

// ── rooms ──────────────────────────────────────────────────────────────────────────────────────

async function enter(wanted) {
  if (wanted !== room) {
    room = wanted;
    shown.clear();
    typists.clear();
    $("log").replaceChildren();
    $("room").textContent = room;
    $("text").placeholder = `Message to #${room}`;
  }
  try {
    await ask("enter", room);
    // Only now, when this socket is in the room: what is said meanwhile comes twice and not never.
    const { messages, people } = await ask("history");
    messages.forEach(showMessage);
    showPeople(people);
    showEmpty();
  } catch (error) {
    showNotice(`#${room} could not be entered: ${words(error.message)}`);
  }
}

/** Emits and waits for the ack; an `error` in it, from the app or from the gateway, is thrown. */
async function ask(event, ...args) {
  const answer = await socket.timeout(ANSWER_MS).emitWithAck(event, ...args).catch(() => {
    return { error: { code: "no-answer", message: "There was no answer." } };
  });
  if (answer?.error) throw Object.assign(new Error(), answer.error);
  return answer;
}

/** A sentence without its end, to go on with. */
const words = (sentence) => sentence.replace(/\.$/, "");

// ── messages ───────────────────────────────────────────────────────────────────────────────────

$("compose").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || !socket.connected) return;
  $("text").value = "";
  stopTyping();
  say(text);
});

async function say(text) {
  const bubble = message({ name: me, text, at: Date.now() });
  // Most answers are here before anybody would see this.
  const late = setTimeout(() => {
    bubble.classList.add("pending");
    append(bubble);
  }, 300);
  try {
    await ask("say", text);
    bubble.remove();
  } catch (error) {
    bubble.classList.replace("pending", "failed") || bubble.classList.add("failed");
    const again = element("button", { textContent: "Try again" });
    again.onclick = () => (bubble.remove(), say(text));
    // Who has not answered in time may have heard it all the same.
    const sent = ["no-answer", "backend-timeout"].includes(error.code) ? "Perhaps not sent" : "Not sent";
    bubble.append(element("footer", {}, `${sent}: ${words(error.message)}.`, again));
    append(bubble);
  } finally {
    clearTimeout(late);
  }
}

function showMessage(given) {
  if (given.room !== room || shown.has(given.id)) return;
  $("log").querySelector(".empty")?.remove();
  const entry = message(given);
  shown.set(given.id, entry);
  type(given.name, false);
  // Ids grow: a message from the history goes before what has come meanwhile.
  const next = [...$("log").children].find((other) => Number(other.dataset.id) > given.id);
  append(entry, next);
}

function message({ id = Infinity, name, text, at }) {
  const time = new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const entry = element("li", { className: "message" },
    element("header", {}, element("b", { textContent: name }), element("time", { textContent: time })),
    face(name),
    element("p", { textContent: text }));
  Object.assign(entry.dataset, { id, name, at });
  entry.classList.toggle("mine", name === me);
  return entry;
}

/** Whether the reader is at the end of the log, and wants to stay there. */
let atEnd = true;
const toEnd = () => ($("log").scrollTop = $("log").scrollHeight);
$("log").addEventListener("scroll", () => (atEnd = $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 80));
new ResizeObserver(() => atEnd && toEnd()).observe($("log"));

function append(entry, before = null) {
  $("log").insertBefore(entry, before);
  for (const one of [entry, entry.nextElementSibling]) {
    const previous = one?.previousElementSibling;
    const same = previous?.dataset.name === one?.dataset.name && one?.dataset.at - previous?.dataset.at < 300_000;
    one?.classList.toggle("more", Boolean(previous?.dataset.name && same));
  }
  if (atEnd || entry.classList.contains("mine")) toEnd();
}

function showNotice(text) {
  append(element("li", { className: "notice", textContent: typeof text === "string" ? text : JSON.stringify(text) }));
}

function showEmpty() {
  if ($("log").children.length > 0) return;
  const knot = document.querySelector(".rope").cloneNode(true);
  $("log").append(element("li", { className: "empty" }, knot, element("p", { textContent: `Nobody has said anything in #${room} yet.` })));
}

// ── people ─────────────────────────────────────────────────────────────────────────────────────

function showPeople(given) {
  // Two answers of the app may overtake each other.
  if (given.version < people.version) return;
  people = given;
  // A tab that is open twice is one person, who is away when both are.
  const there = (name) => [...new Set((people.rooms[name] ?? []).map((person) => person.name))];
  const here = there(room);
  const present = new Set((people.rooms[room] ?? []).filter(({ away }) => !away).map((person) => person.name));
  const away = here.length - present.size;
  $("count").textContent = (here.length === 1 ? "1 person" : `${here.length} people`) + (away > 0 ? `, ${away} away` : "");
  $("rooms").replaceChildren(...rooms.map((name) => {
    const count = there(name).length;
    const button = element("button", { onclick: () => enter(name) }, name, element("b", { textContent: count || "" }));
    if (name === room) button.setAttribute("aria-current", "true");
    return element("li", {}, button);
  }));
  const names = here.toSorted((a, b) => (b === me) - (a === me) || present.has(b) - present.has(a) || a.localeCompare(b));
  $("people").replaceChildren(...names.map((name) => {
    const entry = element("li", { title: name }, face(name), element("span", { textContent: name }));
    entry.classList.toggle("away", !present.has(name));
    if (name === me || !present.has(name)) entry.append(element("small", { textContent: name === me ? "you" : "away" }));
    return entry;
  }));
}

function face(name) {
  let hue = 0;
  for (const letter of name) hue = (hue * 31 + letter.codePointAt(0)) % 360;
  const circle = element("span", { className: "face", textContent: [...name][0], ariaHidden: "true" });
  circle.style.setProperty("--hue", hue);
  return circle;
}

// ── typing ─────────────────────────────────────────────────────────────────────────────────────

let saidTyping = 0;
let silence;

$("text").addEventListener("input", () => {
  if (!$("text").value.trim()) return stopTyping();
  clearTimeout(silence);
  silence = setTimeout(stopTyping, TYPING_MS / 2);
  if (Date.now() - saidTyping < TYPING_MS / 2) return;
  saidTyping = Date.now();
  // Volatile: it is worth nothing later.
  socket.volatile.emit("typing", true);
});

function stopTyping() {
  clearTimeout(silence);
  if (saidTyping) socket.volatile.emit("typing", false);
  saidTyping = 0;
}

function type(name, on) {
  clearTimeout(typists.get(name));
  typists.delete(name);
  if (on) typists.set(name, setTimeout(type, TYPING_MS, name, false));
  const names = [...typists.keys()];
  const dots = element("span", { className: "dots", ariaHidden: "true" }, element("i"), element("i"), element("i"));
  const words = names.length > 2 ? "Several people are typing" : `${names.join(" and ")} ${names.length > 1 ? "are" : "is"} typing`;
  $("typing").replaceChildren(...(names.length > 0 ? [dots, words] : []));
}

// ── small things ───────────────────────────────────────────────────────────────────────────────

/** An element with properties and children; text is never taken for HTML. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
