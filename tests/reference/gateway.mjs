// Reference for `bowline serve` without backends: `/` is echo, `/relay` is relay, as DESIGN section 4 ("Configuration") has them.

import { Server } from "socket.io";
import { engineOptions, parseFlags } from "./flags.mjs";
import { createHttpServer, listen } from "./http.mjs";

const flags = parseFlags("/socket.io/");
const http = createHttpServer();
const io = new Server(http, {
  ...engineOptions(flags),
  connectTimeout: flags.connectTimeout,
  serveClient: false,
});

function onAnyEvent(socket, handle) {
  socket.onAny((event, ...args) => {
    const ack = typeof args.at(-1) === "function" ? args.pop() : undefined;
    handle(event, args, ack);
  });
}

io.of("/").on("connection", (socket) => {
  onAnyEvent(socket, (event, args, ack) => (ack ? ack(...args) : socket.emit(event, ...args)));
});
io.of("/relay").on("connection", (socket) => {
  onAnyEvent(socket, (event, args, ack) => {
    socket.nsp.emit(event, ...args);
    ack?.({ receivers: socket.nsp.sockets.size });
  });
});
listen(http, flags);
