// Further cases of recovery: what DESIGN ("Continuity") promises for each. Where `both` stands, the reference server is asked
// for its answer as well, with its recovery on.

import { setTimeout as sleep } from "node:timers/promises";

import { cutPoll, POLLING } from "./known.mjs";
import { account, until } from "./listener.mjs";

export const WEBSOCKET = { transports: ["websocket"] };
export const UPGRADE = { transports: ["polling", "websocket"] };

/** An echo that knows clients without offsets by a cookie. */
const named = (more = "") => `[namespaces."/"]\nhandler = "echo"\nsession-key = "cookie:device"\n${more}`;
const cookie = { extraHeaders: { Cookie: "other=1; device=d-17" } };

export const FURTHER = [
  {
    situation: "idle for several windows (in the hub's tests: a day), then a short drop",
    toml: '[continuity]\nwindow = "3s"',
    async run(world) {
      return each([WEBSOCKET, POLLING, UPGRADE], async (transports) => {
        const server = await world.server({ pingInterval: 100, pingTimeout: 20_000 });
        const all = await world.through(server, transports);
        await server.emit("e", ["a"]);
        await all.client.got("e", "a");
        let pings = 0;
        all.client.socket.io.engine.on("ping", () => pings++);
        await until(() => pings >= 75, "more than two windows of pings");
        await world.away(all);
        await server.emit("e", ["b"]);
        return world.return(all, ["a", "b"]);
      });
    },
  },
  {
    situation: "a second drop in the middle of the replay, and a third",
    both: true,
    async run(world) {
      const all = await world.connected();
      const { server, proxy, client } = all;
      const due = Array.from({ length: 300 }, (_, n) => n);
      await server.emit("e", [due[0]]);
      await client.got("e", 0);
      await world.away(all);
      for (const n of due.slice(1)) await server.emit("e", [n, "x".repeat(1000)]);
      for (const bytes of [50_000, 150_000]) {
        let cut = false;
        proxy.onLink = (link) => {
          proxy.onLink = () => {};
          link.cutAfter(bytes, () => (proxy.refuse(), (cut = true)));
        };
        proxy.accept();
        // Who gets nothing again is never cut.
        await until(() => cut || client.words().includes(299), "the drop");
        if (cut) await until(() => client.socket.io.engine.readyState === "closed", "the client to notice");
      }
      return world.return(all, due);
    },
  },
  {
    situation: "a second drop in the middle of the replay, polling",
    both: true,
    async run(world) {
      const all = await world.connected(POLLING);
      const { server, proxy, client } = all;
      await server.emit("e", [0]);
      await client.got("e", 0);
      const due = [0];
      for (let drop = 0; drop < 3; drop++) {
        const losses = client.losses.length;
        cutPoll(proxy);
        for (let n = 0; n < 5; n++) await server.emit("e", [due.push(due.length) - 1]);
        await client.gone(losses + 1);
        await world.backAgain(all);
      }
      return world.return(all, due);
    },
  },
  {
    situation: "back through another shard, again and again",
    toml: "[server]\nshards = 3",
    async run(world) {
      const all = await world.connected();
      const { server, client } = all;
      const shard = () => Buffer.from(client.socket.io.engine.id, "base64url")[0];
      const due = [];
      const shards = [shard()];
      const moves = () => shards.filter((one, index) => index > 0 && one !== shards[index - 1]).length;
      for (let attempt = 0; attempt < 60 && moves() < 5; attempt++) {
        await server.emit("e", [due.push(due.length) - 1]);
        if (attempt % 2 === 0) await client.got("e", due.length - 1);
        await world.away(all);
        await server.emit("e", [due.push(due.length) - 1]);
        await world.backAgain(all);
        shards.push(shard());
      }
      const { held, words } = await world.return(all, due);
      const counted = await server.metric("bowline_session_moves_total");
      const { same, words: ids } = sameSid(client);
      return { held: held && same && moves() >= 5 && counted >= moves(), words: `${words}; ${moves()} moves over shards ${[...new Set(shards)].sort()}${ids}` };
    },
  },
  {
    situation: "back before the server noticed, over each transport",
    both: true,
    async run(world) {
      return each([WEBSOCKET, POLLING, UPGRADE], async (transports) => {
        const server = await world.server();
        const all = await world.through(server, transports);
        await server.emit("e", ["a"]);
        await all.client.got("e", "a");
        all.proxy.refuse();
        all.proxy.abandon();
        await server.emit("e", ["b"]);
        await all.client.gone();
        await server.emit("e", ["c"]);
        return world.return(all, ["a", "b", "c"]);
      });
    },
  },
  {
    situation: "the network swallows everything, both ends notice late",
    both: true,
    async run(world) {
      return each([WEBSOCKET, POLLING], async (transports) => {
        const server = await world.server({ pingInterval: 300, pingTimeout: 600 });
        const all = await world.through(server, transports);
        const due = [];
        for (let n = 0; n < 20; n++) {
          if (n === 5) all.proxy.swallow();
          due.push(n);
          await server.emit("e", [n]);
          await sleep(5);
        }
        await all.client.gone();
        return world.return(all, due);
      });
    },
  },
  {
    situation: "a second client with the pid of one that is there, and back again",
    both: true,
    async run(world) {
      return each([WEBSOCKET, POLLING], async (transports) => {
        const server = await world.server();
        const { proxy, client: first } = await world.through(server, transports);
        await server.emit("e", ["a"]);
        await first.got("e", "a");
        const second = world.client(proxy.url, { auth: first.ticket, ...transports });
        await second.back();
        const { id } = first.connects[0];
        if (second.last.id !== id) return { held: false, words: "the second gets a session of its own" };
        const away = (client) => until(() => client.losses.includes("io server disconnect"), "the DISCONNECT");
        await away(first);
        await server.emit("e", ["b"]);
        await second.got("e", "b");
        first.socket.connect();
        await first.back(2);
        await away(second);
        await server.emit("e", ["c"]);
        await first.got("e", "c");
        // The second one had b, and on polling has said so: it may come again, and need not.
        const { held, words } = account(["a", "c"], first.words().filter((word) => word !== "b"));
        const one = first.last.id === id && !second.socket.connected && !second.words().includes("c");
        return { held: one && held, words: `the newest has it, each time; ${words}` };
      });
    },
  },
  {
    situation: "five clients with one pid at the same time, on three shards",
    toml: "[server]\nshards = 3",
    async run(world) {
      const all = await world.connected();
      const { server, proxy, client } = all;
      await server.emit("e", ["a"]);
      await client.got("e", "a");
      const { id } = client.last;
      const auth = client.ticket;
      client.socket.io.reconnection(false);
      await world.away(all);
      await server.emit("e", ["b"]);
      proxy.accept();
      const claimants = Array.from({ length: 5 }, () => world.client(proxy.url, { auth, reconnection: false }));
      await Promise.all(claimants.map((one) => until(() => one.connects.length > 0, "an answer")));
      const holders = () => claimants.filter((one) => one.socket.connected && one.last.id === id);
      await until(() => holders().length === 1, "one holder");
      await server.emit("e", ["end"]);
      await holders()[0].got("e", "end");
      const ids = (await server.sockets()).map(({ sid }) => sid);
      const unique = ids.filter((sid) => sid === id).length === 1;
      const { held, words } = account(["b", "end"], holders()[0].words());
      return { held: held && unique && holders().length === 1, words: `one has it; ${words}` };
    },
  },
  {
    situation: "rooms joined and left while away",
    async run(world) {
      const all = await world.connected();
      const { server, client } = all;
      const { id } = client.last;
      await server.join(id, "red");
      await server.emit("e", ["first"], { to: ["red"] });
      await client.got("e", "first");
      await world.away(all);
      const say = (word, ...to) => server.emit("e", [word], { to });
      await say("red, a member", "red");
      await say("blue, not yet", "blue");
      await server.leave(id, "red");
      await say("red, no member", "red");
      await server.join(id, "blue");
      await say("blue, a member", "blue");
      await server.cli("emit", "/", "e", '"red or blue"', "--room", "red", "--room", "blue");
      await server.join(id, "red");
      await say("red again", "red");
      await say("both, but once", "red", "blue");
      await server.leave(id, "blue");
      await say("blue no more", "blue");
      const { held, words } = await world.return(all, ["first", "red, a member", "blue, a member", "red or blue", "red again", "both, but once"]);
      const strangers = client.words().filter((word) => /not yet|no member|no more/.test(word));
      await say("after", "red");
      await client.got("e", "after");
      return { held: held && strangers.length === 0, words: strangers.length ? `got ${strangers}, which it was not due` : words };
    },
  },
  {
    situation: "`except`, also of rooms joined later",
    both: true,
    async run(world) {
      const all = await world.connected();
      const { server, client } = all;
      await server.emit("e", ["first"]);
      await client.got("e", "first");
      const { id } = client.last;
      await server.join?.(id, "red");
      await world.away(all);
      await server.emit("e", ["not for red"], { except: ["red"] });
      await server.emit("e", ["not for it"], { except: [id] });
      await server.emit("e", ["before blue"], { except: ["blue"] });
      await server.join?.(id, "blue");
      await server.emit("e", ["not for blue"], { except: ["blue"] });
      await server.emit("e", ["for all"]);
      const { held, words } = await world.return(all, ["first", "before blue", "for all"]);
      const wrong = client.words().filter((word) => word === "not for it" || (world.side === "bowline" && word.startsWith("not")));
      return { held: held && wrong.length === 0, words: wrong.length ? `got ${wrong} in spite of it` : words };
    },
  },
  {
    situation: "binary events while away, and a drop behind them",
    async run(world) {
      return each([WEBSOCKET, POLLING], async (transports) => {
        const server = await world.server();
        const all = await world.through(server, transports);
        const { client } = all;
        const binary = (word) => server.emit("e", [word, { $binary: "AAEC/w==" }, { deep: [{ $binary: "" }] }]);
        await binary("a");
        await client.got("e", "a");
        await world.away(all);
        await binary("b");
        await server.emit("e", ["c"]);
        await binary("d");
        await world.backAgain(all);
        await client.got("e", "d");
        await world.away(all);
        await binary("f");
        const { held, words } = await world.return(all, ["a", "b", "c", "d", "f"]);
        const whole = client.heard.filter(([, word]) => "abdf".includes(word));
        const intact = whole.every(([, , bytes, { deep }]) => Buffer.from(bytes).equals(Buffer.from([0, 1, 2, 255])) && deep[0].byteLength === 0);
        return { held: held && whole.length === 4 && intact, words: intact ? words : "the bytes changed" };
      });
    },
  },
  {
    situation: "longer away than the window",
    toml: '[continuity]\nwindow = "1s"',
    async run(world) {
      const all = await world.connected();
      const { server, client } = all;
      await server.emit("e", ["a"]);
      await client.got("e", "a");
      await world.away(all);
      await server.emit("e", ["b"]);
      await until(async () => (await server.sessions()) === 0, "the window to be over");
      await world.backAgain(all);
      return fresh(all, "window");
    },
  },
  {
    situation: "the client said goodbye",
    both: true,
    async run(world) {
      const all = await world.connected();
      const { server, client } = all;
      await server.emit("e", ["a"]);
      await client.got("e", "a");
      client.socket.disconnect();
      await until(async () => world.side === "reference" || (await server.sessions()) === 0, "it to be gone");
      client.socket.connect();
      await client.back(2);
      return fresh(all, "ended");
    },
  },
  {
    situation: "an engine close is no goodbye",
    both: true,
    async run(world) {
      return each([WEBSOCKET, POLLING], async (transports) => {
        const server = await world.server();
        const all = await world.through(server, transports);
        const { proxy, client } = all;
        await server.emit("e", ["a"]);
        await client.got("e", "a");
        // Only new connections are refused: what it says last gets through.
        if (transports === WEBSOCKET) proxy.refuse();
        client.socket.io.engine.close();
        await client.gone();
        await server.emit("e", ["b"]);
        return world.return(all, ["a", "b"]);
      });
    },
  },
  {
    situation: "offsets of another epoch, beyond the head, or none at all",
    toml: "[server]\nshards = 1",
    async run(world) {
      const all = await world.connected();
      const { server, proxy, client } = all;
      await server.emit("e", ["a"]);
      await client.got("e", "a");
      const { id } = client.last;
      const { pid, offset } = client.ticket;
      client.socket.io.reconnection(false);
      await world.away(all);
      await server.emit("e", ["b"]);
      proxy.accept();
      const [epoch, shard] = offset.split(".");
      const offsets = [undefined, "", "nonsense", `zzzz.${shard}.1`, `${epoch}.${shard}.999999`, `${epoch}.200.1`, "x".repeat(5000), 7, null, { a: 1 }];
      const troubles = [];
      for (const offset of offsets) {
        const claimant = world.client(proxy.url, { auth: { pid, offset } });
        await claimant.back();
        await server.emit("e", ["end"]);
        await claimant.got("e", "end");
        const { held, words } = account(["b", "end"], claimant.words().filter((word, index, all) => word !== "a" && (word !== "end" || index === all.length - 1)));
        if (!held || claimant.last.id !== id) troubles.push(`${JSON.stringify(offset)?.slice(0, 20)}: ${words}`);
        claimant.socket.io.reconnection(false);
        claimant.socket.io.engine.close();
        // What it has confirmed by a pong would rightly not come again.
        await claimant.gone();
      }
      return { held: troubles.length === 0, words: troubles.join("; ") || `counted as none: recovered ${offsets.length} times` };
    },
  },
  {
    situation: "the server was killed: another epoch; then a drop with the old offset",
    async run(world) {
      const all = await world.connected();
      const { server, client } = all;
      await server.emit("e", ["a"]);
      await client.got("e", "a");
      await world.away(all);
      await server.restart("SIGKILL");
      await world.backAgain(all);
      const first = await fresh(all, "restarted");
      // The official client still has the offset that the old server gave it.
      await world.away(all);
      await server.emit("e", ["b"]);
      const { held, words } = await world.return(all, ["a", "b"]);
      return { held: first.held && held && client.last.recovered, words: `${first.words}; then ${words}` };
    },
  },
  {
    situation: "a proxy says a POST twice",
    toml: '[namespaces."/"]\nhandler = "echo"\nevent-id = "/0/id"',
    async run(world) {
      return each([POLLING, { ...POLLING, timestampRequests: false }], async (options) => {
        const { proxy, client } = await world.connected(options);
        let repeated = 0;
        proxy.onRequest = (link) => {
          if (!link.isPost) return;
          // The first answer gets lost; what the second one is, the client hears.
          link.onDown = () => {
            link.onDown = (bytes) => bytes;
            repeated++;
            link.repeat();
            return undefined;
          };
        };
        const acks = [];
        client.socket.emit("e", { id: "one" });
        await until(() => client.heard.length > 0, "the echo");
        client.socket.emit("q", { id: "two" }, (answer) => acks.push(answer.id));
        await until(() => acks.length > 0, "the ack");
        client.socket.emit("e", { id: "end" });
        await until(() => client.words().some(({ id }) => id === "end"), "the last echo");
        const { held, words } = account(["one", "end"], client.words().map(({ id }) => id));
        return { held: held && repeated >= 3 && acks.length === 1, words: `${words}, by \`t\` or by \`event-id\`` };
      });
    },
  },
  {
    situation: "a proxy gives a poll up and says it again",
    both: true,
    async run(world) {
      const all = await world.connected(POLLING);
      const { server, proxy, client } = all;
      await server.emit("e", ["a"]);
      await client.got("e", "a");
      await until(() => [...proxy.links].some((link) => link.isPoll), "a poll");
      await sleep(50); // until the server has it
      for (const link of proxy.links) if (link.isPoll) link.repeat();
      await sleep(50);
      await server.emit("e", ["b"]);
      await server.emit("e", ["c"]);
      await until(() => client.words().includes("c") || client.losses.length > 0, "what comes of it");
      return world.return(all, ["a", "b", "c"]);
    },
  },
  {
    situation: "a proxy loses the answer to a poll and says the poll again",
    both: true,
    async run(world) {
      const all = await world.connected(POLLING);
      const { server, proxy, client } = all;
      await server.emit("e", ["a"]);
      await client.got("e", "a");
      let repeated = false;
      proxy.onLink = (link) => {
        link.onDown = (bytes) => {
          if (repeated || !link.isPoll || !bytes.includes('42["e"')) return bytes;
          repeated = true;
          link.repeat();
          return undefined;
        };
      };
      for (const link of proxy.links) proxy.onLink(link);
      await server.emit("e", ["b"]);
      await until(() => repeated, "the repetition");
      await server.emit("e", ["c"]);
      await until(() => client.words().includes("c") || client.losses.length > 0, "what comes of it");
      return world.return(all, ["a", "b", "c"]);
    },
  },
  {
    situation: "a client of EIO 3 (socket.io-client 2.5), not named",
    async run(world) {
      const all = await world.connected({ version: 2 });
      const { server, client } = all;
      await server.emit("e", ["a"]);
      await client.got("e", "a");
      const [{ sid }] = await server.sockets();
      await world.away(all);
      await until(async () => (await server.sessions()) === 0, "it to be gone");
      await server.emit("e", ["b"]);
      await world.backAgain(all);
      await server.emit("e", ["end"]);
      await client.got("e", "end");
      const fresh = (await server.sockets())[0].sid !== sid && client.heard.every((event) => event.length === 2);
      return { held: fresh && !client.words().includes("b"), words: "a fresh session, as promised; no offsets" };
    },
  },
  ...["repeat", "skip"].map((onDoubt) => ({
    situation: `a client of EIO 3, named by a cookie, on-doubt = "${onDoubt}"`,
    toml: named(`on-doubt = "${onDoubt}"`),
    run: (world) => each([WEBSOCKET, POLLING, UPGRADE], (transports) => doubted(world, { version: 2, ...cookie, ...transports }, onDoubt)),
  })),
  ...["repeat", "skip"].map((onDoubt) => ({
    situation: `a client without offsets, named by a cookie, on-doubt = "${onDoubt}"`,
    toml: named(`stamp = "never"\non-doubt = "${onDoubt}"`),
    run: (world) => each([WEBSOCKET, POLLING, UPGRADE], (transports) => doubted(world, { auth: {}, ...cookie, ...transports }, onDoubt)),
  })),
  {
    situation: "a browser takes part unasked, a plain client does not",
    async run(world) {
      const server = await world.server();
      const browser = await world.through(server, { auth: {}, extraHeaders: { "User-Agent": "Mozilla/5.0 (X11)" } });
      const plain = await world.through(server, { auth: {} });
      const both = [browser, plain];
      await server.emit("e", ["a"]);
      for (const { client } of both) await client.got("e", "a");
      for (const all of both) await world.away(all);
      await server.emit("e", ["b"]);
      for (const all of both) await world.backAgain(all);
      await server.emit("e", ["end"]);
      for (const { client } of both) await client.got("e", "end");
      const { held, words } = account(["a", "b", "end"], browser.client.words());
      const none = plain.client.ticket.pid === undefined && plain.client.heard.every((event) => event.length === 2);
      const missed = !plain.client.words().includes("b");
      return { held: held && none && missed && browser.client.last.recovered, words: `${words}; the plain one gets no offset and misses b` };
    },
  },
  ...[["the server is restarted under a stream of events", ""], ["the server is restarted with another number of shards", "[server]\nshards = 3"]].map(([situation, toml], index) => ({
    situation,
    toml,
    async run(world) {
      const server = await world.server();
      const clients = [WEBSOCKET, POLLING, UPGRADE].map((transports) => world.client(server.url, transports));
      await Promise.all(clients.map((client) => client.back()));
      const stream = streamTo(server);
      await stream.reached(30);
      for (let restart = 0; restart < 3; restart++) {
        await server.restart("SIGTERM", () => index === 1 && server.configure(`[server]\nshards = ${restart + 1}`));
        await Promise.all(clients.map((client) => client.back(restart + 2)));
        await stream.reached(30);
      }
      const { sure, unsure } = await stream.stop();
      await server.emit("e", ["end"]);
      await Promise.all(clients.map((client) => client.got("e", "end")));
      const accounts = clients.map((client) => account([...sure, "end"], client.words().filter((word) => !unsure.includes(word))));
      const recovered = clients.every((client) => client.connects.slice(1).every(({ recovered }) => recovered));
      const held = accounts.every(({ held }) => held) && recovered;
      return { held, words: held ? `three times: ${accounts[0].words}` : `${recovered ? "" : "not recovered; "}${accounts.map(({ words }) => words).join("; ")}` };
    },
  })),
  {
    situation: "away over a restart of the server",
    toml: named(),
    async run(world) {
      const server = await world.server();
      const stamped = await world.through(server, WEBSOCKET);
      const keyed = await world.through(server, { auth: {}, ...cookie });
      await server.emit("e", ["a"]);
      for (const { client } of [stamped, keyed]) await client.got("e", "a");
      for (const all of [stamped, keyed]) await world.away(all);
      await server.emit("e", ["b", { $binary: "AAEC" }]);
      await server.restart();
      await server.emit("e", ["c"]);
      await world.backAgain(keyed);
      await keyed.client.got("e", "c");
      const { held, words } = await world.return(stamped, ["a", "b", "c"]);
      const missing = ["a", "b", "c"].filter((word) => !keyed.client.words().includes(word));
      return { held: held && missing.length === 0, words: missing.length ? `the named one lost ${missing}` : words };
    },
  },
];

/** Plays a case over several transports; it is held if it is over each. */
export async function each(transports, play) {
  const results = [];
  for (const one of transports) {
    const { held, words } = await play(one);
    results.push({ held, words, name: one.transports.at(-1) === "polling" ? "polling" : one.transports.length > 1 ? "upgraded" : "WebSocket" });
  }
  const held = results.every(({ held }) => held);
  if (new Set(results.map(({ words }) => words)).size === 1) return { held, words: results[0].words };
  return { held, words: results.map(({ name, words }) => `${name}: ${words}`).join("; ") };
}

/** A client that could not be recovered must have been told so: another sid, nothing of before, and a reason counted. */
export async function fresh({ server, client }, outcome) {
  await server.emit("here", ["afresh"]);
  await client.got("here", "afresh");
  const [first, last] = [client.connects[0], client.last];
  const partial = client.words().includes("b");
  const counted = server.recoveries ? await server.recoveries(outcome) : undefined;
  const held = !last.recovered && first.id !== last.id && !partial && (counted === undefined || counted === 1);
  return { held, words: `recovered: ${last.recovered}${counted ? `, counted as \`${outcome}\`` : ""}${partial ? ", but replayed" : ""}` };
}

function sameSid(client) {
  const same = new Set(client.connects.map(({ id }) => id)).size === 1;
  return { same, words: same ? "" : "; the sid changed" };
}

/**
 * A client without offsets. What it got, and what proves it, are two things: under `repeat` some may come again and none is
 * lost, under `skip` none comes again, and only what was on its way may be lost.
 */
async function doubted(world, options, onDoubt) {
  const server = await world.server({ pingInterval: 400, pingTimeout: 400 });
  const all = await world.through(server, options);
  const { proxy, client } = all;
  const [{ sid }] = await server.sockets();
  await server.emit("e", ["a"]);
  await client.got("e", "a");
  // One that is on its way when the network goes, and that the server believes sent.
  await until(() => [...proxy.links].some((link) => link.isWebSocket || link.isPoll), "something to send on");
  await sleep(50);
  proxy.swallow();
  await server.emit("e", ["doubtful"]);
  await world.away(all);
  // Between two polls nothing but a missing pong tells the server, and until then everything is in doubt.
  await until(async () => (await server.sockets())[0].away, "the server to notice");
  await server.emit("e", ["b"]);
  await server.emit("e", ["c"]);
  await world.backAgain(all);
  await server.emit("e", ["end"]);
  await client.got("e", "end");
  const words = client.words();
  const sockets = await server.sockets();
  const due = ["a", ...(onDoubt === "repeat" ? ["doubtful"] : []), "b", "c", "end"];
  const lost = due.filter((word) => !words.includes(word));
  const twice = words.filter((word, index) => words.indexOf(word) !== index);
  const held = lost.length === 0 && (onDoubt === "repeat" || twice.length === 0) && sockets.length === 1 && sockets[0].sid === sid;
  const found = [lost.length ? `${lost} lost` : "nothing lost", onDoubt === "skip" ? (twice.length ? `${twice} twice` : "nothing twice") : "some may come again"];
  return { held, words: held ? (onDoubt === "repeat" ? "at least once" : "at most once") : found.join(", ") };
}

/** Emits numbers until it is stopped: those that were answered with success, and those of which nobody knows. */
function streamTo(server) {
  const [sure, unsure] = [[], []];
  let going = true;
  let next = 0;
  const done = (async () => {
    while (going) {
      const number = next++;
      await server.emit("e", [number]).then(() => sure.push(number), () => (unsure.push(number), sleep(20)));
      await sleep(2);
    }
  })();
  return {
    /** Waits for so many more. */
    reached(count) {
      const wanted = sure.length + count;
      return until(() => sure.length >= wanted, `${count} more events`);
    },
    async stop() {
      going = false;
      await done;
      return { sure, unsure };
    },
  };
}
