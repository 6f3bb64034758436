// Reference for the example `engine_echo`: npm engine.io that sends every message back.

import { Server } from "engine.io";
import { engineOptions, parseFlags } from "./flags.mjs";
import { createHttpServer, listen } from "./http.mjs";

const flags = parseFlags("/engine.io/");
const options = engineOptions(flags);
const http = createHttpServer();
const engine = new Server(options);

engine.attach(http, { path: flags.path });
engine.on("connection", (socket) => {
  socket.on("data", (data) => socket.send(data));
});
listen(http, flags);
