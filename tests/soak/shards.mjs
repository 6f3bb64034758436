// Several shards and no stickiness: every request of a polling session comes on a TCP connection
// of its own, so that most reach a shard which does not own the session; then half of the sessions
// upgrade, again over a connection of their own. `Session ID unknown` must never be seen.
//
//   npm run shards        SHARD_SESSIONS=1000 SHARD_TRIPS=5 SHARDS=2 widen it
import { startTarget, targetName } from "../clients/target.mjs";
import { RawClient } from "./raw-client.mjs";

const SESSIONS = Number(process.env.SHARD_SESSIONS ?? 1000);
const TRIPS = Number(process.env.SHARD_TRIPS ?? 5);
const SHARDS = Number(process.env.SHARDS ?? 2);
// Milliseconds that all round trips of one session may take while a thousand run at once.
const DEADLINE = 60_000;

const totals = { complete: 0, upgraded: 0, requests: 0, unknown: 0, failed: 0 };
const owners = new Map(); // the owning shard, as the first byte of the sid names it -> sessions
const failures = new Map(); // what went wrong -> how often

/** One session: joins `/`, exchanges numbered events with the echo, and perhaps upgrades half way. */
async function session(target, number) {
  let answer = () => {};
  let fail;
  const failed = new Promise((_, reject) => (fail = reject));
  failed.catch(() => {});
  const late = setTimeout(() => fail(new Error("late")), DEADLINE);
  const client = new RawClient(target.url, { fresh: true, onMessage: (packet) => answer(packet), onFail: fail });
  const ask = (packet, expected) => {
    const answered = new Promise((done, wrong) => {
      answer = (got) => (expected.test(got) ? done() : wrong(new Error(`${got} is not ${expected}`)));
    });
    client.send(packet);
    return Promise.race([answered, failed]);
  };
  const trips = async () => {
    for (let n = 0; n < TRIPS; n++) await ask(`2["n",${number},${n}]`, new RegExp(`^2\\["n",${number},${n}\\]$`));
  };

  try {
    await Promise.race([client.open(), failed]);
    const owner = Buffer.from(client.sid, "base64url")[0];
    owners.set(owner, (owners.get(owner) ?? 0) + 1);
    await ask("0", /^0\{"sid":"[^"]+"/);
    await trips();
    if (number % 2 === 0) {
      await Promise.race([client.upgrade(), failed]);
      await trips();
      totals.upgraded++;
    }
    totals.complete++;
  } catch (error) {
    totals.failed++;
    if (/Session ID unknown/.test(error.body ?? error.message)) totals.unknown++;
    const what = error.message.replaceAll(/\d{3,}/g, "N");
    failures.set(what, (failures.get(what) ?? 0) + 1);
  } finally {
    clearTimeout(late);
    client.close();
    totals.requests += client.requests;
  }
}

console.log(`shards against ${targetName}: ${SESSIONS} sessions at once, ${SHARDS} shards, every request on a new connection`);
const started = Date.now();
const target = await startTarget({ server: { shards: SHARDS } });
await Promise.all(Array.from({ length: SESSIONS }, (_, number) => session(target, number)));
await target.stop().catch((error) => {
  totals.failed++;
  console.error(error.message);
});
for (const [what, count] of failures) console.error(`${count} × ${what}`);

const { complete, upgraded, requests, unknown, failed } = totals;
if (targetName === "bowline") {
  const shares = [...owners].sort().map(([shard, count]) => `${shard}: ${count}`);
  console.log(`sessions by owning shard: ${shares.join(", ")}`);
  // With one owner only, no request would ever have come to the wrong shard.
  if (SHARDS > 1 && owners.size !== SHARDS) totals.failed++;
}
console.log(
  `${complete} sessions complete, ${upgraded} of them upgraded; ${requests} requests; "Session ID unknown" ${unknown} times; ${((Date.now() - started) / 1000).toFixed(1)} s\n` +
    `${complete} passed, ${totals.failed} failed`,
);
process.exitCode = totals.failed > 0 ? 1 : 0;
