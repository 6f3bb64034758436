// Heartbeats, with 300 ms between pings and 200 ms for the answer.

export default {
  area: "heartbeat",
  server: "engine",
  scripts: [
    { name: "heartbeat over websocket, answered", steps: [["ws", "w"], ...Array(3).fill([["frames", "w", 1], ["text", "w", "3"]]).flat(), ["text", "w", "4still here"], ["frames", "w", 1]] },
    { name: "heartbeat over polling, answered", steps: [["open"], ...Array(3).fill([["GET"], ["POST", "3"]]).flat(), ["POST", "4still here"], ["poll", 1]] },
    { name: "heartbeat over websocket, not answered", steps: [["ws", "w"], ["closed", "w", { within: 2000 }]] },
    { name: "heartbeat over polling, not answered, with a get pending", steps: [["open"], ["GET"], ["GET"], ["GET"]] },
    { name: "heartbeat over polling, never polled", steps: [["open"], ["wait", 700], ["GET"]] },
    { name: "heartbeat waits for a get", steps: [["open"], ["wait", 350], ["GET"], ["POST", "3"], ["POST", "4still here"], ["poll", 1]] },
    { name: "pong with data", steps: [["ws", "w"], ["frames", "w", 1], ["text", "w", "3abc"], ["frames", "w", 1]] },
    { name: "revision 3: ping from the client over websocket", steps: [["ws", "w", { eio: 3 }], ["text", "w", "2"], ["frames", "w", 1], ["text", "w", "2"], ["frames", "w", 1]] },
    { name: "revision 3: ping with data over websocket", steps: [["ws", "w", { eio: 3 }], ["text", "w", "2probe"], ["frames", "w", 1]] },
    { name: "revision 3: silence over websocket", steps: [["ws", "w", { eio: 3 }], ["closed", "w", { within: 2000 }]] },
    { name: "revision 3: ping from the client over polling", steps: [["open", { eio: 3 }], ["POST", "1:2"], ["GET"], ["POST", "1:2"], ["GET"]] },
    { name: "revision 3: silence over polling", steps: [["open", { eio: 3 }], ["GET"], ["POST", "1:2"]] },
    { name: "revision 3: pings keep the session beyond its deadline", steps: [["ws", "w", { eio: 3 }], ...Array(3).fill([["wait", 300], ["text", "w", "2"], ["frames", "w", 1]]).flat()] },
    { name: "revision 3: pong from the client", steps: [["ws", "w", { eio: 3 }], ["text", "w", "3"], ["closed", "w", { within: 2000 }]] },
    { name: "pong owed over polling when the client upgrades, and never paid", steps: [["open"], ["GET"], ["upgrade", "w"], ["text", "w", "2probe"], ["frames", "w", 1], ["text", "w", "5"], ["closed", "w", { within: 1500 }]] },
    { name: "pong owed over polling when the client upgrades, paid over websocket", steps: [["open"], ["GET"], ["upgrade", "w"], ["text", "w", "2probe"], ["frames", "w", 1], ["text", "w", "5"], ["text", "w", "3"], ["frames", "w", 1], ["text", "w", "3"], ["frames", "w", 1]] },
  ].map((script) => ({ flags: { "ping-interval": "300ms", "ping-timeout": "200ms" }, ...script })),
};
