// The real Socket.IO server as a service for bots: each bot is in `/bots` with its name as token, and what is said in a
// room is emitted to every socket of it as `message`, with an acknowledgement wanted.
//
//   const service = await startSocketIo();
//   const bot = service.bot("ann");
//   bot.hear("lobby");                    // emits "message", {id, room, n}; n counts within the room
//
// The event `echo` is acknowledged with what it was given: the routing probe. `answer` is kept.

import { createServer } from "node:http";
import { Server } from "socket.io";

/** Starts one on a free port. */
export async function startSocketIo() {
  const http = createServer();
  const io = new Server(http, { serveClient: false, pingInterval: 2000, pingTimeout: 20_000 });
  const bots = new Map();
  const bot = (name) => {
    if (!bots.has(name)) bots.set(name, makeBot());
    return bots.get(name);
  };
  io.of("/bots").use((socket, next) => next(socket.handshake.auth.token ? undefined : new Error("who are you?")));
  io.of("/bots").on("connection", (socket) => bot(socket.handshake.auth.token).take(socket));
  await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
  const { port } = http.address();
  return {
    port,
    url: `http://127.0.0.1:${port}/bots`,
    bot,
    /** Every connection ends, without a goodbye. */
    drop: () => io.of("/bots").sockets.forEach((socket) => socket.conn.transport.socket?.terminate?.()),
    async stop() {
      for (const bot of bots.values()) bot.close();
      await io.close();
    },
  };
}

function makeBot() {
  const sockets = new Set();
  const counts = new Map();
  const flows = new Set();
  const bot = {
    sockets,
    /** Every message, in the order in which it was sent. */
    sent: [],
    /** Ids that were acknowledged, with what. */
    acked: new Map(),
    /** What was answered: a list for each id. */
    answers: new Map(),
    /** How many sockets have come. */
    opened: 0,
    /** When each was said, and when it was first answered, in milliseconds. */
    saidAt: new Map(),
    answeredAt: new Map(),

    take(socket) {
      sockets.add(socket);
      bot.opened++;
      socket.on("disconnect", () => sockets.delete(socket));
      socket.on("echo", (word, acknowledge) => (acknowledge ? acknowledge(word) : socket.emit("echo", word)));
      socket.on("answer", (answer) => {
        bot.answers.set(answer.to, [...(bot.answers.get(answer.to) ?? []), answer]);
        bot.answeredAt.set(answer.to, bot.answeredAt.get(answer.to) ?? performance.now());
      });
    },
    /** Somebody says something in a room. */
    hear(room, text = "hello") {
      const n = (counts.get(room) ?? 0) + 1;
      counts.set(room, n);
      const message = { id: `${room}-${n}`, room, n, text };
      bot.sent.push(message);
      bot.saidAt.set(message.id, performance.now());
      for (const socket of sockets) {
        socket.emit("message", message, (...answer) => bot.acked.set(message.id, answer));
      }
      return message;
    },
    /** Something is said so many times a second, in the rooms in turn. */
    flow({ perSecond, rooms }) {
      const begun = performance.now();
      let said = 0;
      const timer = setInterval(() => {
        while (said < ((performance.now() - begun) / 1000) * perSecond) bot.hear(`room-${said++ % rooms}`);
      }, 5);
      const flow = { stop: () => (clearInterval(timer), flows.delete(flow)) };
      flows.add(flow);
      return flow;
    },
    close: () => flows.forEach((flow) => flow.stop()),
  };
  return bot;
}
