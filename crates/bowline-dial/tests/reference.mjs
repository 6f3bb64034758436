// The reference server that `reference.rs` dials. Prints its port, and ends when its stdin does.
//
//   node reference.mjs PATH_TO_TESTS_PACKAGE_JSON

import { createRequire } from "node:module";
import { createServer } from "node:http";

const require = createRequire(process.argv[2]);
const { Server } = require("socket.io");

const http = createServer();
const io = new Server(http, {
  allowEIO3: true,
  pingInterval: 300,
  pingTimeout: 1700,
  maxHttpBufferSize: 1e6,
});

function serve(socket) {
  socket.emit("welcome", {
    version: socket.conn.protocol,
    transport: socket.conn.transport.name,
    auth: socket.handshake.auth,
    query: socket.handshake.query,
    agent: socket.handshake.headers["user-agent"],
  });
  socket.on("echo", (...args) => {
    const ack = typeof args.at(-1) === "function" ? args.pop() : undefined;
    if (ack) ack(...args);
    else socket.emit("echoed", ...args);
  });
  socket.on("silent", () => {});
  socket.on("transport", (ack) => ack(socket.conn.transport.name));
  // Asks the client for an ack and tells it what it answered.
  socket.on("ask", (...args) => {
    socket.emit("question", ...args, (...answer) => socket.emit("answered", ...answer));
  });
  socket.on("count", (from, to) => {
    for (let n = from; n < to; n++) socket.emit("n", n);
  });
  socket.on("kick", () => socket.disconnect(false));
  socket.on("cut", () => socket.conn.close());
}

io.on("connection", serve);
io.of("/admin")
  .use((socket, next) => {
    const token = socket.handshake.auth.token ?? socket.handshake.query.token;
    if (token === "secret") return next();
    next(Object.assign(new Error("not you"), { data: { code: "token-invalid" } }));
  })
  .on("connection", serve);

http.listen(0, "127.0.0.1", () => console.log(http.address().port));
process.stdin.resume().on("end", () => process.exit(0));
