// A bot as an app behind HTTP: it answers each message of its links, or holds it until it is told to go on.

import { createServer } from "node:http";

/** Starts one. `deliveries` is what it got, in order: the message as Bowline sends it, and `at`. */
export async function startApp() {
  const deliveries = [];
  const held = new Map();
  const app = {
    deliveries,
    /** What was delivered with this id. */
    of: (id) => deliveries.filter((one) => one.id === id),
    /** Messages for which this is true are not answered, until `release(id)` or until the asker is gone. */
    holds: () => false,
    /** Messages for which this is true are refused: they are put aside. */
    refuses: () => false,
    /** How long it takes for an answer. */
    thinksMs: 0,
    release(id) {
      held.get(id)?.();
      held.delete(id);
    },
  };
  const server = createServer((request, response) => {
    let text = "";
    request.setEncoding("utf8");
    request.on("data", (chunk) => (text += chunk));
    request.on("end", () => {
      const said = JSON.parse(text);
      if (said.type !== "message") return response.writeHead(200, { "content-type": "application/json" }).end("{}");
      deliveries.push({ ...said, at: performance.now() });
      const answer = () => {
        response.writeHead(200, { "content-type": "application/json" });
        const reply = { type: "answer", to: said.id, attempt: said.attempt };
        response.end(JSON.stringify(app.refuses(said) ? { refuse: "not this one" } : { reply }));
      };
      if (app.holds(said)) held.set(said.id, answer);
      else setTimeout(answer, app.thinksMs);
    });
    request.on("error", () => {});
    response.on("error", () => {});
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return Object.assign(app, {
    port: server.address().port,
    stop: () => new Promise((resolve) => (server.closeAllConnections(), server.close(resolve))),
  });
}
