// What one case has: a server of its own side, proxies before it, clients; and all of it gone afterwards.

import { fileURLToPath } from "node:url";

import { run } from "../harness/programs.mjs";
import { freePort } from "../harness/server.mjs";
import { account, Listener } from "./listener.mjs";
import { startProxy } from "./proxy.mjs";
import { startBowline, startReference } from "./sides.mjs";

const PYTHON = process.env.PYTHON_BIN ?? fileURLToPath(new URL("../.venv/bin/python", import.meta.url));
const MIXED_AUDIENCE = fileURLToPath(new URL("mixed-audience.py", import.meta.url));

export class World {
  #opened = [];

  /** `side` is `reference` or `bowline`; `row` is the case. */
  constructor(side, row) {
    this.side = side;
    this.row = row;
  }

  #keep(thing, close) {
    this.#opened.push(() => close(thing));
    return thing;
  }

  async server(options = {}) {
    const server = this.#keep(await this.#start(options), (server) => server.stop());
    server.url = `http://127.0.0.1:${server.port}`;
    return server;
  }

  async #start(options) {
    if (this.side === "bowline") {
      const server = await startBowline({ ...options, toml: options.toml ?? this.row.toml });
      return Object.assign(server, { blob: () => server.emit("blob", [{ $binary: "YWJj" }]) });
    }
    if (!this.row.python) return startReference({ recovery: this.row.recovery, ...options });
    const port = await freePort();
    const running = await run(PYTHON, [MIXED_AUDIENCE, port], { port });
    // What it sends last may fail, and it says so to whoever asked.
    const blob = () => fetch(`http://127.0.0.1:${port}/emit`, { method: "POST" });
    return { port, blob, stop: () => running.stop() };
  }

  async proxy(server) {
    return this.#keep(await startProxy(server.port), (proxy) => proxy.stop());
  }

  client(url, options) {
    return this.#keep(new Listener(url, options), (client) => client.close());
  }

  /** A server, a proxy before it, and a client that has connected through that. */
  async connected(options = {}, prepare = () => {}) {
    return this.through(await this.server(), options, prepare);
  }

  /** The same, of a server that is there. */
  async through(server, options, prepare = () => {}) {
    const proxy = await this.proxy(server);
    prepare(proxy);
    const client = this.client(proxy.url, options);
    await client.back();
    return { server, proxy, client };
  }

  /** Cuts the client off and keeps it away. */
  async away({ proxy, client }) {
    const losses = client.losses.length;
    proxy.refuse();
    proxy.cut();
    await client.gone(losses + 1);
  }

  /** Lets a client in again that has noticed that it was cut off; it may be back already. */
  async backAgain({ proxy, client }) {
    proxy.accept();
    await client.back();
  }

  /** Lets the client in again, sends `end`, and says what came of the events that it was due. */
  async return(all, due) {
    const { server, client } = all;
    await this.backAgain(all);
    await server.emit("e", ["end"]);
    await client.got("e", "end");
    const { held, words } = account([...due, "end"], client.words());
    if (client.losses.length === 0) return { held, words: `nobody noticed that ${words}` };
    if (!this.row.recovery && this.side === "reference") return { held, words };
    return { held, words: `${client.last.recovered ? "recovered" : "not recovered"}, ${words}` };
  }

  async close() {
    for (const close of this.#opened.splice(0).reverse()) await close();
  }
}
