// The engine handshake: what is asked, what is refused, and which refusal comes first when several would do.

const handshake = (query) => ["request", "GET", { target: `$path?${query}` }];
const refused = (name, query, ...more) => ({ name, steps: [handshake(query), ...more] });

export default {
  area: "handshake",
  server: "engine",
  scripts: [
    { name: "polling handshake", steps: [["open"]] },
    { name: "websocket handshake", steps: [["ws", "w"]] },
    { name: "two handshakes on one connection", steps: [["request", "GET", { target: "$path?EIO=4&transport=polling", conn: "c" }], ["request", "GET", { target: "$path?EIO=4&transport=polling", conn: "c" }]] },
    { name: "handshake with Connection: close", steps: [["open", { headers: { Connection: "close" } }]] },
    { name: "handshake over HTTP/1.0", steps: [["bytes", "GET $path?EIO=4&transport=polling HTTP/1.0\r\n\r\n"]] },
    { name: "handshake of an old Internet Explorer", steps: [["open", { headers: { "User-Agent": "Mozilla/4.0 (compatible;MSIE 8.0; Windows NT 6.1; Trident/4.0)" } }]] },
    { name: "handshake with further parameters", steps: [handshake("EIO=4&transport=polling&t=N8hyd6w&token=abc&b64=1")] },

    // transport
    refused("no query at all", ""),
    refused("transport missing", "EIO=4"),
    refused("transport unknown", "EIO=4&transport=abc"),
    refused("transport empty", "EIO=4&transport="),
    refused("transport webtransport", "EIO=4&transport=webtransport"),
    refused("transport in capitals", "EIO=4&transport=Polling"),
    refused("transport __proto__", "EIO=4&transport=__proto__"),
    refused("transport constructor", "EIO=4&transport=constructor"),
    refused("transport websocket without an upgrade", "EIO=4&transport=websocket"),
    refused("transport percent-encoded", "%45IO=4&tr%61nsport=poll%69ng"),
    refused("transport given twice, the last one good", "EIO=4&transport=abc&transport=polling"),
    refused("transport given twice, the last one bad", "EIO=4&transport=polling&transport=abc"),
    refused("EIO given twice, 3 then 4", "EIO=3&EIO=4&transport=polling"),
    refused("EIO given twice, 4 then 3", "EIO=4&EIO=3&transport=polling"),

    // version: anything but exactly 4 is revision 3
    refused("EIO missing", "transport=polling"),
    refused("EIO abc", "EIO=abc&transport=polling"),
    refused("EIO 5", "EIO=5&transport=polling"),
    refused("EIO 04", "EIO=04&transport=polling"),
    refused("EIO empty", "EIO=&transport=polling"),

    // session id
    refused("sid unknown", "EIO=4&transport=polling&sid=abc"),
    refused("sid __proto__", "EIO=4&transport=polling&sid=__proto__"),
    refused("sid constructor", "EIO=4&transport=polling&sid=constructor"),
    refused("sid empty is a handshake", "EIO=4&transport=polling&sid="),
    refused("sid percent-encoded NUL", "EIO=4&transport=polling&sid=%00"),
    refused("sid with a broken percent escape", "EIO=4&transport=polling&sid=%E0%A4%A"),
    { name: "sid of 10,000 characters", steps: [handshake(`EIO=4&transport=polling&sid=${"a".repeat(10_000)}`)] },
    { name: "sid of a session with one character more", steps: [["open"], ["GET", { sid: "$sid0" }], ["GET", { target: "$path?EIO=4&transport=polling&sid=$sid%20" }]] },
    { name: "sid given twice, the last one good", steps: [["open"], ["POST", "4a", { target: "$path?EIO=4&transport=polling&sid=abc&sid=$sid" }]] },
    { name: "sid given twice, the last one bad", steps: [["open"], ["POST", "4a", { target: "$path?EIO=4&transport=polling&sid=$sid&sid=abc" }]] },

    // method
    ...["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"].map((method) => ({
      name: `handshake by ${method}`,
      steps: [["request", method, { target: "$path?EIO=4&transport=polling" }]],
    })),
    { name: "handshake by POST with a body", steps: [["request", "POST", { target: "$path?EIO=4&transport=polling", body: "4hello" }]] },
    ...["PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"].map((method) => ({
      name: `${method} with a sid`,
      steps: [["open"], ["request", method], ["POST", "4still here"], ["poll", 1]],
    })),

    // the order of the checks
    refused("order: transport before sid", "EIO=4&transport=abc&sid=abc"),
    { name: "order: transport before method", steps: [["request", "POST", { target: "$path?EIO=4&transport=abc" }]] },
    { name: "order: sid before method", steps: [["request", "PUT", { target: "$path?EIO=4&transport=polling&sid=abc" }]] },
    { name: "order: method before the upgrade check", steps: [["request", "POST", { target: "$path?EIO=4&transport=websocket" }]] },
    { name: "order: sid before version", steps: [handshake("EIO=3&transport=polling&sid=abc")] },
    { name: "session with another version", steps: [["open"], ["GET", { eio: 3 }], ["POST", "4still here"], ["poll", 1]] },
    { name: "session with another transport and no upgrade", steps: [["open"], ["GET", { target: "$path?EIO=4&transport=websocket&sid=$sid" }], ["POST", "4still here"], ["poll", 1]] },
    { name: "polling request for a websocket session", steps: [["open"], ["ws", "w"], ["request", "GET", { target: "$path?EIO=4&transport=polling&sid=nobody" }]] },

    // path
    { name: "path with more behind it", steps: [["request", "GET", { target: "/engine.io/more/still?EIO=4&transport=polling" }]] },
    { name: "path without its slash", steps: [["request", "GET", { target: "/engine.io?EIO=4&transport=polling" }]] },
    { name: "path in capitals", steps: [["request", "GET", { target: "/ENGINE.IO/?EIO=4&transport=polling" }]] },
    { name: "path of nobody", steps: [["request", "GET", { target: "/nobody" }]] },
    { name: "absolute form of the target", steps: [["request", "GET", { target: "http://127.0.0.1/engine.io/?EIO=4&transport=polling" }]] },

    // origin
    { name: "origin of any kind without cors", steps: [["open", { headers: { Origin: "https://elsewhere.example" } }]] },
    { name: "origin with a byte over 127", steps: [["bytes", "GET $path?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\nOrigin: caf\xe9\r\n\r\n"]] },
    { name: "preflight without cors", steps: [["request", "OPTIONS", { target: "$path?EIO=4&transport=polling", headers: { Origin: "https://elsewhere.example", "Access-Control-Request-Method": "POST" } }]] },

    // websocket handshake
    { name: "websocket: transport unknown", steps: [["ws", "w", { target: "$path?EIO=4&transport=abc", open: false }]] },
    { name: "websocket: transport missing", steps: [["ws", "w", { target: "$path?EIO=4", open: false }]] },
    { name: "websocket: transport polling", steps: [["ws", "w", { target: "$path?EIO=4&transport=polling", open: false }], ["closed", "w"]] },
    { name: "websocket: sid unknown", steps: [["ws", "w", { query: "&sid=abc", open: false }]] },
    { name: "websocket: sid __proto__", steps: [["ws", "w", { query: "&sid=__proto__", open: false }]] },
    { name: "websocket: EIO missing", steps: [["ws", "w", { target: "$path?transport=websocket" }]] },
    { name: "websocket: handshake by POST", steps: [["ws", "w", { method: "POST", open: false }]] },
    { name: "websocket: version 12", steps: [["ws", "w", { headers: { "Sec-WebSocket-Version": "12" }, open: false }]] },
    { name: "websocket: version missing", steps: [["ws", "w", { headers: { "Sec-WebSocket-Version": undefined }, open: false }]] },
    { name: "websocket: key missing", steps: [["ws", "w", { headers: { "Sec-WebSocket-Key": undefined }, open: false }]] },
    { name: "websocket: key of the wrong length", steps: [["ws", "w", { headers: { "Sec-WebSocket-Key": "c2hvcnQ=" }, open: false }]] },
    { name: "websocket: upgrade to something else", steps: [["ws", "w", { headers: { Upgrade: "h2c" }, open: false }]] },
    { name: "websocket: tokens in capitals and lists", steps: [["ws", "w", { headers: { Connection: "keep-alive, UPGRADE", Upgrade: "WebSocket" } }]] },
    { name: "websocket: subprotocols offered", steps: [["ws", "w", { headers: { "Sec-WebSocket-Protocol": "chat, superchat" } }]] },
    { name: "websocket: compression offered", steps: [["ws", "w", { headers: { "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits" } }]] },
    { name: "websocket: origin of any kind without cors", steps: [["ws", "w", { headers: { Origin: "https://elsewhere.example" } }]] },
  ],
};
