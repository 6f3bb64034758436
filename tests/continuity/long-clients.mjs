// Official JavaScript clients for long.mjs, in a process of their own. Told on stdin, in JSON: where and how they connect, then
// `report`. Says on stdout, in lines of JSON: how many are connected and have had `end`, which sockets are new, and the report.

import { createInterface } from "node:readline";

import { io } from "socket.io-client";

const TRANSPORTS = [["websocket"], ["polling", "websocket"], ["polling"]];
const STATUS_MS = 200;

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

class Client {
  got = [];
  /** What became of its connection: `[milliseconds, "connect" | "disconnect", details]`. */
  story = [];
  fresh = 0;
  recovered = 0;
  ended = false;

  constructor(index, { url, namespace, auth }) {
    this.index = index;
    this.namespace = namespace;
    this.transports = TRANSPORTS[index % TRANSPORTS.length];
    this.socket = io(`${url}${namespace}`, {
      forceNew: true,
      transports: this.transports,
      auth,
      reconnectionDelay: 50,
      reconnectionDelayMax: 500,
      timeout: 5000,
    });
    this.socket.on("connect", () => this.#connected());
    this.socket.on("disconnect", (reason) => {
      this.#tell("disconnect", reason);
      // The server may not send it away, and if it does, that is seen in the story, and not by silence.
      if (reason === "io server disconnect") this.socket.connect();
    });
    this.socket.on("connect_error", (error) => {
      this.#tell("refused", error.message);
      if (!this.socket.active) this.socket.connect();
    });
    this.socket.on("n", (number, payload) => this.#take(number, payload));
    this.socket.on("end", () => (this.ended = true));
  }

  #connected() {
    const { id, recovered } = this.socket;
    this.#tell("connect", `${recovered ? "recovered" : "fresh"} ${id}`);
    if (recovered) return void (this.recovered += 1);
    this.fresh += 1;
    say({ fresh: { index: this.index, namespace: this.namespace, sid: id } });
  }

  #take(number, payload) {
    const whole = Buffer.isBuffer(payload) ? payload.toString() === `${number}` : payload?.words === "é";
    if (!whole) this.#tell("spoilt", number);
    this.got.push(number);
  }

  #tell(what, details) {
    this.story.push([Date.now(), what, details]);
  }

  get report() {
    const { index, namespace, transports, got, story, fresh, recovered, ended } = this;
    return { kind: "js", index, namespace, transports, got, story, fresh, recovered, ended };
  }
}

let clients = [];
for await (const line of createInterface({ input: process.stdin })) {
  const told = JSON.parse(line);
  if (told.report) {
    for (const client of clients) say({ report: client.report });
    say({ done: true });
    break;
  }
  clients = Array.from({ length: told.count }, (_, index) => new Client(index, told));
  setInterval(() => {
    say({ connected: clients.filter(({ socket }) => socket.connected).length, ended: clients.filter(({ ended }) => ended).length });
  }, STATUS_MS).unref();
}
for (const { socket } of clients) socket.close();
