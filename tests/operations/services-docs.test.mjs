// docs/services.md against what is so: the tests it names exist, its states are all there are, its configurations are right.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { bowline } from "./services.mjs";

const file = (path) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
const DOCUMENT = file("docs/services.md");
const FLEET = "crates/bowline-fleet";

/** Where the tests of each name are. */
const SUITES = {
  children: readdirSync(new URL(`../../${FLEET}/tests/children`, import.meta.url)).map((name) => `${FLEET}/tests/children/${name}`),
  plan: [`${FLEET}/src/plan/tests.rs`],
  spec: [`${FLEET}/src/spec/check.rs`],
  probe: [`${FLEET}/tests/probe.rs`],
  interpreter: [`${FLEET}/tests/interpreter.rs`],
};

test("every test that the document names exists", () => {
  const named = [...DOCUMENT.matchAll(/`([a-z-]+): ([^`]+)`/g)].map(([, suite, name]) => ({ suite, name }));
  assert.ok(named.length > 20, `${named.length} are named`);
  const exists = ({ suite, name }) => {
    if (suite.startsWith("services")) return file(`tests/operations/${suite}.test.mjs`).includes(`test("${name}"`);
    return SUITES[suite]?.some((path) => file(path).includes(`fn ${name}(`));
  };
  assert.deepEqual(named.filter((one) => !exists(one)), []);
});

test("the document has all states, and the alerts", () => {
  const table = DOCUMENT.slice(DOCUMENT.indexOf("## States"), DOCUMENT.indexOf("### Children"));
  const states = [...table.matchAll(/^\| `([a-z-]+)` \|/gm)].map(([, name]) => name);
  const known = [...file(`${FLEET}/src/plan/view.rs`).matchAll(/Self::\w+ => "([a-z-]+)",/g)].map(([, name]) => name);
  // Behind the states stand the reasons.
  assert.deepEqual(states, known.slice(0, states.length));
  assert.equal(states.length, 10);
  // And no row of the other table ends in something that is none.
  const matrix = DOCUMENT.slice(DOCUMENT.indexOf("### Children"), DOCUMENT.indexOf("## Starts"));
  const ends = [...matrix.matchAll(/^\| [^|]+\| [^|]+\| `([a-z-]+)`/gm)].map(([, name]) => name);
  assert.ok(ends.length >= 12 && ends.every((name) => states.includes(name)), ends.join());
  const rules = [...file("crates/bowline/src/alerts/rules.toml").matchAll(/^\[rules\.(BowlineService\w+)\]/gm)].map(([, name]) => name);
  assert.ok(rules.length >= 4 && rules.every((name) => DOCUMENT.includes(name)), rules.join());
});

test("the configurations of the document are right", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "bowline-docs-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const blocks = [...DOCUMENT.matchAll(/^```toml\n([^]*?)^```$/gm)].map(([, text]) => text);
  // What stands for keys of the others, each in a service of its own.
  const moving = DOCUMENT.slice(DOCUMENT.indexOf("## Moving here"), DOCUMENT.indexOf("## What Bowline does"));
  const keys = [...moving.matchAll(/`([a-z-]+ = [^`…]+)`/g)].map(([, text]) => text);
  assert.ok(blocks.length >= 2 && keys.length > 10, `${blocks.length} blocks, ${keys.length} keys`);
  const services = keys.map((text, i) => `[services.s${i}]\ncommand = ["true"]\n${text}\n`);
  for (const [i, text] of [...blocks, services.join("")].entries()) {
    const config = join(directory, `${i}.toml`);
    writeFileSync(config, text);
    const { code, out, err } = await bowline(["config", "check", "--config", config]);
    assert.equal(code, 0, `${text}\n${out}${err}`);
  }
});
