// The AI gateways that are measured: how each is started before the mock provider, and what makes it what it is.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { bowlineBinary, folder, root } from "../servers.mjs";

const here = dirname(fileURLToPath(import.meta.url));

/** A program of a peer that `cargo xtask bench ai` has installed into a folder of its own. */
const peer = (name) => join(folder, "ai", name, "bin", name);
const version = (name) => new RegExp(`^${name}(?:\\[.+\\])?==(.+)$`, "m").exec(readFileSync(join(here, `${name}.txt`), "utf8"))[1];

/** The provider: `crates/bowline-ai/examples/mock_provider`. */
export const mockProvider = join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "release/examples/mock_provider");

/** What clients ask for everywhere; the mock answers it at once. */
export const MODEL = "chat";

const haproxy = "/usr/sbin/haproxy";

/**
 * `speed` makes slow ones answer fewer requests. `command` gets `port`, the `provider`'s URL, a `folder` of its own
 * and `config`, the path at which `text` stands.
 */
export const GATEWAYS = {
  haproxy: {
    name: `HAProxy ${haproxyVersion()}, passes bytes on and reads nothing (the floor)`,
    needs: [haproxy],
    command: ({ config }) => [haproxy, "-db", "-f", config],
    text: ({ port, provider }) => `
global
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen models
  bind 127.0.0.1:${port}
  server mock ${new URL(provider).host}
`,
  },
  bowline: {
    name: "Bowline",
    needs: [bowlineBinary],
    command: ({ port, folder, config }) => [
      bowlineBinary, "serve", "--listen", `127.0.0.1:${port}`, "--admin-listen", "127.0.0.1:0", "--state-dir", folder, "--config", config,
    ],
    text: ({ provider }) => `
[ai.providers.mock]
kind = "openai"
base-url = "${provider}/v1"

[ai.models.${MODEL}]
try = ["mock/ok"]
`,
  },
  "vllm-router": {
    name: `vllm-router ${version("vllm-router")} (Rust)`,
    needs: [peer("vllm-router")],
    command: ({ port, provider, metricsPort }) => [
      peer("vllm-router"), "--host", "127.0.0.1", "--port", String(port), "--worker-urls", provider,
      "--prometheus-port", String(metricsPort), "--log-level", "error",
    ],
  },
  rolter: {
    name: `rolter ${version("rolter")} (Rust)`,
    needs: [peer("rolter")],
    // It holds back what it streams: 44 ms for each answer.
    speed: 0.1,
    env: { RUST_LOG: "error" },
    command: ({ config }) => [peer("rolter"), "gateway", "-c", config],
    text: ({ port, provider }) => `
[server]
host = "127.0.0.1"
port = ${port}

[[providers.readonly]]
name = "mock"
kind = "openai_compatible"
api_base = "${provider}"

[[routes]]
model = "${MODEL}"
strategy = "round_robin"
[[routes.targets]]
provider = "mock"
model = "ok"
`,
  },
  litellm: {
    name: `LiteLLM ${version("litellm")} (Python, one worker)`,
    needs: [peer("litellm")],
    speed: 0.05,
    // Without a key it does not start; nobody else is asked for one here either.
    env: { LITELLM_LOG: "ERROR", LITELLM_LOCAL_MODEL_COST_MAP: "True", LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY: "true" },
    command: ({ port, config }) => [
      peer("litellm"), "--config", config, "--host", "127.0.0.1", "--port", String(port), "--num_workers", "1",
    ],
    text: ({ provider }) => `
model_list:
  - model_name: ${MODEL}
    litellm_params:
      model: openai/ok
      api_base: ${provider}/v1
      api_key: sk-mock
litellm_settings:
  telemetry: false
`,
  },
};

function haproxyVersion() {
  return existsSync(haproxy) ? /version (\d+\.\d+\.\d+)/.exec(execFileSync(haproxy, ["-v"], { encoding: "utf8" }))[1] : "";
}

/** All that the figures depend on. A venv has too much to be read: its list of packages stands for it. */
export const measuredFiles = [
  bowlineBinary,
  ...["vllm-router", "rolter", "litellm"].map((id) => join(here, `${id}.txt`)),
  join(here, "gateways.mjs"),
  join(here, "workloads.mjs"),
];
