// Engine.IO revision 3: payloads with lengths, binary payloads, base64, JSONP.

const v3 = (name, ...steps) => ({ name: `revision 3: ${name}`, steps });
const open = ["open", { eio: 3 }];
const openBase64 = ["open", { eio: 3, query: "&b64=1" }];
const octets = { headers: { "Content-Type": "application/octet-stream" } };
const form = { query: "&j=0", headers: { "Content-Type": "application/x-www-form-urlencoded" } };
/** Packets with their lengths before them. */
const payload = (...packets) => packets.map((packet) => `${packet.length}:${packet}`).join("");
const alive = [["POST", "12:4still here!"], ["GET"]];
const bytes = (...parts) => Buffer.concat(parts.map((part) => Buffer.from(part)));

export default {
  area: "revision 3",
  server: "engine",
  scripts: [
    v3("polling handshake", open),
    v3("polling handshake with b64", openBase64),
    v3("websocket handshake", ["ws", "w", { eio: 3 }]),
    v3("handshake errors are those of revision 4", ["request", "GET", { target: "$path?EIO=3&transport=abc" }], ["request", "POST", { target: "$path?EIO=3&transport=polling" }], ["request", "GET", { target: "$path?EIO=3" }]),
    v3("one message", open, ["POST", "6:4hello"], ["GET"]),
    v3("several messages", open, ["POST", "6:4test16:4test26:4test3"], ["GET"]),
    v3("lengths count UTF-16 units", open, ["POST", "2:4€3:4😀3:4é!"], ["GET"]),
    v3("length in bytes instead of characters", open, ["POST", "4:4€"], ["GET"]),
    v3("message with colons and digits", open, ["POST", "9:45:4hello"], ["GET"]),
    v3("empty message", open, ["POST", "1:4"], ["GET"]),
    v3("packet of length 0", open, ["POST", "0:6:4hello"], ["GET"]),
    v3("binary as base64 to a client that takes binary", open, ["POST", "6:4hello10:b4AQIDBA=="], ["GET"]),
    v3("binary as base64 to a client that does not", openBase64, ["POST", "6:4hello10:b4AQIDBA=="], ["GET", { query: "&b64=1" }]),
    v3("binary base64 that begins with a 4", openBase64, ["POST", payload("b44BQG")], ["GET"]),
    v3("binary payload from the client", open, ["POST", bytes([0, 6, 255], "4hello", [1, 5, 255, 4, 1, 2, 3, 4]), octets], ["GET"]),
    v3("binary payload with a length of three digits", open, ["POST", bytes([1, 2, 0, 1, 255, 4], Buffer.alloc(200, 7)), octets], ["GET"]),
    v3("binary payload with text beyond ASCII", open, ["POST", bytes([0, 4, 255], "4€"), octets], ["POST", "10:b4AQIDBA=="], ["GET"]),
    v3("binary payload of text only", open, ["POST", bytes([0, 6, 255], "4hello"), octets], ["GET"]),
    v3("binary payload in base64 mode", openBase64, ["POST", bytes([1, 5, 255, 4, 1, 2, 3, 4]), octets], ["GET"]),
    v3("text answered as a binary payload when any packet is binary", open, ["POST", "2:4€10:b4AQIDBA==2:4é"], ["GET"]),
    v3("empty binary", open, ["POST", "2:b4"], ["GET"]),
    v3("b64 of 0 and of nothing", ["open", { eio: 3, query: "&b64=0" }], ["POST", "10:b4AQIDBA=="], ["GET"], ["open", { eio: 3, query: "&b64=" }], ["POST", "10:b4AQIDBA=="], ["GET"]),
    v3("b64 only on the get", open, ["POST", "10:b4AQIDBA=="], ["GET", { query: "&b64=1" }]),

    // malformed payloads
    v3("invalid payload", open, ["POST", "abc"], ["GET"]),
    v3("payload shorter than its length", open, ["POST", "10:4hello"], ["GET"]),
    v3("payload longer than its length", open, ["POST", "2:4hello"], ["GET"]),
    v3("payload without a length", open, ["POST", ":4hello"], ["GET"]),
    v3("payload with a negative length", open, ["POST", "-1:4hello"], ["GET"]),
    v3("payload with an unknown packet", open, ["POST", "2:9x"], ["GET"]),
    v3("payload empty", open, ["POST", ""], ["GET"]),
    v3("payload of revision 4", open, ["POST", "4a\x1e4b"], ["GET"]),
    v3("good packet, then a bad one", open, ["start", "g", ["GET"]], ["settle"], ["POST", "2:4a2:9x"], ["finish", "g"], ["GET"]),
    v3("digits beyond the end", open, ["POST", "2:4a3"], ["GET"]),
    v3("binary payload with an unknown type", open, ["POST", Buffer.from([1, 2, 255, 9, 1]), octets], ...alive),

    // websocket
    v3("websocket text", ["ws", "w", { eio: 3 }], ["text", "w", "4hello"], ["frames", "w", 1]),
    v3("websocket binary has a type byte", ["ws", "w", { eio: 3 }], ["binary", "w", [4, 1, 2, 3, 4]], ["frames", "w", 1]),
    v3("websocket binary of the type alone", ["ws", "w", { eio: 3 }], ["binary", "w", [4]], ["frames", "w", 1]),
    v3("websocket binary to a client in base64 mode", ["ws", "w", { eio: 3, query: "&b64=1" }], ["binary", "w", [4, 1, 2, 3, 4]], ["frames", "w", 1]),
    v3("websocket base64 in a text frame", ["ws", "w", { eio: 3 }], ["text", "w", "b4AQIDBA=="], ["frames", "w", 1]),
    v3("websocket invalid packet", ["ws", "w", { eio: 3 }], ["text", "w", "abc"], ["closed", "w"]),
    v3("websocket empty frame", ["ws", "w", { eio: 3 }], ["text", "w", ""], ["closed", "w"]),

    // session
    v3("second get while one is pending", open, ["start", "g", ["GET"]], ["settle"], ["GET"], ["finish", "g"], ["GET"]),
    v3("close packet with a get pending", open, ["start", "g", ["GET"]], ["settle"], ["POST", "1:1"], ["finish", "g"], ["GET"]),
    v3("session used with EIO 4", open, ["GET", { eio: 4 }], ["POST", "6:4hello"], ["GET"]),
    v3("upgrade", open, ["POST", "6:4hello"], ["upgrade", "w"], ["text", "w", "2probe"], ["frames", "w", 1], ["text", "w", "5"], ["frames", "w", 1], ["text", "w", "4world"], ["frames", "w", 1], ["GET"]),
    v3("upgrade with a get pending", open, ["start", "g", ["GET"]], ["settle"], ["upgrade", "w"], ["text", "w", "2probe"], ["frames", "w", 1], ["finish", "g"], ["text", "w", "5"], ["text", "w", "4hello"], ["frames", "w", 1]),
    v3("upgrade with binary waiting", open, ["POST", "10:b4AQIDBA=="], ["upgrade", "w"], ["text", "w", "2probe"], ["frames", "w", 1], ["text", "w", "5"], ["frames", "w", 1]),
    v3("second websocket after the upgrade", open, ["upgrade", "w"], ["text", "w", "2probe"], ["frames", "w", 1], ["text", "w", "5"], ["text", "w", "4a"], ["frames", "w", 1], ["upgrade", "x"], ["closed", "x"]),

    // JSONP
    v3("JSONP handshake", ["open", { eio: 3, query: "&j=0" }]),
    v3("JSONP message from a form", ["open", { eio: 3, query: "&j=0" }], ["POST", "d=6%3A4hello", form], ["GET", { query: "&j=1" }]),
    v3("JSONP escaped newlines", ["open", { eio: 3, query: "&j=0" }], ["POST", `d=${encodeURIComponent("4:4a\\nb")}`, form], ["POST", `d=${encodeURIComponent("5:4a\\\\nb")}`, form], ["GET", { query: "&j=2" }]),
    v3("JSONP answer is valid JavaScript", ["open", { eio: 3, query: "&j=0" }], ["POST", `d=${encodeURIComponent(payload('4"\u2028\u2029\\</é'))}`, form], ["GET", { query: "&j=3" }]),
    v3("JSONP binary is base64", ["open", { eio: 3, query: "&j=0&b64=1" }], ["POST", `d=${encodeURIComponent("10:b4AQIDBA==")}`, form], ["GET", { query: "&j=1&b64=1" }]),
    v3("JSONP form with plus signs", ["open", { eio: 3, query: "&j=0" }], ["POST", "d=4:4a+b", form], ["GET", { query: "&j=1" }]),
    v3("JSONP form without its field", ["open", { eio: 3, query: "&j=0" }], ["POST", "x=6%3A4hello", form], ["POST", "d=6%3A4world", form], ["GET", { query: "&j=1" }]),
    v3("JSONP index that is not a number", ["open", { eio: 3, query: "&j=0;alert(1)" }]),
    v3("JSONP index empty", ["open", { eio: 3, query: "&j=" }]),
    v3("JSONP close", ["open", { eio: 3, query: "&j=0" }], ["start", "g", ["GET", { query: "&j=1" }]], ["settle"], ["POST", "d=1:1", form], ["finish", "g"]),
    { name: "JSONP in revision 4", steps: [["open", { query: "&j=7" }], ["POST", "d=4hello", form], ["GET", { query: "&j=8" }]] },
    v3("alive after all", open, ...alive),
  ],
};
