// The reference server that `reference.rs` opens links to: npm socket.io with recovery. Prints its port, and ends when its
// stdin does.
//
//   node reference.mjs PATH_TO_TESTS_PACKAGE_JSON

import { createRequire } from "node:module";
import { createServer } from "node:http";

const require = createRequire(process.argv[2]);
const { Server } = require("socket.io");

const http = createServer();
const io = new Server(http, { allowEIO3: true, connectionStateRecovery: {} });
const say = (...texts) => texts.forEach((text) => io.emit("message", text));

io.use((socket, next) => {
  const token = socket.handshake.auth.token ?? socket.handshake.query.token;
  if (token === "secret") return next();
  next(new Error("not you"));
});
io.on("connection", (socket) => {
  socket.emit("welcome", { recovered: socket.recovered });
  socket.on("say", (...texts) => say(...texts));
  // What is said comes while the client is away.
  socket.on("lose", (...texts) => {
    socket.on("disconnect", () => setTimeout(say, 20, ...texts));
    socket.conn.close();
  });
  socket.on("probe", (nonce, ack) => ack(nonce));
  socket.on("ask", (what) => {
    socket.emit("question", what, (...answer) => socket.emit("answered", ...answer));
  });
  socket.on("kick", () => socket.disconnect(false));
});

http.listen(0, "127.0.0.1", () => console.log(http.address().port));
process.stdin.resume().on("end", () => process.exit(0));
