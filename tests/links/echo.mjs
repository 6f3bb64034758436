// A plain WebSocket service for bots, with rooms: what is said in a room is sent to every connection of the bot, as JSON.
//
//   const service = await startEcho();
//   const bot = service.bot("ann");                     // its connections come to `${service.url}/bots/ann`
//   const message = bot.hear("lobby", "hello");         // {type: "message", id, room, n, text}; n counts within the room
//   const flow = bot.flow({ perSecond: 50, rooms: 5 }); // … flow.stop()
//
// A bot, or who keeps its connection, says {type: "ack", id}, {type: "answer", to, text} and {type: "probe", nonce}; the
// last is echoed the way that messages take: a connection that is muted does not get it. What was not acknowledged is
// sent again to the next connection, if `redeliver` is asked for.

import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { WebSocketServer } from "ws";

/** The service ends a connection when it is going to be restarted. */
const DRAIN_CODE = 1012;

/** Starts one. `authority` (of authority.mjs) makes it wss; `port` is free by default. */
export async function startEcho({ authority, port = 0, redeliver = false } = {}) {
  const server = authority ? createTlsServer({ key: authority.key, cert: authority.cert }) : createServer();
  const sockets = new WebSocketServer({ noServer: true, autoPong: true, perMessageDeflate: false });
  const bots = new Map();
  // When somebody asked for a WebSocket, in milliseconds since 1970: those that were refused as well.
  const attempts = [];
  let refusing = false;
  server.on("request", (_, response) => response.writeHead(404).end());
  server.on("upgrade", (request, socket, head) => {
    attempts.push(Date.now());
    socket.on("error", () => {});
    const [, name] = /^\/bots\/([\w-]+)$/.exec(new URL(request.url, "http://x").pathname) ?? [];
    if (refusing || !name) {
      socket.end(`HTTP/1.1 ${name ? "503 Service Unavailable" : "404 Not Found"}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
      return;
    }
    sockets.handleUpgrade(request, socket, head, (connection) => bot(name).take(connection));
  });
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });

  function bot(name) {
    if (!bots.has(name)) bots.set(name, makeBot(redeliver));
    return bots.get(name);
  }

  const all = () => [...bots.values()].flatMap((bot) => [...bot.connections]);
  return {
    port: server.address().port,
    url: `${authority ? "wss" : "ws"}://127.0.0.1:${server.address().port}`,
    attempts,
    bot,
    /** How many connections there are. */
    connections: () => all().length,
    /** Every connection ends, without a goodbye. */
    drop: () => all().forEach((connection) => connection.terminate()),
    /** New connections are refused with 503. */
    refuse: (on) => (refusing = on),
    async stop() {
      for (const bot of bots.values()) bot.close();
      all().forEach((connection) => connection.terminate());
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function makeBot(redeliver) {
  const connections = new Set();
  const muted = new WeakSet();
  const flows = new Set();
  const counts = new Map();
  const bot = {
    connections,
    /** Every message, in the order in which it was sent. */
    sent: [],
    /** Ids that were acknowledged, with how often. */
    acked: new Map(),
    /** What was answered: a list for each id. */
    answers: new Map(),
    /** How many connections have come. */
    opened: 0,
    /** Called with each connection, acknowledgement, answer. */
    onConnection: () => {},
    onAck: () => {},
    onAnswer: () => {},

    take(connection) {
      connections.add(connection);
      bot.opened++;
      connection.on("error", () => {});
      connection.on("close", () => connections.delete(connection));
      connection.on("message", (text) => hear(connection, JSON.parse(text)));
      bot.onConnection(connection);
      if (!redeliver) return;
      for (const message of bot.sent) {
        if (!bot.acked.has(message.id)) connection.send(JSON.stringify(message));
      }
    },
    /** Somebody says something in a room. */
    hear(room, text = "hello") {
      const n = (counts.get(room) ?? 0) + 1;
      counts.set(room, n);
      const message = { type: "message", id: `${room}-${n}`, room, n, text };
      bot.sent.push(message);
      route(JSON.stringify(message));
      return message;
    },
    /** Something is said so many times a second, in the rooms in turn. */
    flow({ perSecond, rooms }) {
      const begun = performance.now();
      let said = 0;
      // Timers are late; what is due is said.
      const timer = setInterval(() => {
        while (said < ((performance.now() - begun) / 1000) * perSecond) bot.hear(`room-${said++ % rooms}`);
      }, 5);
      const flow = { stop: () => (clearInterval(timer), flows.delete(flow)) };
      flows.add(flow);
      return flow;
    },
    /** Nothing is routed any more to the connections that there are; pings are answered as before. */
    mute: () => connections.forEach((connection) => muted.add(connection)),
    /** Nothing passes any more on the connections that there are, in neither direction; they do not end. */
    freeze: () => connections.forEach((connection) => (muted.add(connection), connection.pause())),
    /** They are told that they end, and do so. */
    drain: () => connections.forEach((connection) => connection.close(DRAIN_CODE, "draining")),
    close: () => flows.forEach((flow) => flow.stop()),
  };

  function hear(connection, said) {
    if (said.type === "probe" && !muted.has(connection)) {
      connection.send(JSON.stringify({ type: "echo", nonce: said.nonce }));
    } else if (said.type === "ack") {
      bot.acked.set(said.id, (bot.acked.get(said.id) ?? 0) + 1);
      bot.onAck(said.id);
    } else if (said.type === "answer") {
      bot.answers.set(said.to, [...(bot.answers.get(said.to) ?? []), said]);
      bot.onAnswer(said);
    }
  }

  function route(text) {
    for (const connection of connections) if (!muted.has(connection)) connection.send(text);
  }

  return bot;
}
