// A raw WebSocket client over net.Socket (RFC 6455): it shows every frame as it came, control frames included, and can
// send what no proper client would.

import { createHash } from "node:crypto";
import { openConnection } from "./http.mjs";

export const OPCODES = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };
const OPCODE_NAMES = Object.fromEntries(Object.entries(OPCODES).map(([name, code]) => [code, name]));

/** The key that every handshake of these tests sends, and the only right answer to it. */
export const KEY = "dGhlIHNhbXBsZSBub25jZQ==";
export const ACCEPT = createHash("sha1").update(`${KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");

/** The headers of a proper handshake. */
export const UPGRADE_HEADERS = {
  Connection: "Upgrade",
  Upgrade: "websocket",
  "Sec-WebSocket-Version": "13",
  "Sec-WebSocket-Key": KEY,
};

/**
 * Asks for a WebSocket. Resolves to `{ response, socket }`: `socket` (a `RawWebSocket`) only after a 101.
 * A header set to undefined in `headers` is left out.
 */
export async function openWebSocket(port, target, { headers = {}, method = "GET" } = {}) {
  const channel = openConnection(port);
  const all = Object.entries({ ...UPGRADE_HEADERS, ...headers }).filter(([, value]) => value !== undefined);
  const lines = [`${method} ${target} HTTP/1.1`, `Host: 127.0.0.1:${port}`, ...all.map(([name, value]) => `${name}: ${value}`)];
  channel.socket.write(lines.join("\r\n") + "\r\n\r\n");
  const response = await channel.next(method);
  if (response.status !== 101) {
    channel.socket.destroy();
    return { response };
  }
  return { response, socket: new RawWebSocket(channel.socket, channel.takeRest()) };
}

export class RawWebSocket {
  #tcp;
  #buffer;
  #ended = false;
  #wake = () => {};
  #sentClose = false;

  constructor(tcp, rest) {
    this.#tcp = tcp;
    this.#buffer = rest;
    this.#ended = tcp.destroyed;
    tcp.on("data", (chunk) => {
      this.#buffer = Buffer.concat([this.#buffer, chunk]);
      this.#wake();
    });
    tcp.on("close", () => {
      this.#ended = true;
      this.#wake();
    });
  }

  text(text) {
    this.frame({ opcode: OPCODES.text, payload: Buffer.from(text) });
  }

  binary(bytes) {
    this.frame({ opcode: OPCODES.binary, payload: Buffer.from(bytes) });
  }

  /** Any frame at all: `fin`, `rsv` (0..7), `opcode`, `masked` and the payload are the caller's. */
  frame({ opcode, payload = Buffer.alloc(0), fin = true, rsv = 0, masked = true }) {
    if (opcode === OPCODES.close) this.#sentClose = true;
    this.bytes(encodeFrame({ opcode, payload, fin, rsv, masked }));
  }

  bytes(bytes) {
    this.#tcp.write(bytes);
  }

  /** The next frame, or undefined when the server has closed the TCP connection. A close frame is answered in kind. */
  async next() {
    for (;;) {
      const frame = this.#take();
      if (frame) {
        if (frame.kind === "close" && !this.#sentClose && !this.#tcp.destroyed) {
          this.frame({ opcode: OPCODES.close, payload: frame.payload });
        }
        return frame;
      }
      if (this.#ended) return undefined;
      await new Promise((resolve) => (this.#wake = resolve));
    }
  }

  /** Ends the TCP connection without a word. */
  drop() {
    this.#tcp.destroy();
  }

  #take() {
    const b = this.#buffer;
    if (b.length < 2) return undefined;
    let length = b[1] & 0x7f;
    let at = 2;
    if (length === 126) {
      if (b.length < 4) return undefined;
      length = b.readUInt16BE(2);
      at = 4;
    } else if (length === 127) {
      if (b.length < 10) return undefined;
      length = Number(b.readBigUInt64BE(2));
      at = 10;
    }
    if (b.length < at + length) return undefined;
    const payload = b.subarray(at, at + length);
    this.#buffer = b.subarray(at + length);
    const kind = OPCODE_NAMES[b[0] & 0x0f] ?? `opcode ${b[0] & 0x0f}`;
    return {
      kind,
      fin: (b[0] & 0x80) !== 0,
      rsv: (b[0] >> 4) & 7,
      masked: (b[1] & 0x80) !== 0,
      payload,
      text: kind === "text" ? payload.toString() : undefined,
      code: kind === "close" ? (payload.length >= 2 ? payload.readUInt16BE(0) : 1005) : undefined,
    };
  }
}

export function encodeFrame({ opcode, payload = Buffer.alloc(0), fin = true, rsv = 0, masked = true }) {
  const mask = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);
  const head = [(fin ? 0x80 : 0) | (rsv << 4) | opcode];
  const maskBit = masked ? 0x80 : 0;
  let extended = Buffer.alloc(0);
  if (payload.length < 126) {
    head.push(maskBit | payload.length);
  } else if (payload.length < 65_536) {
    head.push(maskBit | 126);
    extended = Buffer.alloc(2);
    extended.writeUInt16BE(payload.length);
  } else {
    head.push(maskBit | 127);
    extended = Buffer.alloc(8);
    extended.writeBigUInt64BE(BigInt(payload.length));
  }
  const body = masked ? Buffer.from(payload.map((byte, i) => byte ^ mask[i % 4])) : payload;
  return Buffer.concat([Buffer.from(head), extended, masked ? mask : Buffer.alloc(0), body]);
}
