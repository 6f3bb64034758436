// The official client with a memory: what it heard, how often it connected, and whether it was recovered.

import { setTimeout as sleep } from "node:timers/promises";

import { io } from "socket.io-client";
import ioOfVersion2 from "socket.io-client-v2";

/** Milliseconds that a condition may take: a deadline, not a figure. */
const DEADLINE = 60_000;

/** What makes a client take part in recovery with `stamp = "auto"`; the reference pays no heed to it. */
const RECOVERY = { recovery: true };

export class Listener {
  /** `[event, ...args]` of everything that came, in order. */
  heard = [];
  /** `{ id, recovered }` of every connect. */
  connects = [];
  /** The reasons of every disconnect. */
  losses = [];

  /** `version: 2` is the client of EIO 3; with a `manager` it shares the connection of another listener. */
  constructor(url, { namespace = "/", version = 4, manager, ...options } = {}) {
    const defaults = { forceNew: true, transports: ["websocket"], reconnectionDelay: 20, reconnectionDelayMax: 100, auth: RECOVERY };
    this.version = version;
    const open = version === 2 ? ioOfVersion2 : io;
    this.socket = manager ? manager.socket(namespace, { auth: RECOVERY }) : open(url + namespace, { ...defaults, ...options });
    this.socket.on("connect", () => this.connects.push({ id: this.socket.id, recovered: Boolean(this.socket.recovered) }));
    this.socket.on("disconnect", (reason) => this.losses.push(reason));
    if (version === 2) hearAny(this.socket, (event) => this.heard.push(event));
    else this.socket.onAny((...event) => this.heard.push(event));
  }

  /** Acks every event of a name; `unasked` counts those that came without being asked for an ack. */
  answer(event, value = (question) => question) {
    this.unasked = 0;
    this.socket.on(event, (question, ...rest) => {
      const ack = rest.at(-1);
      if (typeof ack === "function") ack(value(question));
      else this.unasked++;
    });
  }

  /** The first argument of every event of a name. */
  words(event = "e") {
    return this.heard.filter(([name]) => name === event).map(([, word]) => word);
  }

  /** Waits until something was heard. */
  got(event, word) {
    return until(() => this.words(event).includes(word), `${event} ${word}`);
  }

  /** Waits until it is connected for the nth time. */
  back(times = 1) {
    return until(() => this.connects.length >= times && this.socket.connected, `connect ${times}`);
  }

  gone(times = 1) {
    return until(() => this.losses.length >= times, `disconnect ${times}`);
  }

  get last() {
    return this.connects.at(-1);
  }

  /** With what it would come back. */
  get ticket() {
    return { pid: this.socket._pid, offset: this.socket._lastOffset };
  }

  close() {
    this.socket.io.reconnection(false);
    this.socket.disconnect();
    if (this.version === 2) this.socket.io.close();
    else this.socket.io._close();
  }
}

/** Version 2 has no `onAny`. */
function hearAny(socket, hear) {
  const { onevent } = socket;
  socket.onevent = (packet) => {
    hear([...packet.data]);
    onevent.call(socket, packet);
  };
}

/** What became of the events that a client was due: which never came, which came twice, and the verdict in words. */
export function account(due, heard) {
  const lost = due.filter((word) => !heard.includes(word));
  const twice = [...new Set(heard.filter((word, index) => heard.indexOf(word) !== index))];
  const once = [...new Set(heard)].filter((word) => due.includes(word));
  const ordered = JSON.stringify(once) === JSON.stringify(due.filter((word) => heard.includes(word)));
  const troubles = [
    lost.length > 0 && `${named(lost, due)} never came`,
    twice.length > 0 && `${named(twice, due)} came twice`,
    !ordered && "out of order",
  ].filter(Boolean);
  return { lost, twice, held: troubles.length === 0, words: troubles.join(", ") || `all ${due.length} once and in order` };
}

const named = (words, all) => (words.length > 3 ? `${words.length} of ${all.length}` : words.join(" and "));

/** Waits for a condition. */
export async function until(condition, what, deadline = DEADLINE) {
  const end = Date.now() + deadline;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`);
    await sleep(5);
  }
}
