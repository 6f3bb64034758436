// The official JavaScript clients, in two major versions and over every transport, against
// `bowline serve` (or, with TARGET=reference, against the reference server).
//
//   npm run clients            ONLY=4/polling or ONLY="echo binary" narrows it
import { after, before, describe, it } from "node:test";

import { CASES, Cell } from "./cases.mjs";
import { startTarget, targetName } from "./target.mjs";

const CLIENTS = { 4: "socket.io-client 4.8.4", 2: "socket.io-client 2.5.0 (EIO 3)" };
const TRANSPORTS = ["polling", "websocket", "upgrade", "deflate"];
const SETTINGS = { "ping-interval": "300ms", "ping-timeout": "20s" };
// Milliseconds one case may take, several waits included.
const CASE_DEADLINE = 240_000;

const only = process.env.ONLY;
const results = new Map(); // case -> cell -> "ok" | "FAILED"

for (const version of Object.keys(CLIENTS)) {
  for (const transport of TRANSPORTS) {
    const column = `${version}/${transport}`;
    const chosen = Object.entries(CASES).filter(([name]) => !only || only === column || only === name);
    if (chosen.length === 0) continue;
    describe(`${CLIENTS[version]}, ${transport}`, () => {
      let cell;
      before(async () => {
        const target = await startTarget({ engine: { ...SETTINGS, compression: transport === "deflate" } });
        cell = new Cell(target, Number(version), transport);
      });
      after(() => cell.target.stop());
      for (const [name, run] of chosen) {
        it(name, { timeout: CASE_DEADLINE }, async () => {
          note(name, column, "FAILED");
          try {
            await run(cell);
            note(name, column, "ok");
          } finally {
            cell.closeAll();
          }
        });
      }
    });
  }
}

after(() => {
  const columns = [...new Set([...results.values()].flatMap((row) => [...row.keys()]))];
  const width = Math.max(...[...results.keys()].map((name) => name.length));
  const line = (name, cells) => `${name.padEnd(width)}  ${cells.map((text) => text.padEnd(11)).join("  ")}`.trimEnd();
  const all = [...results.values()].flatMap((row) => [...row.values()]);
  const passed = all.filter((result) => result === "ok").length;
  console.log(
    [
      `\nJavaScript clients against ${targetName}`,
      line("", columns),
      ...[...results].map(([name, row]) => line(name, columns.map((column) => row.get(column) ?? "-"))),
      `client matrix: ${passed} ok, ${all.length - passed} failed`,
    ].join("\n"),
  );
});

function note(name, column, result) {
  if (!results.has(name)) results.set(name, new Map());
  results.get(name).set(column, result);
}
