// A real Chromium without a window. Tabs are of one profile, as those of a person are; each test has an empty one.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { chromium } from "playwright-core";

import { program } from "./programs.mjs";

/** It is to ask nobody but the pages' servers. */
const QUIET = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/**
 * Starts one. `tab(url)` opens a page there, with playwright's methods; what a page complains of is in `complaints`.
 * `picture(tab, name)` leaves a PNG in the directory that `BROWSER_PICTURES` names, if it names one.
 */
export async function startBrowser() {
  const profile = mkdtempSync(join(tmpdir(), "bowline-browser-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: program("chromium"),
    headless: true,
    args: QUIET,
    viewport: { width: 1120, height: 720 },
  });
  const complaints = [];
  return {
    complaints,
    async tab(url) {
      const page = await context.newPage();
      page.on("pageerror", (error) => complaints.push(String(error)));
      page.on("console", (message) => message.type() === "error" && complaints.push(`${message.text()} ${message.location().url}`));
      await page.goto(url);
      return page;
    },
    async picture(tab, name) {
      const directory = process.env.BROWSER_PICTURES;
      if (directory) await tab.screenshot({ path: join(directory, `${name}.png`) });
    },
    async stop() {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}
