// A small Engine.IO 4 client whose moment of upgrade, packets per POST and TCP connections are in
// the hands of the test. It polls like the official one: one GET is always under way, one POST at
// most; while upgrading it sends nothing, and it upgrades only when neither is under way.
import { request, Agent } from "node:http";

import WebSocket from "ws";

const SEPARATOR = "\x1e";
// Source addresses to spread connections over: each has 28,000 ports, and a closed connection holds
// its port for a minute.
const SOURCES = 64;
let nextSource = 0;

/** A request was refused, or its connection broke. */
export class RequestFailed extends Error {
  constructor(method, status, body) {
    super(`${method}: ${status} ${body}`);
    this.status = status;
    this.body = body;
  }
}

export class RawClient {
  #agent;
  #outbox = [];
  #posting;
  #getting;
  #state = "closed"; // -> polling -> upgrading -> websocket -> closed
  #wake = () => {};

  /**
   * `onMessage(text)` hears every Socket.IO packet, `onFail(error)` the first thing that is wrong.
   * With `fresh` every request has a TCP connection of its own.
   */
  constructor(url, { onMessage, onFail, fresh = false, batch = () => Infinity }) {
    this.base = `${url}/socket.io/?EIO=4`;
    this.onMessage = onMessage;
    this.onFail = onFail;
    this.fresh = fresh;
    this.batch = batch;
    this.requests = 0;
    this.polledPackets = 0;
    this.noops = 0;
    this.#agent = fresh ? false : new Agent({ keepAlive: true });
  }

  get state() {
    return this.#state;
  }

  async open() {
    const body = await this.#request("GET", this.#address("polling"));
    if (body[0] !== "0") throw new Error(`not an open packet: ${body}`);
    const { sid } = JSON.parse(body.slice(1));
    this.sid = sid;
    this.#state = "polling";
    this.#poll();
  }

  /** Queues a Socket.IO packet. */
  send(packet) {
    this.#outbox.push(`4${packet}`);
    this.#flush();
  }

  /** Packets that have not left yet. */
  get queued() {
    return this.#outbox.length;
  }

  /** Moves the session to a WebSocket. Resolves when the client has sent its `5`. */
  async upgrade() {
    const socket = await this.#probe();
    this.#state = "upgrading";
    while (this.#getting || this.#posting) await Promise.all([this.#getting, this.#posting]);
    if (this.#state !== "upgrading") return;
    socket.removeAllListeners();
    this.socket = socket;
    socket.on("message", (data, binary) => this.#receive(binary ? data : data.toString()));
    socket.on("close", (code) => this.#closed(new Error(`the WebSocket closed: ${code}`)));
    socket.on("error", (error) => this.#closed(error));
    socket.send("5");
    this.#state = "websocket";
    this.#flush();
  }

  /** Begins an upgrade and gives it up, before or after the answer to the probe. */
  async abandonUpgrade(how) {
    if (how === "silent") {
      const socket = await this.#connect();
      socket.terminate();
    } else {
      const socket = await this.#probe();
      if (how === "garbage") socket.send("9");
      if (how === "close") socket.close();
      if (how === "cut") socket.terminate();
      await new Promise((done) => socket.once("close", done));
    }
  }

  /** Leaves, without a word to the application. */
  close() {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.socket?.terminate();
    this.getting?.destroy();
    this.#agent?.destroy?.();
  }

  async #probe() {
    const socket = await this.#connect();
    const answered = new Promise((done, fail) => {
      socket.once("message", (data) => done(data.toString()));
      socket.once("close", (code) => fail(new Error(`the probe was closed: ${code}`)));
    });
    socket.send("2probe");
    const answer = await answered;
    if (answer !== "3probe") throw new Error(`answer to the probe: ${answer}`);
    return socket;
  }

  #connect() {
    const address = this.#address("websocket").replace("http", "ws");
    const socket = new WebSocket(address, { perMessageDeflate: false, localAddress: source() });
    return new Promise((done, fail) => {
      socket.once("open", () => done(socket));
      socket.once("error", fail);
    });
  }

  #poll() {
    if (this.#state !== "polling" || this.#getting) return;
    this.#getting = this.#request("GET", this.#address("polling")).then(
      (body) => {
        this.#getting = undefined;
        for (const packet of body.split(SEPARATOR)) {
          this.polledPackets++;
          this.#receive(packet);
        }
        this.#poll();
      },
      (error) => this.#closed(error),
    );
  }

  #flush() {
    if (this.#outbox.length === 0) return;
    if (this.#state === "websocket") {
      for (const packet of this.#outbox.splice(0)) this.socket.send(packet);
    } else if (this.#state === "polling" && !this.#posting) {
      const packets = this.#outbox.splice(0, this.batch());
      this.#posting = this.#request("POST", this.#address("polling"), packets.join(SEPARATOR)).then(
        (body) => {
          this.#posting = undefined;
          if (body !== "ok") this.#closed(new Error(`answer to a POST: ${body}`));
          this.#flush();
        },
        (error) => this.#closed(error),
      );
    }
  }

  #receive(packet) {
    if (this.#state === "closed") return;
    switch (packet[0]) {
      case "4":
        return this.onMessage(packet.slice(1));
      case "2":
        this.#outbox.push("3");
        return this.#flush();
      case "6":
        this.noops++;
        return undefined;
      default:
        return this.#closed(new Error(`packet ${packet.slice(0, 60)}`));
    }
  }

  #closed(error) {
    if (this.#state === "closed") return;
    this.close();
    this.onFail(error);
  }

  #address(transport) {
    const sid = this.sid ? `&sid=${this.sid}` : "";
    return `${this.base}&transport=${transport}${sid}`;
  }

  #request(method, address, body) {
    this.requests++;
    return new Promise((done, fail) => {
      const headers = body === undefined ? {} : { "content-type": "text/plain;charset=UTF-8", "content-length": Buffer.byteLength(body) };
      const local = this.fresh ? { localAddress: source() } : {};
      const sent = request(address, { method, agent: this.#agent, headers, ...local }, (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (part) => (text += part));
        response.on("error", fail);
        response.on("end", () => {
          if (response.statusCode === 200) done(text);
          else fail(new RequestFailed(method, response.statusCode, text));
        });
      });
      if (method === "GET") this.getting = sent;
      sent.on("error", fail);
      sent.end(body);
    });
  }
}

function source() {
  nextSource = (nextSource + 1) % SOURCES;
  return `127.0.1.${nextSource + 1}`;
}
