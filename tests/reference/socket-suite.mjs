// Reference for the example `socket_suite`: npm socket.io with the behaviour that the published suites of the protocol expect.

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

for (const namespace of [io.of("/"), io.of("/custom")]) {
  namespace.on("connection", (socket) => {
    socket.emit("auth", socket.handshake.auth);
    socket.on("message", (...args) => {
      if (typeof args.at(-1) === "function") args.pop(); // an ack that was asked for is not an argument to send back
      socket.emit("message-back", ...args);
    });
    socket.on("message-with-ack", (...args) => {
      const ack = args.pop();
      if (typeof ack === "function") ack(...args);
    });
  });
}
listen(http, flags);
