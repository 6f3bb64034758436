// The polling transport of EIO 4: requests beside each other, bodies, packets.

const alive = [["POST", "4still here"], ["poll", 1]];
const gone = [["GET"]];
/** Posts a body and shows what is left of the session. */
const posted = (name, body, after = alive) => ({ name, steps: [["open"], ["POST", body], ...after] });

export default {
  area: "polling",
  server: "engine",
  scripts: [
    posted("one message", "4hello", [["poll", 1]]),
    posted("several messages in one payload", "4a\x1e4b\x1e4c", [["poll", 3]]),
    posted("text and binary in one payload", "4hello\x1ebAQIDBA==\x1e4world", [["poll", 3]]),
    posted("message without data", "4", [["poll", 1]]),
    posted("empty binary message", "b", [["poll", 1]]),
    posted("binary without its padding", "bAQIDBA", [["poll", 1]]),
    posted("binary in the URL alphabet", "b-_-_", [["poll", 1]]),
    posted("binary of characters that are not base64", "b!!!!", [["GET"]]),
    posted("message with every plane of Unicode", "4é€😀\u2028\u0000", [["poll", 1]]),
    posted("message that looks like base64", "4bAQID", [["poll", 1]]),
    posted("binary larger than a chunk", `b${Buffer.alloc(100_000, 7).toString("base64")}`, [["poll", 1]]),
    { name: "messages in order over several posts", steps: [["open"], ["POST", "4a"], ["POST", "4b\x1e4c"], ["POST", "4d"], ["poll", 4]] },
    { name: "get waits for a message", steps: [["open"], ["start", "g", ["GET"]], ["settle"], ["POST", "4hello"], ["finish", "g"]] },
    { name: "get with the parameters of a browser", steps: [["open"], ["POST", "4hello"], ["GET", { query: "&t=N8hzxke", headers: { Accept: "*/*", Origin: "https://a.example", Cookie: "io=1" } }]] },
    { name: "poll on a kept connection", steps: [["open"], ["POST", "4a", { conn: "c" }], ["GET", { conn: "c" }], ["POST", "4b", { conn: "c" }], ["GET", { conn: "c" }]] },
    { name: "post in chunks", steps: [["open"], ["bytes", "POST $path?EIO=4&transport=polling&sid=$sid HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n4he\r\n3\r\nllo\r\n0\r\n\r\n"], ["poll", 1]] },
    { name: "post with Expect: 100-continue", steps: [["open"], ["POST", "4hello", { headers: { Expect: "100-continue" }, conn: "c" }], ["poll", 1]] },
    { name: "post of an unusual content type", steps: [["open"], ["POST", "4hello", { headers: { "Content-Type": "application/json" } }], ["poll", 1]] },
    { name: "post with a body declared as latin1", steps: [["open"], ["POST", "4é", { headers: { "Content-Type": "text/plain; charset=ISO-8859-1" } }], ["poll", 1]] },
    { name: "large answer to a client that takes gzip", steps: [["open"], ["POST", `4${"a".repeat(5000)}`], ["GET", { headers: { "Accept-Encoding": "gzip, deflate" } }]] },
    { name: "small answer to a client that takes gzip", steps: [["open"], ["POST", "4a"], ["GET", { headers: { "Accept-Encoding": "gzip, deflate" } }]] },

    // what ends a session
    { name: "second get while one is pending", steps: [["open"], ["start", "g", ["GET"]], ["settle"], ["GET"], ["finish", "g"], ...gone] },
    { name: "second post while one is pending", steps: [["open"], ["start", "p", ["POST", "4he", { headers: { "Content-Length": "6" } }]], ["settle"], ["POST", "4b"], ["finish", "p"], ...gone] },
    { name: "second post while one is pending, with a get pending", steps: [["open"], ["start", "g", ["GET"]], ["start", "p", ["POST", "4he", { headers: { "Content-Length": "6" } }]], ["settle"], ["POST", "4b"], ["finish", "g"], ["finish", "p"], ...gone] },
    { name: "aborted get", steps: [["open"], ["start", "g", ["GET"]], ["settle"], ["abort", "g"], ["settle"], ...gone] },
    { name: "aborted post", steps: [["open"], ["start", "p", ["POST", "4he", { headers: { "Content-Length": "6" } }]], ["settle"], ["abort", "p"], ["settle"], ...gone] },
    { name: "aborted post with a get pending", steps: [["open"], ["start", "g", ["GET"]], ["start", "p", ["POST", "4he", { headers: { "Content-Length": "6" } }]], ["settle"], ["abort", "p"], ["finish", "g"], ...gone] },
    { name: "octet-stream post", steps: [["open"], ["POST", "4hello", { headers: { "Content-Type": "application/octet-stream" } }], ...gone] },
    { name: "octet-stream post with a get pending", steps: [["open"], ["start", "g", ["GET"]], ["settle"], ["POST", "4hello", { headers: { "Content-Type": "application/octet-stream" } }], ["finish", "g"], ...gone] },
    posted("invalid packet", "abc", gone),
    posted("invalid packet type 7", "7", gone),
    posted("empty body", "", gone),
    posted("invalid packet after a good one", "4a\x1eabc", gone),
    posted("separator at the end", "4a\x1e", gone),
    posted("separator at the start", "\x1e4a", gone),
    posted("payload of revision 3", "7:4hello!", gone),
    { name: "invalid packet with a get pending", steps: [["open"], ["start", "g", ["GET"]], ["settle"], ["POST", "abc"], ["finish", "g"], ...gone] },
    { name: "good packet, then an invalid one, with a get pending", steps: [["open"], ["start", "g", ["GET"]], ["settle"], ["POST", "4a\x1eabc"], ["finish", "g"], ...gone] },

    // packets that are of another moment
    posted("open packet from the client", "0"),
    posted("upgrade packet over polling", "5"),
    posted("noop packet from the client", "6"),
    posted("pong that was not asked for", "3"),
    posted("ping from the client", "2", gone),
    posted("probe over polling", "2probe", gone),
    { name: "ping from the client with a get pending", steps: [["open"], ["start", "g", ["GET"]], ["settle"], ["POST", "2"], ["finish", "g"], ...gone] },

    // close
    posted("close packet", "1", gone),
    { name: "close packet with a get pending", steps: [["open"], ["start", "g", ["GET"]], ["settle"], ["POST", "1"], ["finish", "g"], ...gone] },
    { name: "close packet behind a message, with a get pending", steps: [["open"], ["start", "g", ["GET"]], ["settle"], ["POST", "4a\x1e1"], ["finish", "g"], ...gone] },
    posted("close packet before a message", "1\x1e4a", gone),
    posted("close packet with data", "1bye", gone),
    posted("post to a closed session", "1", [["POST", "4a"]]),
  ],
};
