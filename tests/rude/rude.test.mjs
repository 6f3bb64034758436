// A rude client after the other, each with a server of its own. What it gets is what docs/limits.md says; others are served,
// memory is back, and the log has one line about it.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";

import { eventually } from "../harness/programs.mjs";
import { CLIENTS } from "./clients.mjs";
import { DOCUMENT, table } from "./table.mjs";
import { startWorld } from "./world.mjs";

describe("rude clients", { concurrency: 4 }, () => {
  for (const client of CLIENTS) {
    test(client.name, { timeout: 300_000 }, async (t) => {
      const world = await startWorld(t, { toml: client.toml });
      await client.run(world);
      await world.isWell();
      await eventually("the line", () => client.line.every((line) => world.lines().includes(line)));
      const lines = world.lines().filter((line) => !client.also?.includes(line));
      assert.deepEqual(lines.toSorted(), client.line.toSorted(), "one line for each reason, please");
    });
  }
});

test("docs/limits.md has the table of these clients", () => {
  assert.ok(readFileSync(DOCUMENT, "utf8").includes(table()), "run `node rude/table.mjs`");
});
