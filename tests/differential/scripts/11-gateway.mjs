// What only the gateway can be configured to: CORS, the cookie, revision 3 refused; and its two built-in handlers.

const origin = { Origin: "https://a.example" };
const stranger = { Origin: "https://b.example" };
const preflight = { "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-custom, content-type" };
const say = (text) => ["text", "w", text];
const reads = (n) => ["frames", "w", n];
const withFlags = (flags, scripts) => scripts.map((script) => ({ flags, ...script }));

export default {
  area: "gateway",
  server: "gateway",
  scripts: [
    ...withFlags({}, [
      { name: "gateway: echo", steps: [["ws", "w"], say("40"), reads(1), say('42["hello",1,{"a":2}]'), reads(1), say('425["hello",1]'), reads(1)] },
      // one script, because a second one at the same time would be in the same namespace
      { name: "gateway: relay", steps: [["ws", "w"], say("40/relay,"), reads(1), say('42/relay,["hello",1]'), reads(1), say('42/relay,7["hello"]'), reads(2), say('451-/relay,["hello",{"_placeholder":true,"num":0}]'), ["binary", "w", [1, 2]], reads(2)] },
      { name: "gateway: unknown namespace", steps: [["ws", "w"], say("40/nobody,"), reads(1)] },
    ]),
    ...withFlags({ "cors-origin": ["https://a.example", "https://c.example"] }, [
      { name: "cors: handshake of a listed origin", steps: [["open", { headers: origin }]] },
      { name: "cors: handshake without an origin", steps: [["open"]] },
      { name: "cors: handshake of another origin", steps: [["open", { headers: stranger }]] },
      { name: "cors: preflight of a listed origin", steps: [["request", "OPTIONS", { target: "$path?EIO=4&transport=polling", headers: { ...origin, ...preflight } }]] },
      { name: "cors: preflight of another origin", steps: [["request", "OPTIONS", { target: "$path?EIO=4&transport=polling", headers: { ...stranger, ...preflight } }]] },
      { name: "cors: preflight of an unknown session", steps: [["request", "OPTIONS", { target: "$path?EIO=4&transport=polling&sid=abc", headers: { ...origin, ...preflight } }]] },
      { name: "cors: error of a listed origin", steps: [["request", "GET", { target: "$path?EIO=4&transport=abc", headers: origin }]] },
      { name: "cors: post and poll of a listed origin", steps: [["open", { headers: origin }], ["POST", "40", { headers: origin }], ["GET", { headers: origin }]] },
      { name: "cors: websocket of a listed origin", steps: [["ws", "w", { headers: origin }]] },
      { name: "cors: websocket of another origin", steps: [["ws", "w", { headers: stranger, open: false }]] },
    ]),
    ...withFlags({ "cors-origin": ["*"] }, [
      { name: "cors *: handshake", steps: [["open", { headers: origin }]] },
      { name: "cors *: preflight", steps: [["request", "OPTIONS", { target: "$path?EIO=4&transport=polling", headers: { ...origin, ...preflight } }]] },
      { name: "cors *: websocket", steps: [["ws", "w", { headers: origin }]] },
    ]),
    ...withFlags({ cookie: "io" }, [
      { name: "cookie: on the handshake only", steps: [["open"], ["POST", "40"], ["GET"]] },
      { name: "cookie: not on a websocket", steps: [["ws", "w"]] },
      { name: "cookie: not on an error", steps: [["request", "GET", { target: "$path?EIO=4&transport=abc" }]] },
    ]),
    ...withFlags({ "allow-eio3": "false" }, [
      { name: "revision 3 refused over polling", steps: [["request", "GET", { target: "$path?EIO=3&transport=polling" }]] },
      { name: "revision 3 refused when EIO is missing", steps: [["request", "GET", { target: "$path?transport=polling" }]] },
      { name: "revision 3 refused over websocket", steps: [["ws", "w", { eio: 3, open: false }], ["closed", "w", { within: 400 }]] },
      { name: "revision 3 refused: transport and method come first", steps: [["request", "GET", { target: "$path?EIO=3&transport=abc" }], ["request", "POST", { target: "$path?EIO=3&transport=polling" }]] },
    ]),
  ],
};
