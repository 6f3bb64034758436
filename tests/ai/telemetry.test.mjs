// Spans as a collector gets them: a receiver of OTLP over HTTP here, read with OpenTelemetry's own classes (read_spans.py).

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { eventually } from "../harness/programs.mjs";
import { freePort } from "../harness/server.mjs";
import { model, provider, startAi, startMock } from "./rig.mjs";

const PROMPT = [{ role: "user", content: "SECRET-PROMPT" }];
const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN = "00f067aa0ba902b7";
const parentOf = (flags) => ({ traceparent: `00-${TRACE}-${SPAN}-${flags}`, tracestate: "vendor=1" });

/** A collector: `{ url, port, requests, spans(), named(id), stop() }`. */
async function startCollector({ port = 0 } = {}) {
  const requests = [];
  const server = createServer(async (request, response) => {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    requests.push({ url: request.url, method: request.method, headers: request.headers, body: Buffer.concat(pieces) });
    response.writeHead(200, { "content-type": "application/x-protobuf" }).end();
  });
  await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
  let [known, seen] = [[], 0];
  const spans = async () => {
    const fresh = requests.slice(seen);
    seen += fresh.length;
    if (fresh.length > 0) known = known.concat((await read(fresh.map((request) => request.body))).flatMap(flat));
    return known;
  };
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    port: server.address().port,
    requests,
    spans,
    /** The spans of a request, its own first, then its attempts in order. */
    async of(id, count) {
      let found = [];
      await eventually(`${count} spans of ${id}`, async () => {
        const all = await spans();
        const own = all.find((span) => span.attributes["bowline.request.id"] === id);
        found = own ? [own, ...all.filter((span) => span.traceId === own.traceId && span.parentSpanId === own.spanId)] : [];
        return found.length >= count;
      });
      assert.equal(found.length, count, id);
      return found.sort((a, b) => a.attributes["bowline.attempt.number"] - b.attributes["bowline.attempt.number"] || 0);
    },
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Exports as JSON. */
function read(bodies) {
  const python = fileURLToPath(new URL("../.venv/bin/python", import.meta.url));
  const script = fileURLToPath(new URL("read_spans.py", import.meta.url));
  return new Promise((resolve, reject) => {
    const child = execFile(python, [script], { timeout: 30_000, maxBuffer: 1 << 26 }, (error, stdout) => {
      if (error) reject(error);
      else resolve(stdout.split("\n").filter(Boolean).map((line) => JSON.parse(line)));
    });
    child.stdin.end(bodies.map((body) => `${body.toString("base64")}\n`).join(""));
  });
}

const hex = (base64) => Buffer.from(base64 ?? "", "base64").toString("hex");
const values = (pairs = []) => Object.fromEntries(pairs.map(({ key, value }) => [key, plain(value)]));

function plain(value) {
  const [[kind, what]] = Object.entries(value);
  if (kind === "intValue") return Number(what);
  if (kind === "arrayValue") return (what.values ?? []).map(plain);
  return what;
}

/** The spans of an export, with the resource that each is of. */
function flat(exported) {
  return exported.resourceSpans.flatMap(({ resource, scopeSpans }) =>
    scopeSpans.flatMap(({ scope, spans }) =>
      spans.map((span) => ({
        ...span,
        traceId: hex(span.traceId),
        spanId: hex(span.spanId),
        parentSpanId: hex(span.parentSpanId),
        attributes: values(span.attributes),
        resource: values(resource.attributes),
        scope: scope.name,
        ms: Number(BigInt(span.endTimeUnixNano) - BigInt(span.startTimeUnixNano)) / 1e6,
      })),
    ),
  );
}

/** A provider that remembers what it was sent: `{ url, headers, stop() }`. */
async function startProvider() {
  const headers = [];
  const server = createServer(async (request, response) => {
    for await (const _ of request);
    headers.push(request.headers);
    const choices = [{ index: 0, message: { role: "assistant", content: "SECRET-ANSWER" }, finish_reason: "length" }];
    const usage = { prompt_tokens: 11, completion_tokens: 5, total_tokens: 16, prompt_tokens_details: { cached_tokens: 3 }, completion_tokens_details: { reasoning_tokens: 2 } };
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ id: "chatcmpl-7", object: "chat.completion", created: 1, model: "plain-2026-11", choices, usage }));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    port: server.address().port,
    headers,
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

let mock, own, collector, gateway;

before(async () => {
  [mock, own, collector] = await Promise.all([startMock(), startProvider(), startCollector()]);
  gateway = await startAi({
    log: "info",
    files: { "otlp-headers": "Authorization: Basic SECRET-HEADER\nx-tenant: shop\n" },
    toml: [
      `[telemetry]\notlp-endpoint = "${collector.url}/otlp/"\notlp-headers-file = "otlp-headers"\nservice-name = "shop-gateway"`,
      provider("one", mock),
      provider("two", mock, { kind: "anthropic" }),
      provider("own", own),
      model("chat", ["own/plain"]),
      model("falls", ["one/mock:503", "two/good"]),
      model("cut", ["one/mock:cut"]),
      model("filter", ["one/mock:filter"]),
    ].join("\n"),
  });
});

after(async () => {
  await gateway?.stop();
  await Promise.all([mock?.stop(), own?.stop(), collector?.stop()]);
});

/** One request of a client: its answer, and the id that its record and its trace are found by. */
async function ask(name, { stream = false, headers = {}, to = gateway } = {}) {
  const answer = await to.post("/v1/chat/completions", { model: name, messages: PROMPT, stream }, headers);
  return { status: answer.status, headers: answer.headers, text: answer.text, id: answer.headers["x-request-id"] };
}

test("a request is one span and each of its attempts one below it", async () => {
  const plain = await ask("chat");
  const falls = await ask("falls", { stream: true });
  assert.deepEqual([plain.status, falls.status], [200, 200]);

  const [request, attempt] = await collector.of(plain.id, 2);
  assert.equal(request.traceId, plain.id.slice("req_".length), "the id of a request is that of its trace");
  assert.equal(request.parentSpanId, "");
  assert.deepEqual([request.name, request.kind, request.scope], ["chat chat", "SPAN_KIND_SERVER", "bowline.ai"]);
  const { "service.name": service, "service.version": version, "service.instance.id": instance } = request.resource;
  assert.equal(service, "shop-gateway");
  assert.match(version, /^\d+\.\d+\.\d+/);
  assert.match(instance, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  const { attributes } = request;
  assert.equal(attributes["gen_ai.operation.name"], "chat");
  assert.equal(attributes["gen_ai.request.model"], "chat");
  assert.equal(attributes["gen_ai.request.stream"], false);
  assert.equal(attributes["http.response.status_code"], 200);
  assert.equal(attributes["bowline.served_by"], "own/plain");
  for (const name of ["gen_ai.provider.name", "gen_ai.usage.input_tokens", "error.type"]) assert.equal(attributes[name], undefined, name);

  assert.deepEqual([attempt.name, attempt.kind, attempt.status], ["chat plain", "SPAN_KIND_CLIENT", undefined]);
  const expected = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "plain",
    "gen_ai.response.model": "plain-2026-11",
    "gen_ai.response.id": "chatcmpl-7",
    "gen_ai.response.finish_reasons": ["length"],
    "gen_ai.usage.input_tokens": 11,
    "gen_ai.usage.output_tokens": 5,
    "gen_ai.usage.cache_read.input_tokens": 3,
    "gen_ai.usage.reasoning.output_tokens": 2,
    "server.address": "127.0.0.1",
    "server.port": own.port,
    "http.response.status_code": 200,
    "bowline.provider": "own",
    "bowline.attempt.number": 1,
    "bowline.attempt.reason": "first",
    "bowline.outcome": "ok",
  };
  for (const [name, value] of Object.entries(expected)) assert.deepEqual(attempt.attributes[name], value, name);

  // 503, asked once more, then the next one: each with its own time, which is the record's.
  const [whole, first, again, served] = await collector.of(falls.id, 4);
  const outcomes = [first, again, served].map((span) => span.attributes["error.type"]);
  assert.deepEqual(outcomes, ["overloaded", "overloaded", undefined]);
  assert.deepEqual([first.status, served.status], [{ code: "STATUS_CODE_ERROR", message: "overloaded" }, undefined]);
  assert.equal(served.attributes["gen_ai.provider.name"], "anthropic");
  assert.ok(served.attributes["gen_ai.response.time_to_first_chunk"] > 0);
  assert.equal(served.attributes["gen_ai.usage.input_tokens"] > 0, true);
  assert.deepEqual([whole.attributes["bowline.fell_back"], whole.attributes["bowline.attempts"]], [true, 3]);
  const record = await gateway.record(falls.id);
  for (const [at, span] of [first, again, served].entries()) {
    assert.ok(Math.abs(span.ms - record.attempts[at].took_ms) < 0.01, `attempt ${at}: ${span.ms} and ${record.attempts[at].took_ms} ms`);
    assert.ok(BigInt(span.startTimeUnixNano) >= BigInt(whole.startTimeUnixNano) && BigInt(span.endTimeUnixNano) <= BigInt(whole.endTimeUnixNano));
  }
  assert.ok(Math.abs(whole.ms - record.took_ms) < 0.01);
});

test("what goes wrong is told, and whose error it is", async () => {
  const cut = await ask("cut", { stream: true });
  const refused = await ask("filter");
  const unknown = await ask("nobody");
  const [stream, attempt] = await collector.of(cut.id, 2);
  assert.deepEqual(stream.status, { code: "STATUS_CODE_ERROR", message: "truncated" });
  assert.equal(stream.attributes["http.response.status_code"], 200);
  assert.equal(attempt.attributes["error.type"], "truncated");
  const [request, failed] = await collector.of(refused.id, 2);
  assert.deepEqual([request.status, request.attributes["error.type"]], [undefined, "refused"]);
  assert.equal(failed.status.code, "STATUS_CODE_ERROR");
  const [nobody] = await collector.of(unknown.id, 1);
  assert.deepEqual([nobody.name, nobody.attributes["http.response.status_code"]], ["chat nobody", 404]);
});

test("a client's span is the parent, and one that cannot be read begins a trace", async () => {
  const within = await ask("chat", { headers: parentOf("01") });
  const alone = await ask("chat", { headers: { traceparent: `00-${"0".repeat(32)}-${SPAN}-01`, tracestate: "vendor=1" } });
  const [request, attempt] = await collector.of(within.id, 2);
  assert.deepEqual([request.traceId, request.parentSpanId, request.traceState], [TRACE, SPAN, "vendor=1"]);
  assert.deepEqual([attempt.traceId, attempt.parentSpanId], [TRACE, request.spanId]);
  assert.equal(request.flags, 0x301);
  const [begun] = await collector.of(alone.id, 2);
  assert.deepEqual([begun.traceId, begun.parentSpanId, begun.traceState], [alone.id.slice("req_".length), "", undefined]);
});

test("neither prompts nor answers nor secrets are in a span, and the collector's headers in nothing that is shown", async () => {
  const [first] = collector.requests;
  assert.deepEqual([first.method, first.url], ["POST", "/otlp/v1/traces"]);
  assert.equal(first.headers["content-type"], "application/x-protobuf");
  assert.deepEqual([first.headers.authorization, first.headers["x-tenant"]], ["Basic SECRET-HEADER", "shop"]);
  const sent = Buffer.concat(collector.requests.map((request) => request.body)).toString("latin1");
  assert.doesNotMatch(sent, /SECRET/);
  assert.doesNotMatch(sent, /token0/, "what the mock answers");
  const shown = gateway.said() + (await gateway.page()) + (await gateway.api("/api/v1/status")).text;
  assert.doesNotMatch(shown, /SECRET/);
});

test("a provider is told the trace only if that is configured, and a reload does it", async () => {
  const before = own.headers.length;
  await ask("chat", { headers: parentOf("01") });
  const [untold] = own.headers.slice(before);
  assert.deepEqual([untold.traceparent, untold.tracestate], [undefined, undefined]);

  await reload((text) => text.replace('service-name = "shop-gateway"', 'service-name = "shop-gateway"\npropagate = true'), "telemetry.propagate");
  const { id } = await ask("chat", { headers: parentOf("01") });
  const told = own.headers.at(-1);
  const [, attempt] = await collector.of(id, 2);
  assert.deepEqual([told.traceparent, told.tracestate], [`00-${TRACE}-${attempt.spanId}-01`, "vendor=1"]);
  const alone = await ask("chat");
  assert.match(own.headers.at(-1).traceparent, new RegExp(`^00-${alone.id.slice(4)}-[0-9a-f]{16}-01$`));
});

test("a client that keeps its trace has it kept, and one that does not has not", async () => {
  await reload((text) => text.replace("propagate = true", 'propagate = true\nsample = "0%"'), "telemetry.sample");
  const unkept = [await ask("chat"), await ask("chat", { headers: parentOf("00") })];
  assert.equal(own.headers.at(-1).traceparent.slice(-2), "00");
  const kept = await ask("chat", { headers: parentOf("01") });
  await collector.of(kept.id, 2);
  const ids = (await collector.spans()).map((span) => span.attributes["bowline.request.id"]);
  for (const { id } of unkept) assert.ok(!ids.includes(id));
});

test("headers that cannot be read refuse a reload, and a mistake is told with its line", async () => {
  const text = readFileSync(gateway.config, "utf8");
  writeFileSync(gateway.config, text.replace('"otlp-headers"', '"nowhere"'));
  const refused = await gateway.control("/api/v1/reload", { method: "POST", body: {} });
  assert.ok(refused.status >= 400 && /telemetry.*otlp-headers-file.*nowhere/s.test(refused.text), refused.text);
  writeFileSync(gateway.config, text.replace("sample =", "sampel ="));
  const wrong = await gateway.control("/api/v1/reload", { method: "POST", body: {} });
  assert.match(wrong.text, /telemetry.sampel.*did you mean `sample`/s);
  writeFileSync(gateway.config, text);
});

test("a collector that is down costs nobody anything, and gets what waits when it is there", async (t) => {
  const port = await freePort();
  const toml = [`[telemetry]\notlp-endpoint = "http://127.0.0.1:${port}"`, provider("own", own), model("chat", ["own/plain"])];
  const lonely = await startAi({ log: "info", toml: toml.join("\n") });
  t.after(() => lonely.stop());
  const answers = await Promise.all(Array.from({ length: 40 }, () => ask("chat", { to: lonely })));
  assert.deepEqual([...new Set(answers.map((answer) => answer.status))], [200]);
  await eventually("an export to fail", async () => (await lonely.metric("bowline_telemetry_exports_total", 'outcome="failed"')) > 0);
  assert.equal((await ask("chat", { to: lonely })).status, 200);
  assert.equal(lonely.said().split("spans are not exported").length, 2, "it is told once");
  const late = await startCollector({ port });
  t.after(() => late.stop());
  await eventually("what waited to arrive", async () => (await lonely.metric("bowline_telemetry_spans_total", 'outcome="exported"')) >= 82);
  assert.equal((await late.spans()).length, 82);
  assert.equal(await lonely.metric("bowline_telemetry_spans_total", 'outcome="dropped"'), 0);
  assert.match(lonely.said(), /spans are exported again/);
});

test("the variables of OpenTelemetry count where the file says nothing, and a stop sends what waits", async (t) => {
  const fresh = await startCollector();
  t.after(() => fresh.stop());
  const said = { OTEL_EXPORTER_OTLP_ENDPOINT: fresh.url, OTEL_EXPORTER_OTLP_HEADERS: "x-key=a%20b", OTEL_SERVICE_NAME: "of-the-environment" };
  Object.assign(process.env, said);
  t.after(() => Object.keys(said).forEach((name) => delete process.env[name]));
  const short = await startAi({ toml: [provider("own", own), model("chat", ["own/plain"])].join("\n") });
  assert.equal((await ask("chat", { to: short })).status, 200);
  assert.equal(fresh.requests.length, 0);
  await short.stop();
  const spans = await fresh.spans();
  assert.deepEqual([spans.length, spans[0].resource["service.name"]], [2, "of-the-environment"]);
  assert.equal(fresh.requests[0].headers["x-key"], "a b");
});

/** Changes the file, and has it read. */
async function reload(change, applied) {
  const text = readFileSync(gateway.config, "utf8");
  assert.notEqual(change(text), text);
  writeFileSync(gateway.config, change(text));
  const answer = await gateway.control("/api/v1/reload", { method: "POST", body: {} });
  assert.equal(answer.status, 200, answer.text);
  assert.ok(answer.json.applied.includes(applied), answer.text);
}
