// Real, unmodified `webex_bot` processes, 1.0.8 with websockets 11.0.3 and the newest, whose HTTP connections were
// forgotten or reset by a NAT while they were idle: the WebSocket is healthy all the time. Alone they lose the first
// message, or the first two; behind Bowline they answer every one. In real time, with the limits made short.

import assert from "node:assert/strict";
import { test } from "node:test";

import { eventually } from "../harness/programs.mjs";
import { after } from "../harness/server.mjs";
import { startNat } from "./nat.mjs";
import { startLinks } from "./rig.mjs";
import { BOTS, linkVariables, startWebexBot } from "./webex-bot.mjs";
import { HOSTS, startWebex } from "./webex.mjs";

/** After so long without a byte the NAT forgets a connection (it is minutes in the world). */
const NAT_IDLE_MS = 1200;
/** Between messages. */
const APART_MS = 500;
/** How long an answer may take behind Bowline: a deadline, not a figure. */
const ANSWER_MS = 60_000;
/** The same alone, where one that was lost comes late or never. */
const ALONE_MS = 6000;
/** A bot of Python starts, beside many others. */
const START_MS = 180_000;

/** `alone`: how many of three are answered without Bowline at best, as measured for facts/links-and-fleet.md, section 0. */
const FAULTS = [
  { name: "conversation pool dead", key: "conversations", hosts: [HOSTS.conversations], how: "forgotten", alone: 2 },
  { name: "webexapis pool dead", key: "api", hosts: [HOSTS.api], how: "forgotten", alone: 2 },
  { name: "both dead", key: "both", hosts: [HOSTS.conversations, HOSTS.api], how: "forgotten", alone: 1 },
  { name: "both reset", key: "reset", hosts: [HOSTS.conversations, HOSTS.api], how: "reset", alone: 1 },
];

/** What helps behind Bowline: connections that are closed before the NAT forgets them, or, when it is too late for that, the
 * second sending of what is safe. Each is tested without the other. */
const CURES = {
  "aged out": `http = { idle-max = "600ms" }`,
  "sent again": `http = { idle-max = "60s", reused-head-timeout = "500ms" }`,
};

test("real webex_bots answer 3 of 3 behind Bowline, whichever of their pools is dead", { timeout: 500_000 }, async (t) => {
  const started = [];
  // The last first: nobody asks what is gone.
  t.after(async () => {
    for (const one of started.reverse()) await one.stop();
  });
  const start = async (one) => (started.push(await one), started.at(-1));
  const cloud = await start(startWebex());
  const cases = [];
  for (const bot of BOTS) {
    for (const fault of FAULTS) {
      for (const cure of [undefined, ...Object.keys(CURES)]) cases.push({ bot, fault, cure });
    }
  }
  for (const [number, one] of cases.entries()) {
    one.name = `${one.fault.key}-${one.bot.venv}-${number}`;
    one.nat = await start(startNat({ to: cloud.port, user: `nat-${number}:secret` }));
    // websockets 11 knows no proxies: alone, it goes there directly.
    one.far = cloud.bot(one.name, one.cure ? {} : { socketHost: `localhost:${cloud.port}` });
  }
  const behind = cases.filter(({ cure }) => cure);
  const files = Object.fromEntries(behind.map(({ name, far }) => [`${name}.token`, far.token]));
  const gateway = await start(startLinks(`attempts-per-second = 50
attempts-burst = 50
${behind.map((one) => table(one, cloud)).join("\n")}`, { files }));

  // A bot that starts beside a link that is not there yet gives up after a while.
  await Promise.all(behind.map(({ name }) => gateway.inState(name, "live", START_MS)));
  for (const one of behind) one.variables = await linkVariables(gateway, one.name);
  await Promise.all(cases.map((one) => play(t, one, cloud, gateway)));
  report(cases);
  for (const { bot, fault, cure, answered, twice, said } of cases) {
    const told = `${bot.name}, ${fault.name}, ${cure ?? "alone"}: ${answered.join(" ")}\n${said}`;
    const count = answered.filter((word) => word === "yes").length;
    if (cure) assert.equal(count, 3, told);
    // Otherwise the test would prove nothing.
    else assert.ok(count <= fault.alone, told);
    assert.equal(twice, 0, told);
  }
});

/** The bot starts and answers, nobody says anything for a while, then three messages come. */
async function play(t, one, cloud, gateway) {
  const { name, far, nat, bot, fault, cure } = one;
  const variables = cure ? one.variables : aloneVariables(nat, cloud);
  const process = await startWebexBot(bot.venv, { ...variables, WEBEX_TOKEN: far.token });
  t.after(() => process.stop());
  // Behind Bowline that is the link, which keeps what comes before the bot is there.
  await far.until(() => far.ready().length > 0, START_MS);
  const hello = await far.answerTo(far.hear("echo hello"), START_MS);
  assert.ok(hello, `${name} does not answer at all\n${process.said().slice(-3000)}\n${gateway.said().slice(-2000)}`);
  // Alone, it asks for its own messages as well: one that came late would be lost in the place of somebody's.
  const own = far.answers[0].id;
  if (!cure) assert.ok(await far.until(() => far.seen.some(({ path }) => path === `/v1/messages/${own}`), START_MS), name);
  const isMeant = (host) => fault.hosts.includes(host);
  nat.idle(NAT_IDLE_MS, isMeant, fault.how);
  await after(NAT_IDLE_MS);
  await eventually("the NAT to forget what is idle", () => nat.isDead(isMeant));
  // What is new from now on is used at once, and stays.
  nat.idle();
  const messages = [];
  for (const word of ["one", "two", "three"]) {
    messages.push(far.hear(`echo ${word} ${name}`));
    await after(APART_MS);
  }
  const answers = await Promise.all(messages.map((message) => far.answerTo(message, cure ? ANSWER_MS : ALONE_MS)));
  one.answered = answers.map((answer) => (answer ? "yes" : "no"));
  one.twice = far.answers.filter(({ parent }, at, all) => all.findIndex((other) => other.parent === parent) !== at).length;
  one.said = process.said().slice(-1500);
  await process.stop();
}

function table({ name, nat, cure }, cloud) {
  return `[links.${name}]
profile = "webex"
token-file = "$DIR/${name}.token"
proxy = "${nat.url}"
ca-file = "${cloud.caFile}"
deliver = "proxy"
${CURES[cure]}`;
}

function aloneVariables(nat, cloud) {
  return { HTTPS_PROXY: nat.url, NO_PROXY: "localhost", SSL_CERT_FILE: cloud.caFile, REQUESTS_CA_BUNDLE: cloud.caFile };
}

function report(cases) {
  const rows = BOTS.flatMap((bot) => FAULTS.map((fault) => {
    const of = (wanted) => {
      const { answered } = cases.find(({ cure, ...one }) => one.bot === bot && one.fault === fault && cure === wanted);
      return `${answered.filter((word) => word === "yes").length}/3`;
    };
    return [bot.name, fault.name, of(undefined), ...Object.keys(CURES).map(of)];
  }));
  const head = ["bot", "while it was idle", "alone", ...Object.keys(CURES).map((cure) => `Bowline, ${cure}`)];
  const widths = head.map((_, at) => Math.max(...[head, ...rows].map((row) => row[at].length)));
  for (const row of [head, ...rows]) console.log(row.map((cell, at) => cell.padEnd(widths[at])).join("  ").trimEnd());
  const sum = (cases) => `${cases.flatMap(({ answered }) => answered).filter((word) => word === "yes").length} of ${3 * cases.length}`;
  const [alone, behind] = [cases.filter(({ cure }) => !cure), cases.filter(({ cure }) => cure)];
  console.log(`webex bots: ${sum(behind)} answered behind Bowline, ${sum(alone)} alone`);
}
