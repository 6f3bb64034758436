// The WebSocket transport: frames good and bad, and how it closes.

const text = (payload, more) => ["frame", "w", { opcode: 1, payload, ...more }];
const script = (name, ...steps) => ({ name, steps: [["ws", "w"], ...steps] });
const closes = ["closed", "w"];
const alive = [["text", "w", "4still here"], ["frames", "w", 1]];

export default {
  area: "websocket",
  server: "engine",
  scripts: [
    script("websocket text message", ["text", "w", "4hello"], ["frames", "w", 1]),
    script("websocket binary message", ["binary", "w", [1, 2, 3, 4]], ["frames", "w", 1]),
    script("websocket empty binary message", ["binary", "w", []], ["frames", "w", 1]),
    script("websocket empty message", ["text", "w", "4"], ["frames", "w", 1]),
    script("websocket base64 message in a text frame", ["text", "w", "bAQIDBA=="], ["frames", "w", 1]),
    script("websocket message of 125, 126, 65,535 and 65,536 bytes", ...[125, 126, 65_535, 65_536].flatMap((n) => [["text", "w", `4${"a".repeat(n - 1)}`], ["frames", "w", 1]])),
    script("websocket many messages in one write", ["text", "w", "4a"], ["text", "w", "4b"], ["binary", "w", [9]], ["text", "w", "4c"], ["frames", "w", 4]),
    script("websocket message in three fragments", text("4he", { fin: false }), ["frame", "w", { opcode: 0, fin: false, payload: "ll" }], ["frame", "w", { opcode: 0, payload: "o" }], ["frames", "w", 1]),
    script("websocket ping between two fragments", text("4he", { fin: false }), ["frame", "w", { opcode: 9, payload: "x" }], ["frame", "w", { opcode: 0, payload: "llo" }], ["frames", "w", 2]),
    script("websocket ping frame", ["frame", "w", { opcode: 9, payload: "abc" }], ["frames", "w", 1], ...alive),
    script("websocket pong frame", ["frame", "w", { opcode: 10, payload: "abc" }], ...alive),
    script("websocket frame byte by byte", ...[...Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0x34, 0x61])].flatMap((byte) => [["write", "w", [byte]], ["settle"]]), ["frames", "w", 1]),
    script("websocket record separator is data", ["text", "w", "4a\x1e4b"], ["frames", "w", 1]),

    // packets that are of another moment
    script("websocket invalid packet", ["text", "w", "abc"], closes),
    script("websocket empty frame", ["text", "w", ""], closes),
    script("websocket ping from the client", ["text", "w", "2"], closes),
    script("websocket probe on an open session", ["text", "w", "2probe"], closes),
    script("websocket pong that was not asked for", ["text", "w", "3"], ...alive),
    script("websocket open packet from the client", ["text", "w", "0"], ...alive),
    script("websocket upgrade packet on an open session", ["text", "w", "5"], ...alive),
    script("websocket noop from the client", ["text", "w", "6"], ...alive),
    script("websocket close packet", ["text", "w", "1"], ["closed", "w", { within: 400 }]),
    script("websocket messages after an invalid packet", ["text", "w", "4a"], ["text", "w", "abc"], ["text", "w", "4b"], closes),

    // close frames
    ...[1000, 1001, 1002, 1011, 3000, 4999].map((code) => script(`websocket close frame ${code}`, ["frame", "w", { opcode: 8, payload: Buffer.from([code >> 8, code & 255]) }], closes)),
    ...[0, 999, 1004, 1005, 1006, 1015, 2999, 5000].map((code) => script(`websocket close frame with the invalid code ${code}`, ["frame", "w", { opcode: 8, payload: Buffer.from([code >> 8, code & 255]) }], closes)),
    script("websocket close frame without a code", ["frame", "w", { opcode: 8 }], closes),
    script("websocket close frame with a reason", ["frame", "w", { opcode: 8, payload: Buffer.from("\x03\xe8bye", "latin1") }], closes),
    script("websocket close frame of one byte", ["frame", "w", { opcode: 8, payload: "x" }], closes),
    script("websocket close frame whose reason is not UTF-8", ["frame", "w", { opcode: 8, payload: Buffer.from([0x03, 0xe8, 0xff]) }], closes),
    script("websocket message before a close frame", ["text", "w", "4a"], ["frame", "w", { opcode: 8, payload: Buffer.from([3, 232]) }], closes),

    // frames that break RFC 6455
    script("websocket frame without a mask", text("4a", { masked: false }), closes),
    script("websocket reserved bit 1", text("4a", { rsv: 4 }), closes),
    script("websocket reserved bit 2", text("4a", { rsv: 2 }), closes),
    script("websocket reserved opcode 3", ["frame", "w", { opcode: 3, payload: "4a" }], closes),
    script("websocket reserved opcode 11", ["frame", "w", { opcode: 11 }], closes),
    script("websocket continuation of nothing", ["frame", "w", { opcode: 0, payload: "4a" }], closes),
    script("websocket new message within a fragmented one", text("4a", { fin: false }), text("4b"), closes),
    script("websocket fragmented ping", ["frame", "w", { opcode: 9, fin: false, payload: "a" }], closes),
    script("websocket ping of 126 bytes", ["frame", "w", { opcode: 9, payload: "a".repeat(126) }], closes),
    script("websocket text that is not UTF-8", text(Buffer.from([0x34, 0xff, 0xfe])), closes),
    script("websocket UTF-8 split between fragments", text(Buffer.from([0x34, 0xe2, 0x82]), { fin: false }), ["frame", "w", { opcode: 0, payload: Buffer.from([0xac]) }], ["frames", "w", 1]),
    script("websocket length with its top bit set", ["write", "w", [0x81, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]], closes),
    script("websocket length announced beyond the limit", ["write", "w", [0x81, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4]], closes),
  ],
};
