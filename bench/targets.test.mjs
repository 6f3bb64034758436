import assert from "node:assert/strict";
import { test } from "node:test";

import { loadArguments } from "./measure.mjs";
import { Results, published, report } from "./report.mjs";
import { SERVERS } from "./servers.mjs";
import { TARGETS, judge } from "./targets.mjs";
import { GROUPS, WORKLOADS } from "./workloads.mjs";
import { chart } from "./chart.mjs";

test("a target is met, missed or not measured", () => {
  const targets = [
    { what: "a", most: 1.2, unit: "× floor", figures: () => [1.3, 1.1, 1.2] },
    { what: "b", most: 1000, unit: "bytes", digits: 0, figures: () => [1001] },
    { what: "c", most: 1, unit: "µs", figures: () => [] },
  ];
  assert.deepEqual(judge(undefined, targets), [
    { what: "a", most: "≤ 1.2 × floor", figure: "1.20 (1.10–1.30)", verdict: "met" },
    { what: "b", most: "≤ 1,000 bytes", figure: "1,001", verdict: "missed" },
    { what: "c", most: "≤ 1 µs", figure: "–", verdict: "not measured" },
  ]);
});

test("every target is judged from a whole run", () => {
  const verdicts = judge(wholeRun()).map(({ what, verdict }) => `${what}: ${verdict}`);
  assert.equal(verdicts.length, TARGETS.length);
  assert.deepEqual(verdicts.filter((line) => line.endsWith("not measured")), []);
});

test("ratios are those that the targets speak of", () => {
  const cost = { floor: 10, bowline: 11, bowline2: 22, socketioxide: 44, socketio: 110, python: 1000 };
  const figures = Object.fromEntries(judge(wholeRun((workload, server) => cost[server] * (workload === "scale-19k" ? 2 : 1))).map(({ what, figure }) => [what, figure]));
  assert.equal(figures["echo, with ack"], "1.10 (1.10–1.10)");
  assert.equal(figures["join"], "0.25 (0.25–0.25)");
  assert.equal(figures["echo over polling only"], "0.10 (0.10–0.10)");
  assert.equal(figures["two shards on one core, echo"], "2.00 (2.00–2.00)");
  assert.equal(figures["growth of a delivery, 1,000 → 19,000 sessions"], "1.00 (1.00–1.00)");
});

test("a report has every workload, and says of a quick run that it is one", () => {
  const text = report(wholeRun());
  for (const workload of Object.keys(WORKLOADS)) assert.match(text, new RegExp(`\\| ${workload},`));
  assert.doesNotMatch(text, /Quick|undefined|NaN/);
  assert.match(report(wholeRun(undefined, "r-quick")), /Quick/);
});

test("a report takes the place of the last one on its page", () => {
  const page = "# A\n\n<!-- From here: … -->\n\nold $& text\n\n<!-- To here. -->\n\n## B\n";
  const once = published(page, "costs $1\n");
  assert.equal(once, "# A\n\n<!-- From here: … -->\n\ncosts $1\n\n<!-- To here. -->\n\n## B\n");
  assert.equal(published(once, "costs $1\n"), once);
  assert.throws(() => published("# A\n", "new"));
});

test("a chart has machine and date, colours for a dark page, and no figure where none was measured", () => {
  const svg = chart(wholeRun());
  assert.match(svg, /2026-11-22/);
  assert.match(svg, /cores/);
  assert.match(svg, /prefers-color-scheme:dark/);
  const bare = { run: "r", workload: "size", server: "bowline", round: 1, at: "2026-11-22T10:00:00.000Z", result: {} };
  assert.doesNotMatch(chart(new Results([bare])), /NaN|undefined/);
});

test("workloads name servers that there are, and their base is among them", () => {
  for (const [name, { servers, base, what, unit, figure }] of Object.entries(WORKLOADS)) {
    assert.ok(what && unit && figure, name);
    for (const server of servers) assert.ok(server in SERVERS, `${name}: ${server}`);
    if (base) assert.ok(servers.includes(base), name);
  }
  for (const name of Object.values(GROUPS).flat()) assert.ok(name in WORKLOADS, name);
});

test("the floor speaks its own wire, and slow servers get fewer messages", () => {
  const args = (server, workload) => loadArguments(server, WORKLOADS[workload], 1).join(" ");
  assert.match(args("floor", "join"), /^join --sessions \d+ --wire raw$/);
  assert.match(args("bowline", "join-upgrade"), /--wire upgrade/);
  const messages = (server) => Number(/--messages (\d+)/.exec(args(server, "echo"))[1]);
  assert.equal(messages("python"), messages("bowline") * SERVERS.python.speed);
});

/** Two rounds of everything, with one figure or those of `cost(workload, server)`. */
function wholeRun(cost = () => 10, run = "r") {
  const lines = [];
  for (const round of [1, 2]) {
    for (const [workload, { servers, figure }] of Object.entries(WORKLOADS)) {
      for (const server of servers) {
        const [first, second] = figure.split(".");
        const value = cost(workload, server);
        const times = { p50: 1, p99: value, p999: 3, max: 4 };
        const result = { server: {}, load: { cpu_us_per_message: 1 }, latency_us: times, fanout_us: times };
        if (second) result[first][second] = value;
        else result[first] = value;
        lines.push({ run, workload, server, round, args: [], at: "2026-11-22T10:00:00.000Z", result });
      }
    }
  }
  return new Results(lines);
}
