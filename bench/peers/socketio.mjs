// Socket.IO with the handlers that all peers have: `/` echoes, as an ack if one is asked for;
// `/relay` sends to everybody; `/rooms` to the room that a client named when it connected.
//
//   node socketio.mjs 8000
import { createServer } from "node:http";
import { Server } from "socket.io";

// What is not for Socket.IO has an answer too: the benchmark asks whether the server is there.
const http = createServer((_, response) => response.writeHead(404).end());
// The cheapest settings: what is compressed costs more.
const io = new Server(http, { perMessageDeflate: false, httpCompression: false });

io.on("connection", (socket) => {
  socket.on("message", (data, ack) => (ack ? ack(data) : socket.emit("message", data)));
});

io.of("/relay").on("connection", (socket) => {
  socket.on("message", (data) => io.of("/relay").emit("message", data));
});

io.of("/rooms").on("connection", (socket) => {
  const { room } = socket.handshake.auth;
  socket.join(room);
  socket.on("message", (data) => io.of("/rooms").to(room).emit("message", data));
});

http.listen(Number(process.argv[2]), "127.0.0.1");
