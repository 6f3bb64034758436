// Where recovery meets its bounds, and what else a session has beside plain events: acks, several namespaces, upgrades.

import { each, fresh, UPGRADE, WEBSOCKET } from "./further.mjs";
import { POLLING } from "./known.mjs";
import { account, until } from "./listener.mjs";

export const EDGES = [
  {
    situation: "an event was acked, and the ack was lost on its way",
    both: true,
    async run(world) {
      const all = await world.connected();
      const { server, proxy, client } = all;
      client.answer("ask", () => "yes");
      await server.emit("e", ["a"]);
      await client.got("e", "a");
      // From here on nothing gets up any more; then all is cut.
      proxy.refuse();
      for (const link of proxy.links) link.hold();
      const asked = server.ask("ask", ["?"], 5000);
      await client.got("ask", "?");
      await world.away(all);
      const { held, words } = await world.return(all, ["a"]);
      const answers = await asked;
      const acked = answers.length === 1 && answers[0] === "yes" && client.unasked === 0;
      return { held: held && acked, words: acked ? `${words}; asked again, and acked` : `${words}; the ack never came` };
    },
  },
  {
    situation: "acks asked for while away, answered on another shard",
    toml: "[server]\nshards = 3",
    async run(world) {
      const all = await world.connected();
      const { server, client } = all;
      client.answer("ask");
      const shard = () => Buffer.from(client.socket.io.engine.id, "base64url")[0];
      const due = [];
      const answers = [];
      let moves = 0;
      for (let attempt = 0; attempt < 60 && moves < 3; attempt++) {
        const before = shard();
        await world.away(all);
        const asked = server.ask("ask", [attempt], 10_000);
        await server.emit("e", [due.push(due.length) - 1]);
        await world.backAgain(all);
        answers.push((await asked).join());
        if (shard() !== before) moves++;
      }
      const { held, words } = await world.return(all, due);
      const acked = answers.every((answer, attempt) => answer === `${attempt}`) && client.unasked === 0;
      return { held: held && acked && moves >= 3, words: `${words}; ${acked ? "all" : "not all"} acked, over ${moves} moves` };
    },
  },
  {
    situation: "two namespaces on one connection; events of another client",
    async run(world) {
      const all = await world.connected();
      const { server, proxy, client } = all;
      const relay = world.client(proxy.url, { namespace: "/relay", manager: client.socket.io });
      const other = world.client(server.url, { namespace: "/relay" });
      await relay.back();
      await other.back();
      await server.emit("e", ["a"]);
      other.socket.emit("e", "a");
      await client.got("e", "a");
      await relay.got("e", "a");
      await world.away(all);
      await server.emit("e", ["b"]);
      for (const word of ["b", "c"]) {
        const { receivers } = await new Promise((resolve) => other.socket.emit("e", word, resolve));
        if (receivers !== 2) return { held: false, words: `${receivers} receivers, with one that is away` };
      }
      const { held, words } = await world.return(all, ["a", "b"]);
      await relay.back(2);
      other.socket.emit("e", "end");
      await relay.got("e", "end");
      const second = account(["a", "b", "c", "end"], relay.words());
      return { held: held && second.held && relay.last.recovered, words: second.held ? words : `/relay: ${second.words}` };
    },
  },
  {
    situation: "10 MB are missed, more than may be queued for one client",
    both: true,
    async run(world) {
      return each([WEBSOCKET, POLLING], async (transports) => {
        const server = await world.server();
        const all = await world.through(server, transports);
        await server.emit("e", [0]);
        await all.client.got("e", 0);
        await world.away(all);
        const due = Array.from({ length: 201 }, (_, n) => n);
        for (const n of due.slice(1)) await server.emit("e", [n, "x".repeat(50_000)]);
        return world.return(all, due);
      });
    },
  },
  {
    situation: "the log had to give up what a client missed",
    toml: '[server]\nshards = 1\n[continuity]\nmax-bytes = "100kB"',
    async run(world) {
      const all = await world.connected();
      const { server, client } = all;
      await server.emit("e", ["a"]);
      await client.got("e", "a");
      await world.away(all);
      await server.emit("e", ["b"]);
      for (let n = 0; n < 20; n++) await server.emit("x", ["x".repeat(10_000)]);
      await world.backAgain(all);
      return fresh(all, "log-full");
    },
  },
  {
    situation: "more clients away than may be",
    toml: "[server]\nshards = 1\n[continuity]\nmax-away = 1",
    async run(world) {
      const all = await world.connected();
      const { server, client } = all;
      const later = await world.through(server, {});
      await server.emit("e", ["a"]);
      for (const one of [client, later.client]) await one.got("e", "a");
      await world.away(all);
      await until(async () => (await server.sockets()).some(({ away }) => away), "the first to be away");
      await world.away(later);
      await until(async () => (await server.sessions()) === 1, "the first to be gone");
      await server.emit("e", ["b"]);
      await world.backAgain(all);
      const first = await fresh(all, "crowded");
      const { held, words } = await world.return(later, ["a", "b"]);
      return { held: first.held && held, words: `the first: ${first.words}; the second: ${words}` };
    },
  },
  {
    situation: "the upgrade is cut after 130, 140, 150… 400 bytes, an event each moment",
    both: true,
    async run(world) {
      const troubles = [];
      let cuts = 0;
      const server = await world.server();
      for (let bytes = 130; bytes <= 400; bytes += 10) {
        const all = await world.through(server, UPGRADE, (proxy) => {
          proxy.onRequest = (link) => {
            if (!link.isWebSocket) return;
            proxy.onRequest = () => {};
            link.cutAfter(bytes, () => cuts++);
          };
        });
        const due = [];
        const name = `e${bytes}`;
        for (let n = 0; n < 30; n++) await server.emit(name, [due.push(n) - 1]);
        // Who has lost the last one waits in vain.
        const patience = world.side === "reference" ? 2000 : undefined;
        await until(() => all.client.words(name).includes(29), "the last", patience).catch(() => {});
        const { held, words } = account(due, all.client.words(name));
        if (!held) troubles.push(`${bytes}: ${words}`);
        all.client.close();
      }
      // On a slow machine all may have come over polling before the WebSocket has carried so many bytes.
      const enough = cuts >= 10;
      return { held: troubles.length === 0 && enough, words: troubles.join("; ") || `${cuts} times cut: all 30 once and in order` };
    },
  },
];
