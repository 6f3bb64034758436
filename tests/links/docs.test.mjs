// docs/links.md against what is so: the tests it names exist, its states, levels and alerts are all there are, its
// configurations are right, and its commands are there.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { bowline } from "../operations/services.mjs";

const file = (path) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
const DOCUMENT = file("docs/links.md");
const KEEPER = "crates/bowline-proto/src/keeper";
const WALL = file(`${KEEPER}/wall.rs`);

/** The words of an enum of the wall, in its order. */
const words = (name) => [...WALL.slice(WALL.indexOf(`impl ${name} {`)).split("\n}\n")[0].matchAll(/Self::\w+ => "([a-z-]+)"/g)].map(([, word]) => word);

test("every test that the document names exists", () => {
  const here = readdirSync(new URL(".", import.meta.url));
  const table = DOCUMENT.slice(DOCUMENT.indexOf("| what fails | noticed")).split("\n\n")[0];
  const named = [...table.matchAll(/`([a-z-]+)(?:: ([^`]+))?` \|$/gm)].map(([, suite, name]) => ({ suite, name }));
  assert.ok(named.length >= 14, `${named.length} are named`);
  const exists = ({ suite, name }) => {
    if (here.includes(`${suite}.test.mjs`)) return name === undefined || file(`tests/links/${suite}.test.mjs`).includes(`test("${name}"`);
    return name !== undefined && file(`${KEEPER}/tests/${suite}.rs`).includes(`fn ${name}(`);
  };
  assert.deepEqual(named.filter((one) => !exists(one)), []);
});

test("the document has all states, levels and alerts", () => {
  const rows = (from) => [...DOCUMENT.slice(DOCUMENT.indexOf(from)).split("\n\n")[0].matchAll(/^\| `([a-z-]+)` \|/gm)].map(([, word]) => word);
  assert.deepEqual(rows("| state | what is so"), words("State"));
  assert.deepEqual(rows("| level | proved by"), words("Level"));
  const rules = [...file("crates/bowline/src/alerts/rules.toml").matchAll(/^\[rules\.(Bowline(?:Link|Store)\w+)\]/gm)].map(([, name]) => name);
  const table = DOCUMENT.slice(DOCUMENT.indexOf("| alert | fires when")).split("\n\n")[0];
  assert.deepEqual([...table.matchAll(/`(Bowline\w+)`/g)].map(([, name]) => name).sort(), rules.sort());
});

test("the configurations of the document are right, and its keys", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "bowline-docs-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  writeFileSync(join(directory, "token"), "hush\n", { mode: 0o600 });
  const blocks = [...DOCUMENT.matchAll(/^```toml\n([^]*?)^```$/gm)].map(([, text]) => text);
  assert.ok(blocks.length >= 2, `${blocks.length} blocks`);
  for (const [i, text] of blocks.entries()) {
    const config = join(directory, `${i}.toml`);
    writeFileSync(config, text.replace("/etc/bowline/barnacles.token", join(directory, "token")));
    const { code, out, err } = await bowline(["config", "check", "--config", config]);
    assert.equal(code, 0, `${text}\n${out}${err}`);
  }
  // Keys of a link and of all links, each as `bowline config explain` knows it.
  for (const key of ["links.listen", "links.attempts-per-second", "probe-interval", "idle-after", "open-timeout", "max-age", "offers-max", "confirm-timeout", "restart-after", "reused-head-timeout", "intercept", "ca-file"]) {
    assert.ok(DOCUMENT.includes(key), key);
    const { code, out, err } = await bowline(["config", "explain", key.startsWith("links.") ? key : `links.*.${key === "reused-head-timeout" ? `http.${key}` : key}`]);
    assert.equal(code, 0, `${key}\n${out}${err}`);
  }
});

test("every command of links stands in the document", async () => {
  const { out } = await bowline(["link", "--help"]);
  const commands = [...out.slice(out.indexOf("Commands:")).matchAll(/^  ([a-z]+) /gm)].map(([, name]) => name);
  const known = commands.filter((name) => name !== "help");
  assert.deepEqual(known, [...DOCUMENT.matchAll(/^\| `bowline link ([a-z]+)/gm)].map(([, name]) => name));
});
