// An app behind HTTP that says when it heard of each event: `node backend-app.mjs PORT LIFE`. It keeps nothing when it is killed.
//
// The ack of an event is [life, number]: how often the app has been started, and the how manieth event of this life it was.
// Within a life it checks by itself that the numbers of a session rise.

import { createServer } from "node:http";

const [port, life] = process.argv.slice(2).map(Number);
let events = 0;
const last = new Map();

const server = createServer((request, response) => {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    const asked = JSON.parse(Buffer.concat(pieces));
    const body = Buffer.from(JSON.stringify(answer(asked)));
    response.writeHead(200, { "content-type": "application/json", "content-length": body.length });
    response.end(body);
  });
});
server.keepAliveTimeout = 60_000;
server.listen(port, "127.0.0.1");

function answer(asked) {
  if (asked.type === "connect") return { allow: true };
  if (asked.type === "disconnect") {
    last.delete(asked.sid);
    return {};
  }
  const [number] = asked.args;
  const before = last.get(asked.sid) ?? -1;
  last.set(asked.sid, number);
  events += 1;
  return { ack: number > before ? [life, events] : ["out of order", number, before] };
}
