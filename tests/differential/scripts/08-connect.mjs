// Socket.IO: connecting to namespaces, leaving them, and what closes the whole connection.

const ws = (name, ...steps) => ({ name, steps: [["ws", "w"], ...steps] });
/** A client on `/`, its CONNECT and its `auth` event read. */
const joined = (name, ...steps) => ws(name, ["text", "w", "40"], ["frames", "w", 2], ...steps);
const say = (text) => ["text", "w", text];
const alive = [say('42["message","still here"]'), ["frames", "w", 1]];
const closes = ["closed", "w"];

export default {
  area: "connect",
  server: "suite",
  scripts: [
    ws("connect to the root", say("40"), ["frames", "w", 2]),
    ws("connect with auth", say('40{"token":"123"}'), ["frames", "w", 2]),
    ws("connect with an empty object", say("40{}"), ["frames", "w", 2]),
    ws("connect with nested auth and Unicode", say('40{"a":{"b":[1,null,"é\\u20ac"]}}'), ["frames", "w", 2]),
    ws("connect to the root by name", say("40/,"), ["frames", "w", 2]),
    ws("connect to a custom namespace", say("40/custom,"), ["frames", "w", 2]),
    ws("connect to a custom namespace without its comma", say("40/custom"), ["frames", "w", 2]),
    ws("connect to a custom namespace with auth", say('40/custom,{"token":"abc"}'), ["frames", "w", 2]),
    ws("connect to two namespaces", say("40"), ["frames", "w", 2], say("40/custom,"), ["frames", "w", 2], say('42/custom,["message","a"]'), ["frames", "w", 1], say('42["message","b"]'), ["frames", "w", 1]),
    ws("connect to an unknown namespace", say("40/random"), ["frames", "w", 1], say("40"), ["frames", "w", 2]),
    ws("connect to an unknown namespace with auth", say('40/random,{"a":1}'), ["frames", "w", 1]),
    ws("connect to an unknown namespace twice", say("40/random,"), ["frames", "w", 1], say("40/random,"), ["frames", "w", 1]),
    ws("connect to a namespace with a query", say("40/custom?token=1,"), ["frames", "w", 1]),
    ws("connect to a namespace in capitals", say("40/CUSTOM,"), ["frames", "w", 1]),
    ws("connect to a namespace that is longer", say("40/custom/more,"), ["frames", "w", 1]),
    ws("connect to a namespace with Unicode", say("40/é😀,"), ["frames", "w", 1]),
    ws("connect to /__proto__", say("40/__proto__,"), ["frames", "w", 1]),
    joined("connect twice to the root", say("40"), closes),
    joined("connect twice with another auth", say('40{"a":1}'), closes),
    ws("connect twice to a custom namespace", say("40/custom,"), ["frames", "w", 2], say("40/custom,"), closes),
    joined("connect twice closes the other namespaces too", say("40/custom,"), ["frames", "w", 2], say("40"), closes),
    ws("connect with auth that is an array", say("40[1]"), closes),
    ws("connect with auth that is a string", say('40"abc"'), closes),
    ws("connect with auth that is null", say("40null"), closes),
    ws("connect with auth that is a number", say("401"), ["closed", "w", { within: 400 }]),
    ws("connect with broken auth", say('40{"a":'), closes),
    ws("connect with auth and then rubbish", say('40{"a":1}x'), closes),
    ws("connect with an ack id", say("4012{}"), ["frames", "w", 2]),

    // before a CONNECT
    ws("event before connect", say('42["message"]'), closes),
    ws("ack before connect", say("430[]"), closes),
    ws("disconnect before connect", say("41"), closes),
    ws("connect error from the client", say('44{"message":"x"}'), closes),
    ws("event with an ack before connect", say('420["message-with-ack"]'), closes),
    ws("garbage before connect", say("4abc"), closes),
    ws("empty message before connect", say("4"), closes),
    ws("binary before connect", ["binary", "w", [1, 2, 3]], closes),
    ws("binary event before connect, with its attachment", say('451-["message",{"_placeholder":true,"num":0}]'), ["binary", "w", [1]], closes),

    // leaving
    joined("disconnect from the root", say("41"), ["settle"], say("40"), ["frames", "w", 2], ...alive),
    joined("disconnect from one of two namespaces", say("40/custom,"), ["frames", "w", 2], say("41/custom,"), ...alive),
    joined("disconnect without a comma", say("40/custom,"), ["frames", "w", 2], say("41/custom"), ...alive),
    joined("disconnect, then an event", say("41"), ["settle"], say('42["message","x"]'), closes),
    joined("disconnect twice", say("41"), ["settle"], say("41"), closes),
    joined("disconnect with a payload", say("41{}"), closes),
    joined("disconnect with an array", say('41["x"]'), closes),
    joined("disconnect from a namespace not joined", say("41/custom,"), closes),
    joined("event to a namespace not joined", say('42/custom,["message"]'), closes),
    joined("event to an unknown namespace", say('42/random,["message"]'), closes),
    joined("connect error from a joined client", say('44{"message":"x"}'), closes),
    joined("engine close over websocket", say("1"), ["closed", "w", { within: 400 }]),

    // over polling
    { name: "connect over polling", steps: [["open"], ["POST", "40"], ["poll", 2], ["POST", '42["message",1]'], ["poll", 1]] },
    { name: "connect over polling with a get pending", steps: [["open"], ["start", "g", ["GET"]], ["settle"], ["POST", "40/random"], ["finish", "g"]] },
    { name: "connect and event in one payload", steps: [["open"], ["POST", "40\x1e40/custom,"], ["poll", 4]] },
    { name: "connect twice over polling", steps: [["open"], ["POST", "40"], ["poll", 2], ["POST", "40"], ["GET"], ["GET"]] },
    { name: "connect twice over polling with a get pending", steps: [["open"], ["POST", "40"], ["poll", 2], ["start", "g", ["GET"]], ["settle"], ["POST", "40"], ["finish", "g"], ["GET"]] },
    { name: "event before connect over polling", steps: [["open"], ["POST", '42["message"]'], ["GET"], ["GET"]] },
    { name: "garbage over polling with a get pending", steps: [["open"], ["start", "g", ["GET"]], ["settle"], ["POST", "4abc"], ["finish", "g"], ["GET"]] },
    { name: "connect over polling, events after the upgrade", steps: [["open"], ["POST", "40"], ["poll", 2], ["upgrade", "w"], say("2probe"), ["frames", "w", 1], say("5"), ...alive] },
    { name: "connect over polling, answers after the upgrade", steps: [["open"], ["POST", "40"], ["POST", '42["message",1]'], ["upgrade", "w"], say("2probe"), ["frames", "w", 1], say("5"), ["frames", "w", 3]] },

    // no CONNECT in time
    { name: "no connect in time over websocket", flags: { "connect-timeout": "300ms" }, steps: [["ws", "w"], ["closed", "w", { within: 2000 }]] },
    { name: "no connect in time over polling with a get pending", flags: { "connect-timeout": "300ms" }, steps: [["open"], ["GET"], ["GET"]] },
    { name: "no connect in time over polling without a get", flags: { "connect-timeout": "300ms" }, steps: [["open"], ["wait", 500], ["GET"], ["GET"]] },
    { name: "refused connect does not stop the connect timer", flags: { "connect-timeout": "300ms" }, steps: [["ws", "w"], say("40/random"), ["frames", "w", 1], ["closed", "w", { within: 2000 }]] },
    { name: "connect in time stops the connect timer", flags: { "connect-timeout": "300ms" }, steps: [["ws", "w"], say("40"), ["frames", "w", 2], ["wait", 500], ...alive] },
    { name: "leaving the last namespace starts no timer", flags: { "connect-timeout": "300ms" }, steps: [["ws", "w"], say("40"), ["frames", "w", 2], say("41"), ["wait", 500], say("40"), ["frames", "w", 2]] },
  ],
};
