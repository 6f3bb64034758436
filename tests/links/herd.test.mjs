// 200 links lose their service at once: they come back as fast as the budget of its host allows, and no faster.
//
// In full (LINKS_LONG=1) with the default budget, a service that is away for half a minute, and a picture of the attempts
// over time in the file that LINKS_PLOT names: docs/links.md shows it.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { after as afterAll, test } from "node:test";

import { eventually } from "../harness/programs.mjs";
import { after } from "../harness/server.mjs";
import { startApp } from "./app.mjs";
import { startEcho } from "./echo.mjs";
import { picture } from "./picture.mjs";
import { LONG, startLinks } from "./rig.mjs";

const LINKS = 200;
/** `links.attempts-per-second` and `links.attempts-burst`: in full, the defaults. */
const BUDGET = LONG ? { perSecond: 5, burst: 5 } : { perSecond: 40, burst: 10 };
/** How long the service refuses everybody. */
const AWAY_MS = LONG ? 30_000 : 1500;

const started = [];
afterAll(async () => {
  for (const one of started.reverse()) await one.stop();
});

test(`${LINKS} links that lose their service at once stay under the budget of its host`, { timeout: 400_000 }, async (t) => {
  const service = await startEcho();
  started.push(service);
  const app = await startApp();
  started.push(app);
  const links = Array.from({ length: LINKS }, (_, i) => `
[links.bot-${i}]
profile = "websocket"
url = "${service.url}/bots/bot-${i}"
message-id = "/id"
room = "/room"
probe = '{"type":"probe","nonce":"{nonce}"}'
deliver = { http = "app" }
`);
  const begun = Date.now();
  const gateway = await startLinks(`attempts-per-second = ${BUDGET.perSecond}
attempts-burst = ${BUDGET.burst}
[backends.app]
url = "http://127.0.0.1:${app.port}/"
${links.join("")}`);
  started.push(gateway);
  const allLive = () => eventually("all links to be live", async () => {
    const states = Object.values(await gateway.links()).map(({ state }) => state);
    const live = states.filter((state) => state === "live").length;
    if (live === LINKS && service.connections() === LINKS) return true;
    throw new Error(`${live} are live, ${service.connections()} connections`);
  }, 200_000);

  await allLive();
  const opening = service.attempts.splice(0);
  assert.equal(opening.length, LINKS, "each once");

  const lost = Date.now();
  service.refuse(true);
  service.drop();
  await after(AWAY_MS);
  service.refuse(false);
  const back = Date.now();
  await allLive();
  const attempts = service.attempts.splice(0);

  // A busy machine makes attempts late, which brings some of them closer to each other; none of them may be early.
  for (const [what, times, begin] of [["at the start", opening, begun], ["after the loss", attempts, lost]]) {
    times.forEach((time, index) => {
      const allowed = BUDGET.burst + (BUDGET.perSecond * (time - begin)) / 1000;
      assert.ok(index < allowed, `${what}: ${index + 1} attempts within ${time - begin} ms, and ${Math.floor(allowed)} are allowed`);
    });
  }
  assert.ok(attempts.length >= LINKS, "each came back");
  assert.ok(!LONG || mostWithinASecond(attempts) <= BUDGET.perSecond + BUDGET.burst, "in any second");
  const seconds = ((attempts.at(-1) - lost) / 1000).toFixed(1);
  const most = mostWithinASecond(attempts);
  t.diagnostic(`herd: ${LINKS} links lost at once and refused for ${AWAY_MS / 1000} s: ${attempts.length} attempts, at most ${most} within a second, budget ${BUDGET.perSecond}/s after ${BUDGET.burst} at once; all back ${seconds} s after the loss`);
  if (process.env.LINKS_PLOT) {
    writeFileSync(process.env.LINKS_PLOT, picture(attempts.map((at) => at - lost), { back: back - lost, ...BUDGET, links: LINKS }));
  }
});

/** The most of these times that lie within one second. */
function mostWithinASecond(times) {
  let first = 0;
  let most = 0;
  times.forEach((time, index) => {
    while (time - times[first] >= 1000) first++;
    most = Math.max(most, index - first + 1);
  });
  return most;
}
