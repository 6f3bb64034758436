// Links as an operator sees them: the command line, the API, figures and health, apps behind HTTP and namespaces.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, test } from "node:test";

import { io } from "socket.io-client";

import { eventually } from "../harness/programs.mjs";
import { metric } from "../operations/gateway.mjs";
import { bowline, inState as serviceInState, place } from "../operations/services.mjs";
import { startApp } from "./app.mjs";
import { startEcho } from "./echo.mjs";
import { startLinks } from "./rig.mjs";

const service = await startEcho();
const app = await startApp();
const link = (name, more) => `
[links.${name}]
profile = "websocket"
url = "${service.url}/bots/${name}"
headers = { Authorization = "Bearer {token}" }
token-file = "${name}.token"
message-id = "/id"
room = "/room"
probe = '{"type":"probe","nonce":"{nonce}"}'
ack = '{"type":"ack","id":"{id}"}'
${more}
`;
const TOML = `
${link("ann", 'deliver = { http = "app" }\nrequired = true')}
${link("bob", 'service = "bot"')}
${link("mo", 'deliver = { namespace = "/mo" }')}
[namespaces."/"]
handler = "echo"
[namespaces."/mo"]
handler = "link"
[backends.app]
url = "http://127.0.0.1:${app.port}/"
[services.bot]
command = ["/bin/sh", "-c", "echo proxy=$HTTPS_PROXY ca=$SSL_CERT_FILE near=$NO_PROXY; exec sleep 60"]
link = "bob"
environment = { NO_PROXY = "mine" }
`;
let gateway;

before(async () => {
  const files = Object.fromEntries(["ann", "bob", "mo"].map((name) => [`${name}.token`, `secret-of-${name}\n`]));
  gateway = await startLinks(TOML, { files });
  for (const name of ["ann", "bob", "mo"]) await gateway.inState(name, "live");
});
after(async () => {
  await gateway?.stop();
  await app.stop();
  await service.stop();
});

const run = async (args, code = 0) => {
  const result = await bowline(["link", ...args, ...place(gateway)]);
  assert.equal(result.code, code, `${args}: ${result.out}${result.err}`);
  return result;
};

test("links are listed and shown with the age of every level", async () => {
  const { out } = await run(["ls"]);
  for (const name of ["ann", "bob", "mo"]) {
    assert.match(out, new RegExp(`^${name} +live +websocket at 127\\.0\\.0\\.1:\\d+, connected for .*, routing proved .* ago$`, "m"));
  }
  assert.match(out, /^ +\[backends\.app\]$/m);
  assert.match(out, /^ +0 sockets in \/mo$/m);
  const shown = (await run(["show", "ann"])).out;
  for (const level of ["tcp", "pong", "routing", "handled"]) assert.match(shown, new RegExp(`^  ${level} +(never|.* ago) `, "m"));
  assert.match(shown, /^  opened +1 at the start$/m);
  assert.match((await run(["show", "nobody"], 1)).err, /error\[link-unknown\]/);
  assert.match((await run(["show", "anne"], 1)).err, /there is no link "anne"; did you mean "ann"\?/);

  const { links, store } = JSON.parse((await run(["ls", "--json"])).out);
  assert.deepEqual(links.map(({ name }) => name).sort(), ["ann", "bob", "mo"]);
  assert.equal(store.healthy, true);
  const ann = JSON.parse((await run(["show", "ann", "--json"])).out);
  assert.equal(ann.levels.find(({ level }) => level === "routing").age_seconds < 60, true);
  assert.doesNotMatch(JSON.stringify(links) + (await gateway.api("/api/v1/status")).text + gateway.said(), /secret-of/);
});

test("a message goes to an app behind HTTP, and its trace tells what became of it", async () => {
  const { id } = service.bot("ann").hear("lobby", "hello");
  const [got] = await eventually("the app to get it", () => app.of(id).length > 0 && app.of(id));
  assert.deepEqual({ link: got.link, room: got.room, attempt: got.attempt, text: got.data.text }, { link: "ann", room: "lobby", attempt: 1, text: "hello" });
  await eventually("the answer", () => service.bot("ann").answers.has(id));
  await eventually("its acknowledgement", () => service.bot("ann").acked.has(id));
  assert.equal(service.bot("ann").acked.get(id), 1);
  await eventually("its confirmation", async () => (await gateway.trace(id)).some(({ stage }) => stage === "confirmed"));
  const { out } = await run(["trace", id]);
  assert.match(out, /^ann\n.*  arrived.*\n.*\+.*  offered[^]*  confirmed/);
  const { steps } = JSON.parse((await run(["trace", id, "--json"])).out);
  assert.deepEqual([steps[0].stage, steps[1].stage], ["arrived", "offered"]);
  assert.match((await run(["trace", "no/such id"], 1)).err, /error\[link-message-unknown\]/);
});

test("messages that were put aside are named, and offered again when somebody asks", async () => {
  app.refuses = ({ room }) => room === "cellar";
  const [first, second] = [service.bot("ann").hear("cellar", "one").id, service.bot("ann").hear("cellar", "two").id];
  await eventually("both to be put aside", async () => (await gateway.links()).ann.messages.parked === 2);
  app.refuses = () => false;
  const shown = (await run(["show", "ann"])).out;
  assert.match(shown, /^  put aside; `bowline link retry ann \[ID\]` offers all again, or one$/m);
  for (const id of [first, second]) assert.match(shown, new RegExp(`^  ${id}  .* ago  .*not this one`, "m"));
  const { messages } = (await gateway.api("/api/v1/links/ann/parked")).json;
  assert.deepEqual(messages.map(({ id, room, offers }) => ({ id, room, offers })), [first, second].map((id) => ({ id, room: "cellar", offers: 1 })));

  assert.match((await run(["retry", "ann", second])).err, /^ann: 1 message waits again$/m);
  await eventually("its answer", () => service.bot("ann").answers.has(second));
  assert.match((await run(["retry", "ann", second], 1)).err, /error\[link-message-unknown\]/);
  assert.equal(JSON.parse((await run(["retry", "ann", "--json"])).out).retried, 1);
  await eventually("the other answer", () => service.bot("ann").answers.has(first));
  assert.match((await run(["retry", "ann"])).err, /^ann: no message is put aside$/m);
  assert.match((await run(["retry", "nobody"], 1)).err, /error\[link-unknown\]/);
  assert.match((await run(["trace", first])).out, /  put aside [^]*  retried [^]*  confirmed/);
});

test("a link is probed and renewed when somebody asks", async () => {
  assert.match((await run(["probe", "ann"])).err, /^ann: it came back \(/);
  assert.match((await run(["renew", "ann"])).err, /^ann: the new connection is proved, and the old one is closed \(/);
  assert.equal(JSON.parse((await run(["probe", "bob", "--json"])).out).outcome, "ok");
  const page = (await gateway.api("/metrics")).text;
  assert.equal(metric(page, "bowline_link_renewals_total", 'link="ann",reason="asked"'), 1);
  assert.ok(metric(page, "bowline_link_probes_total", 'link="ann",cause="asked",outcome="ok"') >= 1);
  assert.equal(metric(page, "bowline_link_state", 'link="ann",state="live"'), 1);
  assert.equal(metric(page, "bowline_store_healthy"), 1);
});

test("health and the page show links, and a required one counts", async () => {
  const { components } = (await gateway.api("/health/ready")).json;
  const links = components.filter(({ kind }) => kind === "link").map(({ name, required, state }) => ({ name, required, state }));
  assert.deepEqual(links.find(({ name }) => name === "ann"), { name: "ann", required: true, state: "ready" });
  assert.equal(links.find(({ name }) => name === "bob").required, false);
  assert.match((await gateway.api("/")).text, /<h2>Links<\/h2>[^]*<th>ann<\/th><td><b class="well">live<\/b>, websocket at /);
  assert.match((await bowline(["status", ...place(gateway)])).out, /links\n +ann +live/);
});

test("the variables of a link lead to the loopback proxy, for a shell and for a service", async () => {
  const { out } = await run(["env", "bob", "--json"]);
  const { HTTPS_PROXY: proxy, SSL_CERT_FILE: bundle, REQUESTS_CA_BUNDLE: same } = JSON.parse(out);
  assert.ok(proxy.startsWith("http://bob:") && proxy.endsWith(`@${gateway.listen}`), proxy);
  assert.equal(bundle, same);
  assert.ok((await run(["env", "bob", "--plain"])).out.includes(`HTTPS_PROXY=${proxy}\n`));
  const shell = (await run(["env", "bob"])).out;
  const told = await new Promise((resolve) => execFile("/bin/sh", ["-c", `${shell}\nprintf %s "$HTTPS_PROXY"`], (_, out) => resolve(out)));
  assert.equal(told, proxy);
  assert.match((await run(["env", "ann"], 2)).err, /error\[link-no-variables\].*only deliver = "proxy"/);

  await serviceInState(gateway, "bot", "ready");
  const logs = await eventually("what the service has written", async () => {
    const { text } = await gateway.control("/api/v1/services/bot/logs");
    return text.includes("proxy=") && text;
  });
  // What its table sets counts for more.
  assert.ok(logs.includes(`proxy=${proxy} ca=${bundle} near=mine`), logs);
});

test("a namespace gets messages, confirms them by its acks, and speaks to the service", async () => {
  const early = service.bot("mo").hear("attic", "before anybody is there");
  await eventually("it to wait", async () => (await gateway.links()).mo.messages.waiting === 1);
  const client = io(`${gateway.url}/mo`, { transports: ["websocket"], reconnection: false });
  const got = [];
  client.on("message", (message, ack) => {
    got.push(message);
    ack({ reply: { type: "answer", to: message.id, text: `I heard ${message.data.text}` } });
  });
  try {
    await eventually("the message that waited", () => got.length === 1);
    assert.deepEqual({ id: got[0].id, link: got[0].link, room: got[0].room }, { id: early.id, link: "mo", room: "attic" });
    await eventually("the answer", () => service.bot("mo").answers.get(early.id)?.[0].text === "I heard before anybody is there");
    // What it emits goes to the service; the ack says that it went out.
    const acked = await client.timeout(5000).emitWithAck("send", { type: "answer", to: "x", text: "by myself" });
    assert.equal(acked?.error, undefined);
    await eventually("what it said", () => service.bot("mo").answers.get("x")?.[0].text === "by myself");
    await eventually("its confirmation", async () => (await gateway.links()).mo.messages.waiting === 0);
  } finally {
    client.disconnect();
  }
});

test("a program says something over the API as the bot would", async () => {
  const said = await gateway.control("/api/v1/links/ann/send", { method: "POST", body: { data: { type: "answer", to: "y", text: "hi" } } });
  assert.equal(said.status, 200, said.text);
  await eventually("what was said", () => service.bot("ann").answers.has("y"));
  const wrong = await gateway.control("/api/v1/links/ann/send", { method: "POST", body: { text: "hi" } });
  assert.deepEqual([wrong.status, wrong.json.error.code], [400, "request-invalid"]);
  assert.equal((await gateway.control("/api/v1/links/nobody")).status, 404);
});
