// A TCP proxy between clients and a server that does to connections what networks and bad proxies do: cut, swallow, leave one
// side open, say a request twice.
//
//   const proxy = await startProxy(server.port);
//   ... io(proxy.url) ...
//   proxy.cut();                      all connections end
//   proxy.refuse(); proxy.accept();   nobody gets in, until they do
//   await proxy.stop();

import { connect, createServer } from "node:net";

/** Starts a proxy on a free port of 127.0.0.1 that passes everything on to `target`, a port. */
export async function startProxy(target) {
  const proxy = new Proxy(target);
  await proxy.listen();
  return proxy;
}

class Proxy {
  #server;
  #refusing = false;
  /** Connections that are open. */
  links = new Set();
  /** Called with each new connection before anything has passed: the place to give it an `onUp` or `onDown`. */
  onLink = () => {};
  /** Called with a connection when its client begins an HTTP request, before that is passed on. */
  onRequest = () => {};

  constructor(target) {
    this.target = target;
    this.#server = createServer({ pauseOnConnect: true }, (client) => this.#take(client));
  }

  listen() {
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(0, "127.0.0.1", () => {
        this.port = this.#server.address().port;
        this.url = `http://127.0.0.1:${this.port}`;
        resolve();
      });
    });
  }

  #take(client) {
    if (this.#refusing) {
      client.destroy();
      return;
    }
    const link = new Link(client, this.target, {
      onRequest: () => this.onRequest(link),
      onEnd: () => this.links.delete(link),
    });
    this.links.add(link);
    this.onLink(link);
    link.start();
  }

  #each(which, act) {
    const chosen = [...this.links].filter(which);
    chosen.forEach(act);
    return chosen.length;
  }

  /** Ends connections on both sides. Says how many. */
  cut(which = () => true) {
    return this.#each(which, (link) => link.cut());
  }

  /** Ends the client's side and leaves the server's open and silent: the server does not notice. Says how many. */
  abandon(which = () => true) {
    return this.#each(which, (link) => link.abandon());
  }

  /** From now on nothing passes any more, either way, and neither side is told. Says how many. */
  swallow(which = () => true) {
    return this.#each(which, (link) => link.swallow());
  }

  /** New connections are closed at once. */
  refuse() {
    this.#refusing = true;
  }

  accept() {
    this.#refusing = false;
  }

  async stop() {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.cut();
    await closed;
  }
}

/** One connection: `up` goes to the server, `down` to the client. */
class Link {
  #client;
  #server;
  #hooks;
  #silent = false;
  #over = false;
  #held;
  /** What the client has sent since its last request began, that one included. */
  #said = Buffer.alloc(0);
  /** The first line of the request that the client sent last. */
  request = "";
  /** Gets each piece and gives back what is to be passed on, which may be nothing. */
  onUp = (bytes) => bytes;
  onDown = (bytes) => bytes;

  constructor(client, target, hooks) {
    this.#client = client;
    this.target = target;
    this.#hooks = hooks;
  }

  get isWebSocket() {
    return this.request.includes("transport=websocket");
  }

  get isPoll() {
    return this.request.startsWith("GET") && this.request.includes("transport=polling") && this.request.includes("sid=");
  }

  get isPost() {
    return this.request.startsWith("POST");
  }

  start() {
    const client = this.#client;
    client.on("data", (bytes) => {
      if (!this.isWebSocket && /^(GET|POST|OPTIONS) /.test(bytes.toString("latin1", 0, 8))) {
        this.request = bytes.toString("latin1", 0, bytes.indexOf("\r\n"));
        this.#said = Buffer.alloc(0);
        this.#hooks.onRequest();
      }
      if (!this.isWebSocket) this.#said = Buffer.concat([this.#said, bytes]);
      if (this.#held) this.#held.push(bytes);
      else this.#pass(bytes);
    });
    client.on("error", () => {});
    client.on("close", () => this.#sideClosed());
    this.#dial();
    client.resume();
  }

  #pass(bytes) {
    const passed = this.onUp(bytes, this);
    if (passed?.length) flow(passed, this.#client, this.#server);
  }

  #dial() {
    const server = connect(this.target, "127.0.0.1");
    server.setNoDelay(true);
    server.on("data", (bytes) => {
      if (server !== this.#server) return;
      const passed = this.onDown(bytes, this);
      if (passed?.length) flow(passed, server, this.#client);
    });
    server.on("error", () => {});
    server.on("close", () => server === this.#server && this.#sideClosed());
    this.#server = server;
  }

  /** What was written must still arrive where the other side has only ended. */
  #sideClosed() {
    if (this.#silent || this.#over) return;
    this.#over = true;
    this.#client.destroySoon();
    this.#server.destroySoon();
    this.#hooks.onEnd();
  }

  /** Ends both sides, after `last` has gone to the client. */
  cut(last = Buffer.alloc(0)) {
    if (this.#over) return;
    this.#over = true;
    this.#hooks.onEnd();
    this.#server.destroy();
    if (last.length) this.#client.write(last, () => this.#client.destroy());
    else this.#client.destroy();
  }

  abandon() {
    this.swallow();
    this.#client.destroy();
  }

  swallow() {
    this.#silent = true;
    this.onUp = this.onDown = () => undefined;
    this.#server.pause();
    this.#client.pause();
  }

  /** What the client says goes no further until `release()`. */
  hold() {
    this.#held ??= [];
  }

  release() {
    const held = this.#held ?? [];
    this.#held = undefined;
    held.forEach((bytes) => this.#pass(bytes));
  }

  /** Ends the connection once this many more bytes have gone down; `then` is called at that moment. */
  cutAfter(bytes, then = () => {}) {
    let left = bytes;
    this.onDown = (piece) => {
      if (piece.length < left) {
        left -= piece.length;
        return piece;
      }
      then();
      this.cut(piece.subarray(0, left));
      return undefined;
    };
  }

  /** Says the client's last request once more on another connection to the server; the first one is given up. */
  repeat() {
    const first = this.#server;
    this.#dial();
    first.destroy();
    this.#server.write(this.#said);
  }
}

/** Writes to one side no faster than it takes. */
function flow(bytes, from, to) {
  if (to.destroyed || to.write(bytes)) return;
  from.pause();
  to.once("drain", () => from.resume());
}
