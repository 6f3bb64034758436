import assert from "node:assert/strict";
import { test } from "node:test";

import { at, median, ratios, spread, table } from "./figures.mjs";

test("the median is the middle one, or between the two in the middle", () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  assert.equal(median([7]), 7);
  assert.equal(median([100, 9, 20]), 20, "figures are compared as numbers");
});

test("ratios are between figures of the same round", () => {
  const bowline = new Map([[1, 12], [2, 30], [4, 8]]);
  const floor = new Map([[1, 10], [2, 20], [3, 10]]);
  assert.deepEqual(ratios(bowline, floor), [1.2, 1.5]);
  assert.deepEqual(ratios(new Map(), floor), []);
});

test("a spread has the median, the least and the greatest", () => {
  assert.equal(spread([1.234, 3, 2]), "2.00 (1.23–3.00)");
  assert.equal(spread([12_345.6], 0), "12,346");
  assert.equal(spread([]), "–");
});

test("a figure is found by its path, or not", () => {
  assert.equal(at({ server: { join_us: 5 } }, "server.join_us"), 5);
  assert.equal(at({}, "server.join_us"), undefined);
});

test("the columns of a table stand under each other", () => {
  assert.equal(table(["a", "bb"], [["long", "µ"]]), "| a    | bb |\n|------|----|\n| long | µ  |");
  assert.equal(table(["a"], []), "");
});
