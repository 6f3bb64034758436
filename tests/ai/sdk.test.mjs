// The official SDKs, unmodified: OpenAI's and Anthropic's for JavaScript here, those for Python in tour.py.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

import { HELLO, model, provider, settled, startAi, startMock } from "./rig.mjs";

let mock, gateway, openai, anthropic;

before(async () => {
  mock = await startMock();
  gateway = await startAi({
    toml: [
      provider("one", mock),
      provider("two", mock, { kind: "anthropic" }),
      model("chat", ["one/good"]),
      model("claude", ["two/good"]),
      model("vendor/tools", ["one/mock:tools"]),
      model("claude-tools", ["two/mock:tools"]),
      model("thinks", ["one/mock:reasoning"]),
      model("falls", ["one/mock:503", "two/good"]),
      model("dead", ["one/mock:500"]),
      model("long", ["one/mock:too-long"]),
      model("cut", ["one/mock:cut"]),
      model("claude-cut", ["two/mock:cut"]),
      model("slow", ["one/mock:drip-100"]),
    ].join("\n"),
  });
  openai = new OpenAI({ baseURL: gateway.base, apiKey: "none" });
  anthropic = new Anthropic({ baseURL: gateway.url, apiKey: "none" });
});

after(async () => {
  await gateway?.stop();
  await mock?.stop();
});

const ask = (name, more = {}) => openai.chat.completions.create({ model: name, messages: HELLO, ...more });
const askClaude = (name, more = {}) => anthropic.messages.create({ model: name, max_tokens: 100, messages: HELLO, ...more });

async function all(stream) {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return pieces;
}

test("openai: a plain answer, whoever gives it", async () => {
  for (const [name, served] of [["chat", "one/good"], ["claude", "two/good"], ["falls", "two/good"]]) {
    const { data, response, request_id } = await ask(name).withResponse();
    assert.match(data.choices[0].message.content, /token0 token1/);
    assert.equal(data.choices[0].finish_reason, "stop");
    assert.equal(data.object, "chat.completion");
    assert.ok(data.usage.total_tokens > 0);
    assert.equal(response.headers.get("bowline-served-by"), served);
    assert.match(request_id, /^req_[0-9a-f]{32}$/);
  }
});

test("openai: a stream, with and without its usage", async () => {
  for (const name of ["chat", "claude", "falls"]) {
    const plain = await all(await ask(name, { stream: true }));
    assert.match(plain.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), /^token0 .*token7 $/);
    assert.ok(plain.every((chunk) => chunk.choices.length === 1 && !chunk.usage), name);
    const asked = await all(await ask(name, { stream: true, stream_options: { include_usage: true } }));
    const usage = asked.filter((chunk) => chunk.usage);
    assert.equal(usage.length, 1);
    assert.deepEqual(usage[0].choices, []);
    assert.ok(usage[0].usage.completion_tokens > 0);
  }
});

test("openai: tools are called, with indexes from 0", async () => {
  const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } }];
  for (const name of ["vendor/tools", "claude-tools"]) {
    const whole = (await ask(name, { tools })).choices[0];
    assert.equal(whole.finish_reason, "tool_calls");
    const streamed = await openai.chat.completions.stream({ model: name, messages: HELLO, tools }).finalChatCompletion();
    for (const calls of [whole.message.tool_calls, streamed.choices[0].message.tool_calls]) {
      assert.equal(calls.length, 2, name);
      for (const call of calls) assert.equal(typeof JSON.parse(call.function.arguments), "object");
    }
  }
});

test("openai: reasoning is passed on", async () => {
  const chunks = await all(await ask("thinks", { stream: true }));
  assert.ok(chunks.some((chunk) => chunk.choices[0]?.delta.reasoning_content));
});

test("openai: embeddings and models", async () => {
  const { data } = await openai.embeddings.create({ model: "chat", input: ["a", "b"] });
  assert.ok(data.length >= 1 && data[0].embedding.length > 0);
  const names = (await all(await openai.models.list())).map((one) => one.id);
  assert.ok(names.includes("chat") && names.includes("vendor/tools"), names);
  assert.equal((await openai.models.retrieve("vendor/tools")).id, "vendor/tools");
  await assert.rejects(openai.models.retrieve("nobody"), OpenAI.NotFoundError);
});

test("openai: an error is the one that the SDK knows, and it is asked once", async () => {
  const failed = async (name, more) => {
    await mock.reset();
    const error = await ask(name, more).then(all, (error) => error).catch((error) => error);
    return [error, (await mock.stats()).requests];
  };
  const [long, once] = await failed("long");
  assert.ok(long instanceof OpenAI.BadRequestError);
  assert.deepEqual([long.code, once], ["context_length_exceeded", 1]);
  const [missing, none] = await failed("nobody");
  assert.ok(missing instanceof OpenAI.NotFoundError);
  assert.deepEqual([missing.code, missing.param, none], ["model_not_found", "model", 0]);
  const [dead, tries] = await failed("dead");
  assert.ok(dead instanceof OpenAI.InternalServerError);
  assert.equal(dead.error.attempts.length, tries);
  assert.ok(tries <= 2, `${tries} attempts: the SDK has tried again what was exhausted`);
  const [cut] = await failed("cut", { stream: true });
  assert.ok(cut instanceof OpenAI.APIError, String(cut));
});

test("openai: a client that leaves ends the answer at the provider", async () => {
  await mock.reset();
  const stream = await ask("slow", { stream: true });
  for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
  const stats = await settled(gateway, mock);
  assert.equal(stats.cancelled, 1);
  const [last] = await gateway.records();
  assert.deepEqual([last.outcome, last.status, last.requested], ["cancelled", 499, "slow"]);
  assert.ok(last.attempts[0].usage.output > 0);
});

test("anthropic: plain and streamed, whoever gives it", async () => {
  for (const name of ["claude", "chat", "falls"]) {
    const whole = await askClaude(name);
    assert.equal(whole.type, "message");
    assert.match(whole.content[0].text, /token0 token1/);
    assert.equal(whole.stop_reason, "end_turn");
    assert.ok(whole.usage.output_tokens > 0);
    const stream = anthropic.messages.stream({ model: name, max_tokens: 100, messages: HELLO });
    const streamed = await stream.finalMessage();
    assert.match(streamed.content[0].text, /^token0 .*token7 $/);
    assert.equal(streamed.stop_reason, "end_turn");
    assert.ok(streamed.usage.output_tokens > 0);
  }
});

test("anthropic: tools, errors and models", async () => {
  const tools = [{ name: "weather", input_schema: { type: "object", properties: {} } }];
  for (const name of ["claude-tools", "vendor/tools"]) {
    const streamed = await anthropic.messages.stream({ model: name, max_tokens: 9, messages: HELLO, tools }).finalMessage();
    assert.equal(streamed.stop_reason, "tool_use");
    assert.equal(streamed.content.filter((block) => block.type === "tool_use").length, 2, name);
  }
  await assert.rejects(askClaude("nobody"), Anthropic.NotFoundError);
  await assert.rejects(askClaude("long"), Anthropic.BadRequestError);
  await assert.rejects(askClaude("dead"), Anthropic.InternalServerError);
  await assert.rejects(anthropic.messages.stream({ model: "claude-cut", max_tokens: 9, messages: HELLO }).finalMessage(), Anthropic.APIError);
  const names = (await all(await anthropic.models.list())).map((one) => one.id);
  assert.ok(names.includes("claude"), names);
});

test("python: the same tour with its SDKs", async () => {
  const python = fileURLToPath(new URL("../.venv/bin/python", import.meta.url));
  const tour = fileURLToPath(new URL("tour.py", import.meta.url));
  const { stdout } = await promisify(execFile)(python, [tour, gateway.url], { timeout: 60_000 });
  assert.match(stdout, /tour: \d+ stops, all well/);
});

test("afterwards nobody holds anything", async () => {
  await settled(gateway, mock);
});
