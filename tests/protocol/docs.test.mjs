// docs/protocol.md against the tests: every test it names exists, every protocol test is named in it, and its table of intended
// differences is the one that the differential runner uses. `UPDATE_DOCS=1` writes that table.

import test from "node:test";
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { INTENDED } from "../differential/intended.mjs";

const DOCUMENT = new URL("../../docs/protocol.md", import.meta.url);
const SUITES = ["engine-v4", "engine-v3", "socketio-v5"];
const AREAS = ["01-handshake", "02-polling", "03-limits", "04-websocket", "05-heartbeat", "06-upgrade", "07-revision-3", "08-connect", "09-events", "10-socketio-4", "11-gateway"];

const BEGIN = "<!-- intended differences: written by UPDATE_DOCS=1 -->";
const END = "<!-- end of intended differences -->";

/** A reference is `suite: name of the test` in backticks; `differential: name of the script` names a script. */
const references = (document) => [...document.matchAll(/`(engine-v4|engine-v3|socketio-v5|differential): ([^`]+)`/g)].map(([, suite, name]) => ({ suite, name }));

const testNames = (suite) => [...readFileSync(new URL(`${suite}.test.mjs`, import.meta.url), "utf8").matchAll(/^test\("([^"]+)"/gm)].map(([, name]) => name);

test("every test that the document names exists", async () => {
  const known = new Map(SUITES.map((suite) => [suite, new Set(testNames(suite))]));
  const areas = await Promise.all(AREAS.map((area) => import(`../differential/scripts/${area}.mjs`)));
  known.set("differential", new Set(areas.flatMap(({ default: { scripts } }) => scripts.map(({ name }) => name))));
  const missing = references(readFileSync(DOCUMENT, "utf8")).filter(({ suite, name }) => !known.get(suite).has(name));
  assert.deepEqual(missing, []);
});

test("every protocol test stands in the document", () => {
  const named = new Set(references(readFileSync(DOCUMENT, "utf8")).map(({ suite, name }) => `${suite}: ${name}`));
  const unnamed = SUITES.flatMap((suite) => testNames(suite).map((name) => `${suite}: ${name}`)).filter((name) => !named.has(name));
  assert.deepEqual(unnamed, []);
});

test("the document has the table of intended differences", () => {
  const document = readFileSync(DOCUMENT, "utf8");
  const [begin, end] = [document.indexOf(BEGIN), document.indexOf(END)];
  assert.ok(begin >= 0 && begin < end, "the document has lost its markers");
  const cell = (text) => text.replaceAll("|", "\\|");
  const rows = INTENDED.map(({ id, what, reason }) => `| ${id} | ${cell(what)} | ${cell(reason)} |`);
  const table = ["", "| row | difference | reason |", "|---|---|---|", ...rows, ""].join("\n");
  if (process.env.UPDATE_DOCS) {
    writeFileSync(DOCUMENT, document.slice(0, begin + BEGIN.length) + table + document.slice(end));
    return;
  }
  assert.equal(document.slice(begin + BEGIN.length, end), table);
});
