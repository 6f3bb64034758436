// The HTTP server that the reference engines are attached to: `/health/live` answers, everything else that is not the
// engine's is not found.

import { createServer } from "node:http";

export function createHttpServer() {
  return createServer((request, response) => {
    if (request.url === "/health/live") {
      response.setHeader("content-type", "application/json");
      response.end('{"status":"live"}');
    } else {
      response.writeHead(404).end();
    }
  });
}

/** Ends at SIGTERM at once: the connections of a test are nobody's loss. */
export function listen(server, flags) {
  server.listen(flags.port, flags.host);
  process.on("SIGTERM", () => process.exit(0));
}
