import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import { Journal, keyOf, parse, runOf } from "./journal.mjs";

const folder = mkdtempSync(join(tmpdir(), "bowline-journal-"));
after(() => rmSync(folder, { recursive: true }));

const line = { run: "r", workload: "echo", server: "floor", round: 1, args: ["echo", "--messages", "5"] };

test("a measurement is known by its programs, workload, server, round and arguments", () => {
  assert.equal(keyOf(line), keyOf({ ...line, at: "later", result: {} }));
  const others = [{ run: "s" }, { workload: "rooms" }, { server: "bowline" }, { round: 2 }, { args: ["echo"] }];
  for (const other of others) assert.notEqual(keyOf(line), keyOf({ ...line, ...other }), JSON.stringify(other));
});

test("a run that was broken off goes on where it was", () => {
  const file = join(folder, "run.jsonl");
  new Journal(file).append({ ...line, result: {} });
  appendFileSync(file, '\n{"run":"r","workload":"ec');
  const resumed = new Journal(file);
  assert.ok(resumed.has(line));
  assert.ok(!resumed.has({ ...line, round: 2 }));
  resumed.append({ ...line, round: 2, result: {} });
  assert.ok(new Journal(file).has({ ...line, round: 2 }), "what was cut off does not take the next line with it");
});

test("the lines of the run that measured last are reported", () => {
  const journal = new Journal(join(folder, "two.jsonl"));
  journal.append(line);
  journal.append({ ...line, run: "s" });
  assert.deepEqual(journal.lines().map((line) => line.run), ["s"]);
  assert.deepEqual(journal.lines("r").map((line) => line.run), ["r"]);
});

test("a run begun anew keeps the old one aside", () => {
  const file = join(folder, "anew.jsonl");
  const journal = new Journal(file);
  journal.append(line);
  journal.beginAnew();
  assert.ok(!journal.has(line));
  assert.equal(parse(readFileSync(`${file}.old`, "utf8")).length, 1);
});

test("another program is another run", () => {
  const file = join(folder, "program");
  writeFileSync(file, "one");
  const one = runOf([file, join(folder, "missing")]);
  assert.equal(runOf([file]), one);
  writeFileSync(file, "two");
  assert.notEqual(runOf([file]), one);
});
