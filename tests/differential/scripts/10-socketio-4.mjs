// Socket.IO protocol 4, which runs over Engine.IO revision 3: what clients of version 2 send.

const v2 = (name, ...steps) => ({ name: `protocol 4: ${name}`, steps: [["ws", "w", { eio: 3 }], ["frames", "w", 2], ...steps] });
const say = (text) => ["text", "w", text];
const reads = (n) => ["frames", "w", n];
const closes = ["closed", "w"];
const alive = [say('42["message","still here"]'), reads(1)];

const attachment = '451-["message",{"_placeholder":true,"num":0}]';

export default {
  area: "protocol 4",
  server: "suite",
  scripts: [
    v2("the root is joined unasked"),
    v2("event", say('42["message",1,{"a":[2]}]'), reads(1)),
    v2("ack", say('423["message-with-ack",1]'), reads(1)),
    v2("attachment", say(attachment), ["binary", "w", [4, 1, 2, 3]], reads(2)),
    v2("attachment with an ack", say('451-1["message-with-ack",{"_placeholder":true,"num":0}]'), ["binary", "w", [4, 1, 2, 3]], reads(2)),
    v2("connect to a custom namespace", say("40/custom,"), reads(2), say('42/custom,["message",1]'), reads(1)),
    v2("connect to a custom namespace without its comma", say("40/custom"), reads(2)),
    v2("connect with a query", say("40/custom?token=1&b=%C3%A9,"), reads(2), say('42/custom,["message",1]'), reads(1)),
    v2("event with a query in its namespace", say("40/custom?token=1,"), reads(2), say('42/custom?token=1,["message",1]'), reads(1)),
    v2("connect to an unknown namespace", say("40/random,"), reads(1), ...alive),
    v2("connect to an unknown namespace with a query", say("40/random?a=1,"), reads(1)),
    v2("connect to the root again", say("40"), closes),
    v2("disconnect from the root", say("41"), ["settle"], say("40/custom,"), reads(2)),
    v2("disconnect from a custom namespace", say("40/custom,"), reads(2), say("41/custom,"), ...alive),
    v2("event to a namespace not joined", say('42/custom,["message"]'), closes),
    v2("event with a reserved name", say('42["disconnect"]'), closes),
    v2("garbage", say("4abc"), closes),
    { name: "protocol 4: over polling", steps: [["open", { eio: 3 }], ["poll", 2], ["POST", '17:42["message","a"]'], ["poll", 1]] },
    { name: "protocol 4: attachment over polling", steps: [["open", { eio: 3 }], ["poll", 2], ["POST", `${attachment.length}:${attachment}10:b4AQIDBA==`], ["poll", 2]] },
    { name: "protocol 4: attachment over polling in base64", steps: [["open", { eio: 3, query: "&b64=1" }], ["poll", 2], ["POST", `${attachment.length}:${attachment}10:b4AQIDBA==`], ["poll", 2]] },
    { name: "protocol 4: upgrade", steps: [["open", { eio: 3 }], ["poll", 2], ["upgrade", "w"], say("2probe"), reads(1), say("5"), ...alive] },
    { name: "protocol 4: no connect timer", flags: { "connect-timeout": "300ms" }, steps: [["ws", "w", { eio: 3 }], reads(2), ["wait", 500], ...alive] },
  ],
};
