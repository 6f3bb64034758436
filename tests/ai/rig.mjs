// A gateway before mock providers (`crates/bowline-ai/examples/mock_provider`), and what both of them count.

import { createInterface } from "node:readline";
import { spawn } from "node:child_process";
import { once } from "node:events";

import { ask, metric, startGateway } from "../operations/gateway.mjs";
import { eventually } from "../harness/programs.mjs";

/** Starts a mock provider on a free port: `{ port, url, stats(), reset(), stop() }`. */
export async function startMock() {
  const binary = process.env.MOCK_PROVIDER_BIN;
  if (!binary) throw new Error("set MOCK_PROVIDER_BIN (for instance to target/debug/examples/mock_provider)");
  const child = spawn(binary, ["--listen", "127.0.0.1:0"], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = await once(createInterface(child.stdout), "line");
  const url = line.replace("listening on ", "").trim();
  const where = { host: "127.0.0.1", port: Number(new URL(url).port) };
  return {
    ...where,
    url,
    stats: async () => (await ask(where, "/stats")).json,
    reset: () => ask(where, "/reset", { method: "POST" }),
    async stop() {
      child.kill();
      await once(child, "exit");
    },
  };
}

/** A provider's table. Connections are kept for so short that those which nobody uses are closed within a test. */
export function provider(name, mock, { kind = "openai", more = "" } = {}) {
  const base = kind === "openai" ? `${mock.url}/v1` : mock.url;
  return `[ai.providers.${name}]\nkind = "${kind}"\nbase-url = "${base}"\npool.idle = "500ms"\n${more}\n`;
}

/** A model's table. */
export function model(name, chain, more = "") {
  return `[ai.models."${name}"]\ntry = ${JSON.stringify(chain)}\n${more}\n`;
}

/** Starts a gateway: `{ base, models…, permits(), attempts(), record(id) }` beside what `startGateway` gives. */
export async function startAi({ toml, files = {}, log = "warn" }) {
  const gateway = await startGateway({ toml: `[log]\nlevel = "${log}"\n${toml}`, files });
  const page = async () => (await gateway.api("/metrics")).text;
  return {
    ...gateway,
    base: `http://127.0.0.1:${gateway.port}/v1`,
    page,
    /** One request, as bytes: `{ status, headers, text, json }`. */
    post: (path, body, headers = {}) => ask({ host: "127.0.0.1", port: gateway.port }, path, { method: "POST", body, headers, timeout: 30_000 }),
    get: (path, headers = {}) => ask({ host: "127.0.0.1", port: gateway.port }, path, { headers }),
    /** A request that is over. */
    record: async (id) => {
      const answer = await gateway.api(`/api/v1/ai/requests/${id}`);
      return answer.status === 200 ? answer.json : undefined;
    },
    /** The requests that are over, the latest first. */
    records: async () => (await gateway.api("/api/v1/ai/requests?limit=2000")).json.requests,
    /** Permits of all scopes that are held or waited for. */
    async permits() {
      const { permits, providers } = (await gateway.api("/api/v1/ai/providers")).json;
      const all = [...permits, ...providers.flatMap((one) => one.permits ?? [])];
      return all.reduce((sum, one) => sum + one.held + one.queued, 0);
    },
    /** Attempts that were counted, of all providers. */
    attempts: async () => sum(await page(), "bowline_ai_attempts_total"),
    metric: async (name, label) => metric(await page(), name, label),
  };
}

/** The sum of all series of a metric. */
export function sum(page, name) {
  const lines = page.split("\n").filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

/** Waits until nobody holds anything any more, and says what the mock has seen. */
export async function settled(gateway, mock) {
  await eventually("all permits to be given back", async () => (await gateway.permits()) === 0);
  await eventually("all answers to end", async () => {
    const { answering, open_streams, open_connections } = await mock.stats();
    return answering === 0 && open_streams === 0 && open_connections <= 1;
  });
  return mock.stats();
}

export const HELLO = [{ role: "user", content: "hello" }];
