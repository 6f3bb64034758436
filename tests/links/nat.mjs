// A proxy that is also the NAT on the way: `CONNECT` opens tunnels to one fake, whatever host is asked for, and tunnels
// that are there can be forgotten (bytes go nowhere, no FIN, no RST) or reset. New tunnels always work.

import { connect, createServer } from "node:net";

/** How often idle tunnels are looked for. */
const SWEEP_MS = 50;

/**
 * Starts one. `to` is the port that every tunnel ends at; `user` (`name:password`) is asked for when it is set.
 * Returns `{ port, url, drop(), cut(), isDead(hosts), idle(ms, hosts, how), stop() }`; `hosts` says by a function of the host
 * which tunnels are meant.
 */
export async function startNat({ to, user }) {
  const tunnels = new Set();
  const left = new Set();
  let idleLimit;
  const server = createServer((client) => {
    client.on("error", () => client.destroy());
    let head = Buffer.alloc(0);
    client.on("data", function read(chunk) {
      head = Buffer.concat([head, chunk]);
      const end = head.indexOf("\r\n\r\n");
      if (end < 0) return;
      client.off("data", read);
      client.pause();
      begin(client, head.subarray(0, end).toString(), head.subarray(end + 4));
    });
  });

  function begin(client, head, rest) {
    const [, target] = /^CONNECT ([^ ]+) HTTP\/1\.[01]/.exec(head) ?? [];
    if (!target) return client.end("HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n");
    const [, given] = /^proxy-authorization: *basic (\S+)/im.exec(head) ?? [];
    if (user && given !== Buffer.from(user).toString("base64")) {
      return client.end('HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm="nat"\r\ncontent-length: 0\r\n\r\n');
    }
    const far = connect(to, "127.0.0.1");
    const tunnel = { host: target.replace(/:\d+$/, ""), state: "open", heard: Date.now(), client, far };
    tunnels.add(tunnel);
    const end = () => {
      tunnels.delete(tunnel);
      client.destroy();
      // What was forgotten stays open at the far end, as it would.
      if (tunnel.state === "forgotten") left.add(far);
      else far.destroy();
    };
    far.on("error", () => far.destroy());
    far.on("connect", () => {
      client.write("HTTP/1.1 200 Connection Established\r\n\r\n");
      if (rest.length > 0) far.write(rest);
      client.on("data", (chunk) => pass(tunnel, chunk, far));
      far.on("data", (chunk) => pass(tunnel, chunk, client));
      client.resume();
    });
    client.on("close", end);
    far.on("close", () => {
      if (tunnel.state !== "forgotten") end();
    });
  }

  function pass(tunnel, chunk, other) {
    if (tunnel.state === "open") {
      tunnel.heard = Date.now();
      if (!other.destroyed) other.write(chunk);
    } else if (tunnel.state === "reset") {
      reset(tunnel.client);
    }
  }

  /** Forgets tunnels that were idle for too long. */
  function sweep() {
    for (const tunnel of tunnels) {
      const late = idleLimit && Date.now() - tunnel.heard >= idleLimit.ms;
      if (late && tunnel.state === "open" && idleLimit.hosts(tunnel.host)) tunnel.state = idleLimit.how;
    }
  }
  const sweeper = setInterval(sweep, SWEEP_MS);

  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  return {
    port,
    url: `http://${user ? `${user}@` : ""}127.0.0.1:${port}`,
    /** Bytes on the tunnels there are go nowhere from now on. */
    drop() {
      for (const tunnel of tunnels) tunnel.state = "forgotten";
    },
    /** The tunnels there are are reset. */
    cut() {
      for (const { client } of tunnels) reset(client);
    },
    /** Whether no tunnel to these hosts works. */
    isDead: (hosts) => [...tunnels].every(({ host, state }) => state !== "open" || !hosts(host)),
    /** From now on tunnels that were idle for so long are "forgotten" or "reset"; without `ms`, none are. */
    idle: (ms, hosts, how) => (idleLimit = ms === undefined ? undefined : { ms, hosts, how }),
    async stop() {
      clearInterval(sweeper);
      for (const { client, far } of tunnels) [client, far].forEach((socket) => socket.destroy());
      for (const far of left) far.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A reset; but one that has ended anyhow is only closed: Node would never get rid of it. */
function reset(socket) {
  if (socket.writableEnded || socket.destroyed) socket.destroy();
  else socket.resetAndDestroy();
}
