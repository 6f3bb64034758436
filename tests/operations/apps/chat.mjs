// A Socket.IO server whose `order` event asks the events app.

import { createServer } from "node:http";

import { Server } from "socket.io";

const EVENTS = `http://127.0.0.1:${process.env.EVENTS_PORT}/`;

/** How many orders there are now, or why nobody knows. */
async function order() {
  try {
    return await (await fetch(EVENTS)).json();
  } catch (error) {
    return { error: String(error.cause ?? error) };
  }
}

// Without what it needs it does not even start.
if ((await order()).error) throw new Error("the events app does not answer");
const server = createServer();
const io = new Server(server);
io.on("connection", (socket) => socket.on("order", async (answer) => answer(await order())));
server.listen(Number(process.env.CHAT_PORT), "127.0.0.1", () => console.log("chat is listening"));
process.on("SIGTERM", () => io.close(() => process.exit(0)));
