// What each fault of a provider ends as (docs/ai.md has the same table), plain and streamed, with and without somebody to
// fall back to, and whether the client stays or leaves. Afterwards nobody holds anything, and both sides have counted the
// same attempts.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { eventually } from "../harness/programs.mjs";
import { HELLO, model, provider, settled, startAi, startMock, sum } from "./rig.mjs";

/**
 * By the mode of the mock. `plain` and `stream` are what a client gets from a model with this provider alone: the status
 * and the code of an error, `"ok"`, or in a stream that has begun `"frame CODE"`. `next` is the same where another provider
 * stands behind it; without it that one answers, but for a stream that has begun, which ends the same way.
 */
const FAULTS = {
  429: { plain: "429 rate_limit_exceeded" },
  "429-after-1": { plain: "429 rate_limit_exceeded" },
  "500-once": { plain: "ok" },
  503: { plain: "503 upstream_overloaded" },
  reset: { plain: "502 upstream_broken" },
  close: { plain: "502 upstream_broken" },
  silent: { plain: "504 upstream_timeout" },
  "headers-only": { plain: "504 upstream_timeout" },
  "slow-first-300": { plain: "ok" },
  cut: { plain: "502 upstream_truncated", stream: "frame upstream_truncated" },
  stall: { plain: "504 upstream_timeout", stream: "frame upstream_timeout" },
  malformed: { plain: "502 upstream_malformed", stream: "frame upstream_malformed" },
  "no-done": { plain: "ok" },
  "no-finish": { plain: "ok", stream: "frame upstream_truncated" },
  "error-frame": { plain: "502 upstream_error", stream: "frame upstream_error" },
  "early-error": { plain: "502 upstream_error" },
  "too-long": { plain: "400 context_length_exceeded" },
  filter: { plain: "400 content_filter", next: "400 content_filter" },
  "filter-late": { plain: "ok" },
  flap: { plain: "ok" },
  "keepalive-only": { plain: "504 upstream_timeout" },
  "drip-200": { plain: "504 upstream_timeout", stream: "frame upstream_slow" },
  "glm-1302": { plain: "429 rate_limit_exceeded" },
  "glm-1305": { plain: "503 upstream_overloaded" },
  "glm-1308": { plain: "429 rate_limit_exceeded" },
  "glm-1113": { plain: "502 upstream_billing" },
};

const MODES = Object.keys(FAULTS);

let mock, gateway;

before(async () => {
  mock = await startMock();
  const timeout = 'timeout = { connect = "1s", first-content = "700ms", idle = "700ms", total = "3s" }';
  // Each case has targets of its own: breakers remember. Where an account says that it runs too much at once, its provider
  // is asked less at once.
  const at = (mode) => (mode === "glm-1302" ? "crowded" : "one");
  const models = MODES.flatMap((mode) =>
    ["plain", "stream", "leave-plain", "leave-stream"].flatMap((way) => [
      model(`${mode} ${way}`.replaceAll(" ", ":"), [`${at(mode)}/mock:${mode}#${way}`]),
      model(`${mode}:${way}:next`, [`${at(mode)}/mock:${mode}#${way}-next`, "two/good"]),
    ]),
  );
  gateway = await startAi({
    log: "error",
    toml: [
      '[ai]\ndeadline = "8s"\nretry-budget = "100%"',
      '[ai.slow-stream]\nwindow = "1s"\nmin-tokens = 10',
      provider("one", mock, { more: timeout }),
      provider("crowded", mock, { more: timeout }),
      provider("two", mock, { more: timeout }),
      ...models,
    ].join("\n"),
  });
});

after(async () => {
  await gateway?.stop();
  await mock?.stop();
});

/** Asks once: what came, in the words of the table. */
async function ask(name, stream, leave = undefined) {
  const end = { attempts: "", id: undefined };
  try {
    const body = JSON.stringify({ model: name, messages: HELLO, stream });
    const response = await fetch(`${gateway.base}/chat/completions`, { method: "POST", body, signal: leave });
    Object.assign(end, { id: response.headers.get("x-request-id"), attempts: response.headers.get("bowline-attempts") ?? "" });
    const text = await response.text();
    if (response.status !== 200) {
      const { code } = JSON.parse(text).error;
      return { ...end, came: `${response.status} ${code}`, retry: response.headers.get("x-should-retry") };
    }
    if (!stream) return { ...end, came: JSON.parse(text).choices[0].message.content.length >= 0 ? "ok" : "nothing" };
    const last = text.trimEnd().split("\n\n").at(-1);
    if (last === "data: [DONE]") return { ...end, came: "ok" };
    const { error } = JSON.parse(last.replace(/^data: /, ""));
    return { ...end, came: `frame ${error.code}` };
  } catch (error) {
    assert.equal(error.name, "AbortError", `${name}: ${error}`);
    return { ...end, came: "left" };
  }
}

const expected = (mode, way) => FAULTS[mode][way] ?? FAULTS[mode].plain;

/** All modes at once, in this way: what is not as it should be, all of it. */
async function wrong(way, check) {
  const found = await Promise.all(MODES.map(async (mode) => {
    const problem = await check(mode);
    return problem && `${mode}: ${problem}`;
  }));
  return found.filter(Boolean);
}

for (const way of ["plain", "stream"]) {
  test(`${way}: a provider alone`, async () => {
    assert.deepEqual(await wrong(way, async (mode) => {
      const { came, retry, attempts } = await ask(`${mode}:${way}`, way === "stream");
      if (came !== expected(mode, way)) return `${came}, not ${expected(mode, way)} (${attempts})`;
      // Whoever tries again would only make it worse.
      return /^[45]/.test(came) && retry !== "false" && `x-should-retry is ${retry}`;
    }), []);
  });

  test(`${way}: with another behind it`, async () => {
    assert.deepEqual(await wrong(way, async (mode) => {
      const begun = expected(mode, way).startsWith("frame");
      const should = begun ? expected(mode, way) : FAULTS[mode].next ?? "ok";
      const { came, attempts } = await ask(`${mode}:${way}:next`, way === "stream");
      return came !== should && `${came}, not ${should} (${attempts})`;
    }), []);
  });
}

test("nobody holds anything, and both have counted the same attempts", async () => {
  const { requests, modes } = await settled(gateway, mock);
  const page = await gateway.page();
  assert.equal(sum(page, "bowline_ai_attempts_total"), requests, JSON.stringify(modes));
  assert.equal(sum(page, "bowline_ai_attempt_seconds_count"), requests);
  // What an account is at fault for is down, and stays so until somebody mends it.
  const down = page.split("\n").filter((line) => line.startsWith("bowline_ai_breaker_state") && line.endsWith(" 5"));
  assert.ok(down.length >= 2 && down.every((line) => line.includes("glm-1113")), down.join("\n"));
});

/** Faults that are still under way when the client leaves. */
const LONG = ["silent", "headers-only", "stall", "keepalive-only", "drip-200"];

for (const way of ["plain", "stream"]) {
  test(`${way}: a client that leaves`, async () => {
    const names = MODES.flatMap((mode) => [`${mode}:leave-${way}`, `${mode}:leave-${way}:next`]);
    const leave = new AbortController();
    const asked = names.map((name) => ask(name, way === "stream", leave.signal));
    await eventually("the mock to have been asked", async () => {
      const { modes } = await mock.stats();
      return LONG.every((mode) => modes[`${mode}#leave-${way}`] && modes[`${mode}#leave-${way}-next`]);
    });
    leave.abort();
    await Promise.all(asked);
    await settled(gateway, mock);
    const records = await gateway.records();
    for (const name of LONG.map((mode) => `${mode}:leave-${way}`)) {
      const { outcome, status, attempts } = records.find((record) => record.requested === name);
      assert.deepEqual([name, outcome, status, attempts.at(-1).outcome], [name, "cancelled", 499, "cancelled"]);
    }
  });
}

test("afterwards nobody holds anything either", async () => {
  const { requests } = await settled(gateway, mock);
  const page = await gateway.page();
  const counted = sum(page, "bowline_ai_attempts_total");
  const cancelled = page.split("\n").filter((line) => line.startsWith("bowline_ai_attempts_total") && line.includes('outcome="cancelled"'));
  const left = cancelled.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
  // An attempt whose client left while it was being sent may not have been seen.
  assert.ok(counted - left <= requests && requests <= counted, `${counted} attempts, ${left} cancelled, the mock saw ${requests}`);
  assert.equal(sum(page, "bowline_ai_body_bytes"), 0);
});

test("every attempt is charged to the provider that made it", async () => {
  for (const record of await gateway.records()) {
    const attempts = record.attempts.reduce((sum, one) => sum + one.took_ms + one.queued_ms, 0);
    assert.ok(Math.abs(record.took_ms - attempts - record.own_ms - record.queued_ms - record.client_ms) < 5, JSON.stringify(record));
  }
});
