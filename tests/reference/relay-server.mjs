// The reference server with the two handlers that `bowline serve` has without a configuration:
// `/` echoes, `/relay` sends to everybody. Tests are first proven right against it.
//
//   node relay-server.mjs --listen 127.0.0.1:8000 [--settings JSON]
//
// The settings are those of target.mjs (the keys of bowline.toml); unknown ones are ignored, since
// the reference has no shards.
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { Server } from "socket.io";
import { milliseconds, bytes } from "../clients/target.mjs";

const { values } = parseArgs({
  options: { listen: { type: "string" }, settings: { type: "string", default: "{}" } },
});
const [host, port] = values.listen.split(":");
const { engine = {} } = JSON.parse(values.settings);

const http = createServer((request, response) => {
  if (request.url === "/health/live") {
    response.writeHead(200, { "content-type": "application/json" });
    response.end('{"status":"live"}');
  } else {
    response.writeHead(404).end();
  }
});

const io = new Server(http, {
  allowEIO3: engine["allow-eio3"] ?? true,
  pingInterval: milliseconds(engine["ping-interval"] ?? "25s"),
  pingTimeout: milliseconds(engine["ping-timeout"] ?? "20s"),
  maxHttpBufferSize: bytes(engine["max-payload"] ?? "1MB"),
  perMessageDeflate: engine.compression ? { threshold: 0 } : false,
});

io.on("connection", (socket) => {
  socket.onAny((...args) => {
    const ack = typeof args.at(-1) === "function" ? args.pop() : undefined;
    if (ack) ack(...args.slice(1));
    else socket.emit(...args);
  });
});

const relay = io.of("/relay");
relay.on("connection", (socket) => {
  socket.onAny((...args) => {
    const ack = typeof args.at(-1) === "function" ? args.pop() : undefined;
    relay.emit(...args);
    ack?.({ receivers: relay.sockets.size });
  });
});

http.listen(Number(port), host);
