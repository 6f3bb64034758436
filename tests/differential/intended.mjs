// The differences from npm engine.io and socket.io that Bowline intends. docs/protocol.md repeats this table for readers, and a
// test holds the two together. A row that no script meets any more is an error of the run.
//
// `covers(difference)` gets `{ script, step, field, reference, bowline }` and is as narrow as it can be: most rows name their
// scripts and every value that Bowline may show there.

import { isDeepStrictEqual } from "node:util";

/** A difference in these scripts where Bowline shows one of these values; undefined stands for "absent". */
const shows = (scripts, ...values) => (d) => [scripts].flat().includes(d.script) && values.includes(d.bowline);

/** A difference of this field in these scripts, whatever the values. */
const inField = (field, scripts) => (d) => d.field === field && scripts.includes(d.script);

/** What each step shows once a session has ended where the reference goes on with it. */
const SESSION_GONE = [400, "application/json", undefined, '{"code":1,"message":"Session ID unknown"}'];

export const INTENDED = [
  {
    id: "error-framing",
    what: "An answer without an explicit length is chunked in the reference; Bowline sends Content-Length.",
    reason: "The same bytes reach the client; a length lets a proxy reuse the connection without parsing chunks.",
    covers: (d) =>
      (d.field === "header.transfer-encoding" && d.reference === "chunked" && d.bowline === undefined) ||
      (d.field === "header.content-length" && d.reference === undefined && d.bowline === "of the body"),
  },
  {
    id: "not-found",
    what: "A path that is not the engine's is answered 404 with the text `not found`; the reference's application here answers an empty 404.",
    reason: "What is outside the engine's path belongs to the application around it; only the status is the same by contract.",
    covers: (d) =>
      ["path without its slash", "path in capitals", "path of nobody"].includes(d.script) &&
      ((d.field === "body" && d.bowline === "not found\n") || (d.field === "header.content-type" && d.reference === undefined)),
  },
  {
    id: "absolute-target",
    what: "A request line with an absolute URL is served; the reference compares the raw target with its path and finds nothing.",
    reason: "RFC 9112 section 3.2.2 obliges a server to take the absolute form.",
    covers: (d) => d.script === "absolute form of the target",
  },
  {
    id: "websocket-version",
    what: "A WebSocket handshake with another version than 13 is refused with 426 and `Sec-WebSocket-Version: 13`; the reference answers 400 and also names version 8.",
    reason: "RFC 6455 section 4.2.2 asks for 426, and Bowline speaks 13 only.",
    covers: (d) =>
      ["websocket: version 12", "websocket: version missing"].includes(d.script) &&
      (d.bowline === 426 || (d.field === "header.sec-websocket-version" && d.bowline === "13") || d.field === "body"),
  },
  {
    id: "websocket-refusal-words",
    what: "The text of a refused WebSocket handshake says in Bowline's words what was wrong with its headers; status and headers are the same.",
    reason: "The text is for people only.",
    covers: inField("body", ["websocket: key missing", "websocket: key of the wrong length", "websocket: upgrade to something else", "upgrade with a bad websocket key"]),
  },
  {
    id: "strict-base64",
    what: "A base64 packet with characters that are not base64 is malformed and ends the session; the reference skips them.",
    reason: "Data that was damaged must not be delivered as if it were whole.",
    covers: shows("binary of characters that are not base64", ...SESSION_GONE),
  },
  {
    id: "strict-payloads",
    what: "A binary payload with a packet of unknown type (revision 3) and a JSONP form without its field end the session; the reference ignores them.",
    reason: "They are malformed like any other payload that cannot be read, and no client sends them.",
    covers: shows(["revision 3: binary payload with an unknown type", "revision 3: JSONP form without its field"], ...SESSION_GONE),
  },
  {
    id: "strict-packets",
    what: "An EVENT without a payload and an ACK without an id close the connection; the reference ignores them.",
    reason: "The protocol makes both mandatory and demands the close.",
    covers: shows(["event without a payload", "ack from the client without an id"], "close 1005", "closed"),
  },
  {
    id: "polling-compression",
    what: "A polling answer over 1,024 bytes is not compressed; the reference compresses when the client takes gzip.",
    reason: "`compression = false` is Bowline's default: the proxy in front does it better, and secrets beside attacker-chosen text should not be compressed.",
    covers: (d) => d.script === "large answer to a client that takes gzip" && ["header.content-encoding", "body"].includes(d.field),
  },
  {
    id: "second-post",
    what: "When a second POST ends the session, the first is answered 400 as well; the reference drops its connection.",
    reason: "A client or proxy that gets an answer does not try the request again.",
    covers: (d) => d.script.startsWith("second post while one is pending") && d.step.includes("finish p") && [undefined, 400, false, ""].includes(d.bowline),
  },
  {
    id: "oversize-closes-connection",
    what: "413 comes with `Connection: close`; the reference reads the rest of the body and keeps the connection.",
    reason: "Reading a body of any length only to throw it away costs the server what the limit is there to save. The session goes on in both.",
    covers: (d) => d.script.startsWith("post ") && d.script.includes("over the limit") && d.field === "persistent" && d.bowline === false,
  },
  {
    id: "websocket-length-bit",
    what: "A frame whose 64-bit length has its top bit set is closed with 1002; the reference says 1009.",
    reason: "RFC 6455 section 5.2 makes it a protocol error whatever the limit.",
    covers: shows("websocket length with its top bit set", "close 1002"),
  },
  {
    id: "websocket-close-packet",
    what: "A close packet over WebSocket ends the session at once; the reference leaves it to the heartbeat.",
    reason: "The packet exists for this, and a session that its client has closed should not be kept for 45 seconds.",
    covers: shows(["websocket close packet", "engine close over websocket"], "close 1005", "closed"),
  },
  {
    id: "pong-owed-across-upgrade",
    what: "A pong owed when the client upgrades stays owed, and the session is closed when it does not come; in the reference it lives for ever, without pings.",
    reason: "Row E1 of the loss matrix: a session that nobody can be heard on must end.",
    covers: shows("pong owed over polling when the client upgrades, and never paid", "close 1005", "closed"),
  },
  {
    id: "pong-data",
    what: "Revision 3: the pong carries the data of its ping; the reference sends it empty outside an upgrade.",
    reason: "The document of revision 3 says so.",
    covers: shows("revision 3: ping with data over websocket", "text 3probe"),
  },
  {
    id: "jsonp-content-type",
    what: "A JSONP answer is `text/javascript`; the reference says `text/plain`.",
    reason: "A browser told not to sniff refuses to run a script of type text/plain.",
    covers: (d) => d.field === "header.content-type" && d.bowline === "text/javascript; charset=UTF-8" && d.script.includes("JSONP"),
  },
  {
    id: "json-as-sent",
    what: "Arguments are passed on as the client wrote them: white space, escapes, numbers (`1.0`, 20 digits), key order; the reference parses and prints them again, with the precision of a double.",
    reason: "Nothing is lost and nothing is parsed twice; any JSON reader sees the same values, or truer ones.",
    covers: (d) => sameJson(d.reference, d.bowline),
  },
  {
    id: "attachments-as-sent",
    what: "Attachments and placeholders are passed on as sent: their order, one used twice, one not used, further keys in a placeholder; the reference numbers them anew.",
    reason: "A receiver puts the same bytes in the same places; renumbering would mean to parse every argument.",
    covers: (d) =>
      ["attachments in another order", "attachment used twice", "attachment not used", "attachment announced, none used", "placeholder with a further key"].includes(d.script) && d.field.startsWith("frame."),
  },
  {
    id: "ack-id-range",
    what: "An ack id is a whole number below 2^64, kept exactly, and a longer one closes the connection; the reference takes any digits for a double and may answer with another id.",
    reason: "An id that comes back changed acknowledges nothing. Clients count from 0.",
    covers: shows(["ack with an id of 20 digits", "ack with an id of 40 digits"], "text 4312345678901234567890[]", "close 1005", "closed"),
  },
  {
    id: "ack-id-space",
    what: "White space before the payload is white space; the reference takes it for the ack id 0.",
    reason: "An accident of number parsing in the reference.",
    covers: (d) => d.script === "ack id that is a space" && d.bowline === undefined,
  },
  {
    id: "limit-close-code",
    what: "More attachments than allowed close with WebSocket code 1008; the reference closes without a code.",
    reason: "The code says that a limit was hit, not that the packet was malformed.",
    covers: shows(["attachments, eleven", "binary event with a huge count"], "close 1008"),
  },
  {
    id: "close-without-noop",
    what: "A polling session closed by the server while no GET was pending gets `1` on the next GET; the reference sends `6` before it.",
    reason: "The noop only wakes the reference's own writer.",
    covers: (d) => d.reference === "6\x1e1" && d.bowline === "1",
  },
  {
    id: "answers-behind-an-end",
    what: "What a handler answers to the good packets of a body that then ends the session is not delivered; the reference writes it to the pending GET before it reads on.",
    reason: "A body is one input, and handlers run after it. A client that closes, or sends rubbish, does not wait for answers; its good packets are handled all the same.",
    covers: (d) =>
      d.field === "body" &&
      (shows("close packet behind a message, with a get pending", "6")(d) ||
        shows("good packet, then an invalid one, with a get pending", "1")(d) ||
        shows("revision 3: good packet, then a bad one", "1:1")(d)),
  },
  {
    id: "cors-refuses-others",
    what: "With `cors-allowed-origins`, a handshake from another origin is refused (403, code 4; over WebSocket 400 `Forbidden`); the reference serves it without CORS headers.",
    reason: "CORS headers do not protect a WebSocket, so a list that only sets headers protects nothing there.",
    covers: shows(["cors: handshake of another origin", "cors: websocket of another origin"], 403, 400, false, undefined, "application/json", "text/html", "Forbidden", '{"code":4,"message":"Forbidden"}'),
  },
  {
    id: "preflight-length",
    what: "The 204 of a preflight has no Content-Length; the reference sends `Content-Length: 0`.",
    reason: "RFC 9110 section 8.6 forbids the header in a 204.",
    covers: (d) => /^cors.*preflight/.test(d.script) && d.field === "header.content-length" && d.bowline === undefined,
  },
  {
    id: "revision-3-refused-before-upgrade",
    what: "With `allow-eio3 = false` a WebSocket of revision 3 is refused with 400 before the 101; the reference sends the 101 and then the text of an HTTP answer inside the WebSocket.",
    reason: "An HTTP answer is no WebSocket frame.",
    covers: shows("revision 3 refused over websocket", 400, false, undefined, "text/html", "Unsupported protocol version"),
  },
];

/** Two Socket.IO text frames with the same head and equal JSON behind it. Both must have been shown in full. */
function sameJson(reference, bowline) {
  const parts = [reference, bowline].map((text) => /^(text 4[2356](?:\d-)?(?:\/[^,]*,)?\d*)(\[.*\])$/s.exec(text ?? ""));
  if (parts.includes(null)) return false;
  const [[, head, json], [, otherHead, otherJson]] = parts;
  return head === otherHead && isDeepStrictEqual(plain(JSON.parse(json)), plain(JSON.parse(otherJson)));
}

/** Without the sign of zero, which JSON.stringify drops. */
function plain(value) {
  return JSON.parse(JSON.stringify(value));
}
