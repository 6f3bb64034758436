// A raw HTTP/1.1 client over net.Socket: it sends the bytes it is given, adds nothing but `Host` and the length of a body,
// and says what came back, a missing answer included.

import { connect } from "node:net";

/**
 * Sends one request on a connection of its own (or on `connection`, from `openConnection`).
 * Returns `{ response, abort }`: `response` resolves to `{ status, headers, body, persistent }` or
 * `{ error: "closed without an answer" }`, never rejects.
 */
export function exchange(port, { method = "GET", target, headers = {}, body, connection }) {
  const channel = connection ?? openConnection(port);
  const bytes = body === undefined ? undefined : Buffer.from(body);
  const lines = [`${method} ${target} HTTP/1.1`, `Host: 127.0.0.1:${port}`];
  for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`);
  if (bytes && !Object.keys(headers).some((name) => /^(content-length|transfer-encoding)$/i.test(name))) {
    lines.push(`Content-Length: ${bytes.length}`);
  }
  channel.socket.write(Buffer.concat([Buffer.from(lines.join("\r\n") + "\r\n\r\n", "latin1"), bytes ?? Buffer.alloc(0)]));
  const response = channel.next(method).then((answer) => {
    if (!connection) channel.socket.destroy();
    return answer;
  });
  return { response, abort: () => channel.socket.destroy() };
}

/** A connection that answers are read from in order. `socket` may be written to directly. */
export function openConnection(port) {
  const socket = connect(port, "127.0.0.1");
  socket.setNoDelay(true);
  socket.on("error", () => {});
  let buffer = Buffer.alloc(0);
  let ended = false;
  let wake = () => {};
  socket.on("data", (chunk) => {
    buffer = Buffer.concat([buffer, chunk]);
    wake();
  });
  socket.on("close", () => {
    ended = true;
    wake();
  });

  const channel = {
    socket,
    /** Reads the next answer; the method decides whether it may have a body. */
    async next(method = "GET") {
      for (;;) {
        const parsed = parseResponse(buffer, method, ended);
        if (parsed) {
          buffer = buffer.subarray(parsed.length);
          if (parsed.response.status === 100) continue; // only says that the body may come
          return parsed.response;
        }
        if (ended) return { error: buffer.length ? "closed within an answer" : "closed without an answer" };
        await new Promise((resolve) => (wake = resolve));
      }
    },
    /** Takes what was received beyond the answers read so far: the first frames after a 101. */
    takeRest() {
      const rest = buffer;
      buffer = Buffer.alloc(0);
      socket.removeAllListeners("data");
      return rest;
    },
  };
  return channel;
}

/** Sends bytes as they are and reads one answer. */
export async function sendBytes(port, bytes, method = "GET") {
  const channel = openConnection(port);
  channel.socket.write(Buffer.from(bytes, "latin1"));
  const response = await channel.next(method);
  channel.socket.destroy();
  return response;
}

function parseResponse(buffer, method, ended) {
  const headEnd = buffer.indexOf("\r\n\r\n");
  if (headEnd < 0) return undefined;
  const [statusLine, ...lines] = buffer.toString("latin1", 0, headEnd).split("\r\n");
  const status = Number(statusLine.split(" ")[1]);
  const headers = new Map();
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon).toLowerCase();
    const value = line.slice(colon + 1).trim();
    headers.set(name, headers.has(name) ? `${headers.get(name)}, ${value}` : value);
  }
  const connection = headers.get("connection") ?? "";
  const persistent = statusLine.startsWith("HTTP/1.0") ? /\bkeep-alive\b/i.test(connection) : !/\bclose\b/i.test(connection);
  const done = (body, length) => ({ response: { status, headers, body, persistent }, length });
  const start = headEnd + 4;

  if (method === "HEAD" || status === 204 || status === 304 || status < 200) return done(Buffer.alloc(0), start);
  if (/chunked/i.test(headers.get("transfer-encoding") ?? "")) {
    const chunks = parseChunks(buffer, start);
    return chunks && done(chunks.body, chunks.end);
  }
  if (headers.has("content-length")) {
    const length = Number(headers.get("content-length"));
    return buffer.length >= start + length ? done(buffer.subarray(start, start + length), start + length) : undefined;
  }
  return ended ? done(buffer.subarray(start), buffer.length) : undefined;
}

function parseChunks(buffer, start) {
  const parts = [];
  let at = start;
  for (;;) {
    const lineEnd = buffer.indexOf("\r\n", at);
    if (lineEnd < 0) return undefined;
    const size = parseInt(buffer.toString("latin1", at, lineEnd), 16);
    const chunkEnd = lineEnd + 2 + size;
    if (buffer.length < chunkEnd + 2) return undefined;
    if (size === 0) return { body: Buffer.concat(parts), end: chunkEnd + 2 };
    parts.push(buffer.subarray(lineEnd + 2, chunkEnd));
    at = chunkEnd + 2;
  }
}
