// The loss matrix: every case is played against the reference server and against Bowline, and both columns are printed.
//
//   npm run continuity      ONLY=E4 narrows it, SIDE=reference or SIDE=bowline takes one column,
//                           MATRIX_MARKDOWN=FILE writes the table for the README
//
// A reference that no longer loses what it is known to lose fails nothing: its column says so.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { after, test } from "node:test";

import { EDGES } from "./edges.mjs";
import { FURTHER } from "./further.mjs";
import { KNOWN } from "./known.mjs";
import { World } from "./world.mjs";

/** Milliseconds one row may take, both sides and several servers included. */
const ROW_DEADLINE = 300_000;

const { ONLY: only, SIDE: side, MATRIX_MARKDOWN: markdown } = process.env;

const rows = [...KNOWN.map((row) => ({ ...row, both: true })), ...[...FURTHER, ...EDGES].map((row) => ({ id: "", reference: "socket.io", recovery: true, ...row }))];
const found = new Map();

for (const row of rows.filter((row) => !only || only === row.id || row.situation.includes(only))) {
  test(`${row.id} ${row.situation}`.trim(), { timeout: ROW_DEADLINE }, async () => {
    const columns = { reference: "–", bowline: "FAILED" };
    found.set(row, columns);
    if (row.both && side !== "bowline") columns.reference = referenceWords(row, await play(row, "reference"));
    if (side === "reference") return;
    const { held, words } = await play(row, "bowline");
    columns.bowline = held ? `held: ${words}` : `LOST: ${words}`;
    assert.ok(held, words);
  });
}

async function play(row, side) {
  const world = new World(side, row);
  try {
    return await row.run(world);
  } catch (error) {
    // A reference that leaves a client without what it waits for has an answer, too.
    if (side === "reference") return { held: false, words: error.message };
    throw error;
  } finally {
    await world.close();
  }
}

function referenceWords(row, { held, words }) {
  const isKnown = KNOWN.some(({ id }) => id === row.id);
  const verdict = held ? "held" : "lost";
  const news = isKnown && held !== Boolean(row.holds) ? ", by now" : "";
  return `${verdict}${news}: ${words} (${version(row.reference)}${row.recovery ? ", recovery on" : ""})`;
}

/** The name of a reference with the version that is installed. */
function version(name) {
  const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");
  if (name !== "python-engineio") return `${name} ${JSON.parse(read(`../node_modules/${name}/package.json`)).version}`;
  return `${name} ${/^python-engineio==(.*)$/m.exec(read("../python/requirements.txt"))[1]}`;
}

after(() => {
  const head = { id: "#", situation: "situation" };
  const lines = [[head, { reference: "reference", bowline: "Bowline" }], ...found];
  const wide = process.stdout.columns > 160 ? 60 : 56;
  const text = lines.flatMap(([row, { reference, bowline }]) => {
    const cells = [fold(row.id, 4), fold(row.situation, 44), fold(reference, wide), fold(bowline, wide)];
    const height = Math.max(...cells.map((cell) => cell.lines.length));
    return Array.from({ length: height }, (_, line) => cells.map(({ lines, width }) => (lines[line] ?? "").padEnd(width)).join("  ").trimEnd());
  });
  const failed = [...found.values()].filter(({ bowline }) => !bowline.startsWith("held") && side !== "reference").length;
  console.log(`\n${text.join("\n")}\nloss matrix: ${found.size - failed} held by Bowline, ${failed} not`);
  if (markdown) writeFileSync(markdown, asMarkdown());
});

/** The lines of a cell. */
function fold(text, width) {
  const lines = [""];
  for (const word of text.split(" ")) {
    if (lines.at(-1).length + word.length >= width) lines.push("");
    lines.push(lines.pop() + (lines.at(-1) === "" ? word : ` ${word}`));
  }
  return { lines, width };
}

function asMarkdown() {
  const cell = (text) => text.replaceAll("|", "\\|");
  const lines = [...found].map(([row, { reference, bowline }]) => `| ${[row.id, row.situation, reference, bowline].map(cell).join(" | ")} |`);
  return ["| # | situation | reference | Bowline |", "|---|---|---|---|", ...lines, ""].join("\n");
}
