// From polling to WebSocket: probes good and bad, what happens to packets and requests meanwhile.

const probe = [["upgrade", "w"], ["text", "w", "2probe"], ["frames", "w", 1]];
const overWebSocket = [["text", "w", "4hello"], ["frames", "w", 1]];
const overPolling = [["POST", "4still here"], ["poll", 1]];

export default {
  area: "upgrade",
  server: "engine",
  scripts: [
    { name: "upgrade", steps: [["open"], ...probe, ["text", "w", "5"], ...overWebSocket] },
    { name: "upgrade with a get pending", steps: [["open"], ["start", "g", ["GET"]], ["settle"], ...probe, ["finish", "g"], ["text", "w", "5"], ...overWebSocket] },
    { name: "upgrade with several gets in the window", steps: [["open"], ...probe, ["GET"], ["GET"], ["GET"], ["text", "w", "5"], ...overWebSocket] },
    { name: "upgrade moves what was not polled", steps: [["open"], ["POST", "4before"], ...probe, ["POST", "4within"], ["text", "w", "5"], ["frames", "w", 2], ...overWebSocket] },
    { name: "upgrade: messages in the window go to polling", steps: [["open"], ...probe, ["POST", "4a"], ["poll", 1], ["text", "w", "5"], ...overWebSocket] },
    { name: "upgrade with a binary message waiting", steps: [["open"], ["POST", "bAQIDBA=="], ...probe, ["text", "w", "5"], ["frames", "w", 1]] },
    { name: "upgrade packet and message in one write", steps: [["open"], ...probe, ["text", "w", "5"], ["text", "w", "4a"], ["text", "w", "4b"], ["frames", "w", 2]] },
    { name: "upgrade packet without waiting for the answer to the probe", steps: [["open"], ["upgrade", "w"], ["text", "w", "2probe"], ["text", "w", "5"], ["frames", "w", 1], ...overWebSocket] },
    { name: "upgrade packet without a probe", steps: [["open"], ["upgrade", "w"], ["text", "w", "5"], ["text", "w", "4hello"], ["closed", "w", { within: 400 }]] },
    { name: "upgrade packet while a get is pending and no noop was due", steps: [["open"], ...probe, ["start", "g", ["GET"]], ["text", "w", "5"], ["finish", "g"], ...overWebSocket] },
    { name: "probe sent twice", steps: [["open"], ...probe, ["text", "w", "2probe"], ["frames", "w", 1], ["text", "w", "5"], ...overWebSocket] },

    // probes that fail leave the session where it was
    { name: "probe with a message instead", steps: [["open"], ["upgrade", "w"], ["text", "w", "4hello"], ["closed", "w"], ...overPolling] },
    { name: "probe with other data", steps: [["open"], ["upgrade", "w"], ["text", "w", "2prob"], ["closed", "w"], ...overPolling] },
    { name: "probe without data", steps: [["open"], ["upgrade", "w"], ["text", "w", "2"], ["closed", "w"], ...overPolling] },
    { name: "probe of binary", steps: [["open"], ["upgrade", "w"], ["binary", "w", [1, 2]], ["closed", "w"], ...overPolling] },
    { name: "probe of an invalid packet", steps: [["open"], ["upgrade", "w"], ["text", "w", "abc"], ["closed", "w"], ...overPolling] },
    { name: "probe, then a message instead of the upgrade packet", steps: [["open"], ...probe, ["text", "w", "4hello"], ["closed", "w"], ...overPolling] },
    { name: "probe dropped before a word", steps: [["open"], ["upgrade", "w"], ["drop", "w"], ["settle"], ...overPolling] },
    { name: "probe dropped after its answer", steps: [["open"], ["POST", "4queued"], ...probe, ["drop", "w"], ["settle"], ["poll", 1], ...overPolling] },
    { name: "probe closed properly", steps: [["open"], ["upgrade", "w"], ["frame", "w", { opcode: 8, payload: Buffer.from([3, 232]) }], ["closed", "w"], ...overPolling] },
    { name: "probe frame without a mask", steps: [["open"], ["upgrade", "w"], ["frame", "w", { opcode: 1, payload: "2probe", masked: false }], ["closed", "w"], ...overPolling] },
    { name: "probe that failed can be tried again", steps: [["open"], ["upgrade", "x"], ["text", "x", "4no"], ["closed", "x"], ...probe, ["text", "w", "5"], ...overWebSocket] },
    { name: "probe with a get pending that then fails", steps: [["open"], ["start", "g", ["GET"]], ["settle"], ...probe, ["finish", "g"], ["drop", "w"], ["settle"], ...overPolling] },
    { name: "probe never finished is closed after ten seconds, and polling goes on", steps: [["open"], ...probe, ["closed", "w", { within: 12_000 }], ...overPolling] },
    { name: "probe of a session that closes meanwhile", steps: [["open"], ...probe, ["POST", "1"], ["closed", "w"], ["GET"]] },

    // a second websocket
    { name: "second websocket while one is probing", steps: [["open"], ...probe, ["upgrade", "x"], ["closed", "x"], ["text", "w", "5"], ...overWebSocket] },
    { name: "second websocket after the upgrade", steps: [["open"], ...probe, ["text", "w", "5"], ...overWebSocket, ["upgrade", "x"], ["closed", "x"], ...overWebSocket] },
    { name: "second websocket that does not wait", steps: [["open"], ...probe, ["text", "w", "5"], ...overWebSocket, ["upgrade", "x"], ["text", "x", "2probe"], ["closed", "x"], ...overWebSocket] },

    // requests of the wrong kind
    { name: "get after the upgrade", steps: [["open"], ...probe, ["text", "w", "5"], ...overWebSocket, ["GET"], ...overWebSocket] },
    { name: "post after the upgrade", steps: [["open"], ...probe, ["text", "w", "5"], ...overWebSocket, ["POST", "4a"], ...overWebSocket] },
    { name: "upgrade of an unknown session", steps: [["upgrade", "w", { sid: "nobody" }]] },
    { name: "upgrade in another revision", steps: [["open"], ["upgrade", "w", { eio: 3 }], ...overPolling] },
    { name: "upgrade to polling", steps: [["open"], ["upgrade", "w", { target: "$path?EIO=4&transport=polling&sid=$sid" }], ["closed", "w"], ...overPolling] },
    { name: "upgrade with a bad websocket key", steps: [["open"], ["upgrade", "w", { headers: { "Sec-WebSocket-Key": "x" } }], ...overPolling] },
    { name: "websocket closed after the upgrade", steps: [["open"], ...probe, ["text", "w", "5"], ...overWebSocket, ["drop", "w"], ["settle"], ["GET"]] },
  ],
};
