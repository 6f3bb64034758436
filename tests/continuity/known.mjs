// E1 to E10: what the reference servers are known to lose, as shared/facts found it. A case plays the same on both sides and
// says what came of it: `held`, and the words for its column.

import { setTimeout as sleep } from "node:timers/promises";

import { exchange } from "../harness/http.mjs";
import { before } from "../harness/server.mjs";
import { openWebSocket } from "../harness/websocket.mjs";
import { account, until } from "./listener.mjs";

export const POLLING = { transports: ["polling"] };

/** `recovery` turns the reference's on; `holds` says that it is known to hold in this one. */
export const KNOWN = [
  {
    id: "E1",
    situation: "a ping is sent to a poll, the client upgrades and never answers it",
    reference: "engine.io",
    async run(world) {
      const server = await world.server({ pingInterval: 300, pingTimeout: 1000 });
      const { socket, target } = await upgradeWithoutPong(server);
      const patience = world.side === "reference" ? 5000 : 60_000;
      const started = Date.now();
      const end = await before(patience, closed(socket), "late");
      const after = ((Date.now() - started) / 1000).toFixed(1);
      if (end === "late") {
        const sessions = await server.sessions();
        socket.drop();
        return { held: false, words: `never noticed: ${sessions} session still there after ${after} s` };
      }
      const { status } = await exchange(server.port, { target }).response;
      return { held: status === 400 && (await server.sessions()) === 0, words: `ended by ping timeout after ${after} s` };
    },
  },
  {
    id: "E2",
    situation: "the answer to a poll is cut in the air; the client is away for a moment",
    reference: "socket.io",
    async run(world) {
      const { server, proxy, client } = await world.connected(POLLING);
      await server.emit("e", ["a"]);
      await client.got("e", "a");
      cutPoll(proxy, () => proxy.refuse());
      await server.emit("e", ["b"]);
      await client.gone();
      await server.emit("e", ["c"]);
      return world.return({ server, proxy, client }, ["a", "b", "c"]);
    },
  },
  {
    id: "E3",
    situation: "the first WebSocket frame after the upgrade is cut, an event each 2 ms",
    reference: "socket.io",
    async run(world) {
      const { server, proxy, client } = await world.connected({ transports: ["polling", "websocket"] }, (proxy) => (proxy.onRequest = (link) => link.isWebSocket && link.hold()));
      const due = [];
      const emit = () => server.emit("e", [due.push(due.length) - 1]);
      await emit();
      await client.got("e", 0);
      let probed = false;
      for (const link of proxy.links) {
        if (!link.isWebSocket) continue;
        link.onDown = (bytes) => {
          if (probed) {
            link.cut();
            return undefined;
          }
          probed = bytes.includes("3probe");
          return bytes;
        };
      }
      proxy.onRequest = () => {};
      for (const link of proxy.links) link.release();
      const end = Date.now() + 1500;
      while (Date.now() < end) await Promise.all([emit(), sleep(2)]);
      await until(() => client.losses.length >= 1, "the cut");
      return world.return({ server, proxy, client }, due);
    },
  },
  {
    id: "E4",
    situation: "the client is back before the server has noticed that it was gone",
    reference: "socket.io",
    recovery: true,
    async run(world) {
      const { server, proxy, client } = await world.connected();
      await server.emit("e", ["a"]);
      await client.got("e", "a");
      proxy.refuse();
      proxy.abandon();
      await client.gone();
      await server.emit("e", ["b"]);
      return world.return({ server, proxy, client }, ["a", "b"]);
    },
  },
  {
    id: "E5",
    situation: "the client had not received any event before it was cut off",
    reference: "socket.io",
    recovery: true,
    async run(world) {
      const all = await world.connected();
      await world.away(all);
      await all.server.emit("e", ["a"]);
      return world.return(all, ["a"]);
    },
  },
  {
    id: "E6",
    situation: "the last event before the cut was volatile and ended in a string",
    reference: "socket.io",
    recovery: true,
    async run(world) {
      const all = await world.connected();
      await all.server.emit("e", ["a"]);
      await all.client.got("e", "a");
      await all.server.emit("e", ["v", "tail"], { volatile: true });
      await all.client.got("e", "v");
      await world.away(all);
      await all.server.emit("e", ["b"]);
      return world.return(all, ["a", "v", "b"]);
    },
  },
  {
    id: "E7",
    situation: "two clients come back with the same pid and offset",
    reference: "socket.io",
    recovery: true,
    async run(world) {
      const { server, proxy, client } = await world.connected();
      await server.emit("e", ["a"]);
      await client.got("e", "a");
      const ticket = client.ticket;
      const { id } = client.last;
      client.socket.io.reconnection(false);
      proxy.cut();
      await client.gone();
      await server.emit("e", ["b"]);
      const first = world.client(proxy.url, { auth: ticket });
      await first.back();
      const second = world.client(proxy.url, { auth: ticket });
      await second.back();
      await server.emit("e", ["end"]);
      await second.got("e", "end");
      const both = first.last.id === id && second.last.id === id;
      const displaced = first.losses[0] === "io server disconnect";
      if (both && !displaced) {
        await sleep(100);
        return { held: false, words: `both have the same sid${first.words().includes("end") ? "" : ", and one of them hears nothing more"}` };
      }
      const { held, words } = account(["b", "end"], second.words());
      return { held: held && both && displaced, words: `the newest has it, the other one was sent away; ${words}` };
    },
  },
  {
    id: "E8",
    situation: "an event that asks for an ack is emitted while the client is away",
    reference: "socket.io",
    recovery: true,
    async run(world) {
      const all = await world.connected();
      const { server, proxy, client } = all;
      client.answer("ask", () => "yes");
      await server.emit("e", ["a"]);
      await client.got("e", "a");
      await world.away(all);
      const asked = server.ask("ask", ["?"], 10_000);
      await server.emit("e", ["b"]);
      const { held, words } = await world.return(all, ["a", "b"]);
      const answers = await asked;
      const acked = answers.length === 1 && answers[0] === "yes" && client.unasked === 0;
      return { held: held && acked, words: acked ? `${words}; it came and was acked` : `${words}; it never came` };
    },
  },
  {
    id: "E9",
    situation: "the answer to a poll is cut in the air, and the client is back at once",
    reference: "socket.io",
    recovery: true,
    holds: true,
    async run(world) {
      const { server, proxy, client } = await world.connected(POLLING);
      await server.emit("e", ["a"]);
      await client.got("e", "a");
      cutPoll(proxy);
      await server.emit("e", ["b"]);
      await client.gone();
      return world.return({ server, proxy, client }, ["a", "b"]);
    },
  },
  {
    id: "E10",
    situation: "a binary event goes to a WebSocket and to a polling client",
    reference: "python-engineio",
    python: true,
    async run(world) {
      const troubles = [];
      for (const order of [["websocket", "polling"], ["polling", "websocket"]]) {
        const server = await world.server();
        const got = new Map();
        for (const transport of order) {
          const client = world.client(server.url, { transports: [transport], auth: {} });
          await client.back();
          got.set(transport, client);
        }
        const raw = await plainWebSocket(server);
        await server.blob();
        // Who does not get it waits in vain.
        const patience = world.side === "reference" ? 1500 : 60_000;
        const arrived = ([transport, client]) =>
          before(patience, until(() => client.heard.length > 0).then(() => isBlob(client.heard[0][1])).catch(() => false), false)
            .then((whole) => whole || troubles.push(`the ${transport} client loses it after a ${order[0]} one`));
        await Promise.all([...got].map(arrived));
        const frames = [await raw.next(), await raw.next()];
        if (!frames.some(({ kind, payload }) => kind === "binary" && payload.toString() === "abc")) {
          troubles.push(`a WebSocket gets ${frames.map(({ text }) => text).filter((text) => text?.startsWith("b"))} as text after a ${order[0]} client`);
        }
        raw.drop();
      }
      return { held: troubles.length === 0, words: troubles.join("; ") || "both get the bytes, in either order" };
    },
  },
];

/** A session that polls, is pinged there, upgrades, and answers no ping. */
async function upgradeWithoutPong(server) {
  const polling = "/socket.io/?EIO=4&transport=polling";
  const ask = async (options) => (await exchange(server.port, options).response).body.toString();
  const { sid } = JSON.parse((await ask({ target: polling })).slice(1));
  const target = `${polling}&sid=${sid}`;
  await ask({ target, method: "POST", body: "40" });
  while (!(await ask({ target })).split("\x1e").includes("2"));
  const { socket } = await openWebSocket(server.port, `/socket.io/?EIO=4&transport=websocket&sid=${sid}`);
  socket.text("2probe");
  await socket.next();
  socket.text("5");
  return { socket, target };
}

async function closed(socket) {
  for (;;) {
    const frame = await socket.next();
    if (frame === undefined || frame.kind === "close") return;
  }
}

/** Cuts the next answer to a poll that has an event in it, in its middle. */
export function cutPoll(proxy, then = () => {}) {
  let cut = false;
  const shape = (link) => {
    link.onDown = (bytes) => {
      const event = link.isPoll && !cut ? bytes.indexOf('42["e"') : -1;
      if (event < 0) return bytes;
      cut = true;
      then();
      link.cut(bytes.subarray(0, event + 4));
      return undefined;
    };
  };
  proxy.onLink = shape;
  for (const link of proxy.links) shape(link);
}

const isBlob = (value) => (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) && Buffer.from(value).toString() === "abc";

/** A WebSocket that has joined `/` and has read all that says so. */
async function plainWebSocket(server) {
  const { socket } = await openWebSocket(server.port, "/socket.io/?EIO=4&transport=websocket");
  await socket.next();
  socket.text("40");
  await socket.next();
  return socket;
}
