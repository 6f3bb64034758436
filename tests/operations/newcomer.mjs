// A newcomer's path: a clean clone, and then README's quick start to the letter, command by command, in a real browser. Prints the minutes.
//
//   node operations/newcomer.mjs [--committed] [--binary FILE]
//
// Without `--committed` the clone has what the work tree has. With `--binary` nothing is built, for a quick look. It uses the ports that the README names, so nothing else may.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { startBrowser } from "../harness/browser.mjs";
import { eventually } from "../harness/programs.mjs";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const BUILD_MS = 45 * 60_000;
const INSTALL_MS = 5 * 60_000;

for (const port of [5050, 8000, 8001]) assert.ok(!(await open(port)), `port ${port} is in use`);

const scratch = mkdtempSync(join(tmpdir(), "bowline-newcomer-"));
const clone = join(scratch, "bowline");
// A target directory or an admin address of ours is none of theirs, and no running server of ours may be found.
const env = { ...process.env, XDG_RUNTIME_DIR: join(scratch, "run"), XDG_STATE_HOME: join(scratch, "state"), BOWLINE_STATE_DIR: join(scratch, "bowline-state") };
for (const name of ["CARGO_TARGET_DIR", "BOWLINE_ADMIN_LISTEN", "BOWLINE_LISTEN", "BOWLINE_CONFIG", "CHAT_PORT", "BOWLINE_URL", "PORT"]) delete env[name];
for (const name of ["run", "state", "bowline-state"]) mkdirSync(join(scratch, name), { mode: 0o700 });

const binary = process.argv.includes("--binary") ? process.argv[process.argv.indexOf("--binary") + 1] : undefined;
const running = [];
let browser;
try {
  takeClone();
  const commands = quickStart();
  console.log(`README's quick start has ${commands.length} commands`);
  assert.ok(commands.length <= 5, "more than five commands");
  const began = Date.now();
  const minutes = () => ((Date.now() - began) / 60_000).toFixed(1);

  let tab;
  for (const command of commands) {
    if (command.startsWith("cargo build ") && binary) {
      mkdirSync(join(clone, "target/release"), { recursive: true });
      cpSync(binary, join(clone, "target/release/bowline"));
    } else if (command.startsWith("xdg-open ")) {
      browser = await startBrowser();
      tab = await browser.tab(command.split(" ")[1]);
      const other = await browser.tab(command.split(" ")[1]);
      for (const [page, name] of [[tab, "Ada"], [other, "Bob"]]) {
        await page.fill("#name", name);
        await page.click("#join button");
        await page.waitForSelector("#people li");
      }
      await other.fill("#text", "Hello");
      await other.press("#text", "Enter");
      await tab.getByText("Hello", { exact: true }).waitFor();
      console.log(`a message in the browser after ${minutes()} minutes`);
    } else if (/\/run$| serve /.test(command)) {
      await start(command, command.endsWith("/run") ? 5050 : 8000);
    } else {
      execFileSync("sh", ["-c", command], { cwd: clone, env, stdio: ["ignore", "inherit", "pipe"], timeout: BUILD_MS });
    }
    console.log(`${minutes()} minutes: ${command}`);
  }
  await tab.locator(".notice").getByText("Lunch is ready").waitFor();
  await browser.picture(tab, "newcomer");
  assert.deepEqual(browser.complaints, []);
  console.log(`1 passed: README's quick start, ${minutes()} minutes`);
} finally {
  await browser?.stop();
  for (const { child, exited } of running.reverse()) {
    child.kill("SIGTERM");
    await exited;
  }
  rmSync(scratch, { recursive: true, force: true });
}

function takeClone() {
  if (process.argv.includes("--committed")) {
    execFileSync("git", ["clone", "--quiet", ROOT, clone]);
    return;
  }
  const files = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], { cwd: ROOT, maxBuffer: 1 << 26 });
  for (const file of files.toString().split("\0").filter(Boolean)) {
    mkdirSync(dirname(join(clone, file)), { recursive: true });
    // What was removed and not committed is still listed.
    try {
      cpSync(join(ROOT, file), join(clone, file));
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
    }
  }
}

/** The commands of the first `sh` block behind the heading, without their comments. */
function quickStart() {
  const [, block] = readFileSync(join(clone, "README.md"), "utf8").match(/## Quick start[^]*?```sh\n([^]*?)```/);
  return block.split("\n").map((line) => line.replace(/\s+# .*/, "").trim()).filter(Boolean);
}

async function start(command, port) {
  const child = spawn("sh", ["-c", `exec ${command}`], { cwd: clone, env, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (said = (said + chunk).slice(-4000)));
  const exited = new Promise((resolve) => child.once("exit", resolve));
  running.push({ child, exited });
  let ended = false;
  exited.then(() => (ended = true));
  await eventually(`${command}: port ${port}`, async () => ended || open(port), INSTALL_MS);
  assert.ok(!ended, `${command} ended:\n${said}`);
}

function open(port) {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => (socket.destroy(), resolve(true)));
    socket.once("error", () => resolve(false));
  });
}
