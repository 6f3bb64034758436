import assert from "node:assert/strict";
import { test } from "node:test";

import { Results, published, report } from "./report.mjs";

/** A measurement in which everything takes `ms`, and the provider alone none. */
function line(server, round, ms) {
  const delays = { p50: ms * 1000, p99: ms * 1000 };
  const none = { p50: 20, p99: 30 };
  const load = (added) => ({ gateway: { cpu_us_per_request: ms * 1000, rss_max_bytes: 9e6 }, added, direct: { request_us: { all: none, first_content: none } } });
  const quantiles = (kind) => ({ [`request_us.${kind}.p50`]: delays.p50, [`request_us.${kind}.p99`]: delays.p99 });
  const workloads = { plain: load(quantiles("all")), stream: load(quantiles("first_content")), "plain-8": load({}), "stream-8": load({}) };
  return { run: "run", server, round, at: "2026-11-22T00:00:00Z", result: { idle: { rss_bytes: 1e7, largest_rss_bytes: 1e7, pss_bytes: 1e7 }, workloads } };
}

test("targets are judged by the median of all rounds, and others stand beside Bowline", () => {
  const lines = [0.1, 0.12, 0.5].map((ms, round) => line("bowline", round + 1, ms));
  const text = report(new Results([...lines, line("litellm", 1, 24)]));
  assert.match(text, /added to a plain answer, p50 +\| 0.15 ms +\| 0.120 \(0.100–0.500\) +\| met/);
  assert.match(text, /LiteLLM .* \| 24.000, 200 × /);
  assert.match(text, /The provider alone: plain p50 20 /);
  assert.doesNotMatch(text, /rolter/);
  const slow = [0.2, 0.2, 0.1].map((ms, round) => line("bowline", round + 1, ms));
  assert.match(report(new Results(slow)), /0.15 ms +\| 0.200 .* \*\*missed\*\*/);
});

test("a report stands between its two comments", () => {
  const page = "a\n<!-- AI gateway: from here. -->\nold\n<!-- AI gateway: to here. -->\nb\n";
  assert.equal(published(page, "new"), "a\n<!-- AI gateway: from here. -->\n\nnew\n<!-- AI gateway: to here. -->\nb\n");
  assert.throws(() => published("a", "new"));
});
