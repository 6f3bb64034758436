// Sizes at the limit and beyond: --max-payload is 1,000 bytes here.

const wsMessage = (length) => `4${"a".repeat(length - 1)}`;

export default {
  area: "limits",
  server: "engine",
  scripts: [
    { name: "handshake names the limit", steps: [["open"]] },
    { name: "post of exactly the limit", steps: [["open"], ["POST", wsMessage(1000)], ["poll", 1]] },
    { name: "post over the limit", steps: [["open"], ["POST", wsMessage(1001)], ["POST", "4still here"], ["poll", 1]] },
    { name: "post over the limit with a get pending", steps: [["open"], ["start", "g", ["GET"]], ["settle"], ["POST", wsMessage(1001)], ["POST", "4still here"], ["finish", "g"]] },
    { name: "post over the limit in bytes, not in characters", steps: [["open"], ["POST", `4${"é".repeat(500)}`], ["POST", "4still here"], ["poll", 1]] },
    { name: "post over the limit in chunks", steps: [["open"], ["bytes", `POST $path?EIO=4&transport=polling&sid=$sid HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n${wsMessage(1001)}\r\n0\r\n\r\n`], ["POST", "4still here"], ["poll", 1]] },
    { name: "post far over the limit", steps: [["open"], ["POST", wsMessage(300_000)], ["POST", "4still here"], ["poll", 1]] },
    { name: "websocket message of exactly the limit", steps: [["ws", "w"], ["text", "w", wsMessage(1000)], ["frames", "w", 1]] },
    { name: "websocket message over the limit", steps: [["ws", "w"], ["text", "w", wsMessage(1001)], ["closed", "w"]] },
    { name: "websocket binary over the limit", steps: [["ws", "w"], ["binary", "w", Buffer.alloc(1001)], ["closed", "w"]] },
    { name: "websocket message over the limit in fragments", steps: [["ws", "w"], ["frame", "w", { opcode: 1, fin: false, payload: wsMessage(600) }], ["frame", "w", { opcode: 0, payload: "b".repeat(500) }], ["closed", "w"]] },
  ].map((script) => ({ flags: { "max-payload": "1000" }, ...script })),
};
