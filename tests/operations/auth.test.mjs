// Tokens per namespace, as the official client shows them: who gets in and as what, who does not and why, who has to go when
// the token's time is over; keys from files and from a key set that changes and goes away.

import assert from "node:assert/strict";
import { constants, createHmac, createSign, generateKeyPairSync, sign as signature } from "node:crypto";
import { createServer } from "node:http";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { io } from "socket.io-client";

import { eventually } from "../harness/programs.mjs";
import { after, before } from "../harness/server.mjs";
import { metric, startGateway } from "./gateway.mjs";

const SECRET = "forty bytes that nobody would guess, or?";
const now = () => Math.floor(Date.now() / 1000);
const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** Signs as each algorithm of RFC 7518 and RFC 8037 says, with Node's own cryptography. */
function token(algorithm, key, claims, header = {}) {
  const message = `${part({ alg: algorithm, typ: "JWT", ...header })}.${part(claims)}`;
  const bits = algorithm.slice(2);
  const signed = {
    HS: () => createHmac(`sha${bits}`, key).update(message).digest(),
    RS: () => createSign(`RSA-SHA${bits}`).update(message).sign(key),
    PS: () => signature(`sha${bits}`, Buffer.from(message), { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }),
    ES: () => signature(`sha${bits}`, Buffer.from(message), { key, dsaEncoding: "ieee-p1363" }),
    Ed: () => signature(null, Buffer.from(message), key),
  }[algorithm.slice(0, 2)]();
  return `${message}.${signed.toString("base64url")}`;
}

const secretToken = (claims, secret = SECRET) => token("HS256", secret, claims);

/** A client that tries once. */
function client(url, auth, options = {}) {
  return io(url, { auth, forceNew: true, reconnection: false, transports: ["websocket"], ...options });
}

/** Connects: the socket, or the error that the client got. */
async function join_(t, url, auth, options) {
  const socket = client(url, auth, options);
  t.after(() => socket.close());
  const ended = new Promise((resolve) => {
    socket.once("connect", () => resolve(socket));
    socket.once("connect_error", resolve);
  });
  return before(60_000, ended, new Error(`neither in nor refused: ${url}`));
}

async function refused(t, url, auth, options) {
  const error = await join_(t, url, auth, options);
  assert.ok(error instanceof Error, "was let in");
  assert.ok(error.message, "an error has words");
  return error.data?.code ?? error;
}

const secretGateway = (t, toml = "", more = {}) =>
  gateway(t, { toml: `[namespaces."/"]\nhandler = "relay"\n[namespaces."/".auth.jwt]\nsecret-file = "secret"\n${toml}`, files: { secret: `${SECRET}\n` }, ...more });

async function gateway(t, options) {
  const started = await startGateway(options);
  t.after(() => started.stop());
  return started;
}

test("a client is told what is wrong with its token, in connect_error", async (t) => {
  const server = await secretGateway(t, `issuer = "us"\naudience = ["chat", "news"]\nleeway = "0s"\n`);
  const claims = { sub: "ada", iss: "us", aud: "chat", exp: now() + 600 };
  for (const transports of [["websocket"], ["polling"], ["polling", "websocket"]]) {
    const verdict = (auth) => refused(t, server.url, auth, { transports });
    assert.equal(await verdict(undefined), "token-missing");
    assert.equal(await verdict({}), "token-missing");
    assert.equal(await verdict({ token: "" }), "token-missing");
    assert.equal(await verdict({ token: 7 }), "token-invalid");
    assert.equal(await verdict({ token: "rubbish" }), "token-invalid");
    assert.equal(await verdict({ token: secretToken(claims, "another secret") }), "token-invalid");
    assert.equal(await verdict({ token: `${part({ alg: "none" })}.${part(claims)}.` }), "token-invalid");
    assert.equal(await verdict({ token: secretToken({ ...claims, aud: "mail" }) }), "token-invalid");
    assert.equal(await verdict({ token: secretToken({ ...claims, iss: "them" }) }), "token-invalid");
    assert.equal(await verdict({ token: secretToken({ ...claims, nbf: now() + 600 }) }), "token-invalid");
    assert.equal(await verdict({ token: secretToken({ ...claims, exp: now() - 1 }) }), "token-expired");
    const socket = await join_(t, server.url, { token: secretToken(claims) }, { transports });
    assert.ok(socket.connected, socket);
    assert.deepEqual(await socket.emitWithAck("hello"), { receivers: 1 });
    socket.close();
  }
  const page = (await server.api("/metrics")).text;
  const count = (outcome) => metric(page, "bowline_auth_checks_total", `namespace="/",outcome="${outcome}"`);
  assert.deepEqual(["accepted", "token-missing", "token-invalid", "token-expired"].map(count), [3, 9, 21, 3]);
  assert.ok(!server.said().includes(SECRET) && !server.said().includes(part(claims)), "the log shows a secret");
});

test("every algorithm is checked with the key it is for", async (t) => {
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const p256 = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const p384 = generateKeyPairSync("ec", { namedCurve: "P-384" });
  const ed = generateKeyPairSync("ed25519");
  const secret = `[namespaces."/hs"]\nhandler = "echo"\nauth = { jwt = { secret-file = "secret" } }\n`;
  const pem = ({ publicKey }) => publicKey.export({ type: "spki", format: "pem" });
  const ways = { rsa, p256, p384, ed };
  const tables = Object.keys(ways).map((name) => `[namespaces."/${name}"]\nhandler = "echo"\nauth = { jwt = { public-key-file = "${name}" } }\n`);
  const files = Object.fromEntries(Object.entries(ways).map(([name, pair]) => [name, pem(pair)]));
  const server = await gateway(t, { toml: secret + tables.join(""), files: { secret: SECRET, ...files } });

  const claims = { sub: "ada", exp: now() + 600 };
  const places = { HS: "hs", RS: "rsa", PS: "rsa", ES256: "p256", ES384: "p384", Ed: "ed" };
  const place = (algorithm) => places[algorithm] ?? places[algorithm.slice(0, 2)];
  const key = (algorithm) => (place(algorithm) === "hs" ? SECRET : ways[place(algorithm)].privateKey);
  const all = ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
  for (const algorithm of all) {
    const shown = { token: token(algorithm, key(algorithm), claims) };
    for (const namespace of Object.values(places)) {
      const url = `${server.url}/${namespace}`;
      if (namespace === place(algorithm)) {
        const socket = await join_(t, url, shown);
        assert.ok(socket.connected, `${algorithm}: ${socket}`);
        socket.close();
      } else {
        assert.equal(await refused(t, url, shown), "token-invalid", `${algorithm} at /${namespace}`);
      }
    }
  }
  // What everybody may know is no secret, in whatever form.
  for (const name of Object.keys(ways)) {
    for (const known of [files[name], files[name].trim(), ways[name].publicKey.export({ type: "spki", format: "der" })]) {
      assert.equal(await refused(t, `${server.url}/${name}`, { token: token("HS256", known, claims) }), "token-invalid");
    }
  }
});

test("claims become rooms and data", async (t) => {
  const server = await secretGateway(t, `rooms-claim = "https://example.com/rooms"\ndata-claim = "data"\n`);
  const shown = { sub: "ada", "https://example.com/rooms": ["owls", "tea"], data: { name: "Ada", admin: false } };
  const ada = await join_(t, server.url, { token: secretToken(shown) });
  const bob = await join_(t, server.url, { token: secretToken({ sub: "bob", "https://example.com/rooms": "tea" }) });
  const listed = (await server.api("/api/v1/sockets?namespace=/")).json.sockets;
  const rooms = (socket) => listed.find(({ sid }) => sid === socket.id).rooms.filter((room) => room !== socket.id).sort();
  assert.deepEqual([rooms(ada), rooms(bob)], [["owls", "tea"], ["tea"]]);
  // They hear what is sent to those rooms, with their first event.
  const heard = [];
  ada.on("news", () => heard.push("ada"));
  bob.on("news", () => heard.push("bob"));
  const emitted = await server.api("/api/v1/emit", { method: "POST", body: { namespace: "/", to: ["owls"], event: "news", args: [] } });
  assert.equal(emitted.status, 200, emitted.text);
  await eventually("the news", () => heard.length > 0);
  assert.deepEqual([heard, emitted.json.receivers], [["ada"], 1]);
  assert.equal(await refused(t, server.url, { token: secretToken({ "https://example.com/rooms": 7 }) }), "token-invalid");
  assert.equal(await refused(t, server.url, { token: secretToken({ data: "x".repeat(16 * 1024) }) }), "token-invalid");
});

test("who is in when the token's time is over is told so and sent away", async (t) => {
  const server = await secretGateway(t, `leeway = "1s"\n`);
  for (const transports of [["websocket"], ["polling"]]) {
    const stays = await join_(t, server.url, { token: secretToken({ sub: "bob" }) }, { transports });
    const exp = now() + 6;
    const socket = await join_(t, server.url, { token: secretToken({ sub: "ada", exp }) }, { transports });
    assert.ok(socket.connected, socket);
    const said = [];
    socket.on("error", (error) => said.push(error));
    const reason = await before(60_000, new Promise((resolve) => socket.once("disconnect", resolve)), "still in");
    assert.equal(reason, "io server disconnect");
    assert.ok(Date.now() / 1000 >= exp + 1, "the leeway counts for those who are in, too");
    assert.equal(said.length, 1);
    assert.equal(said[0].code, "token-expired");
    assert.ok(said[0].message);
    assert.ok(stays.connected, "somebody else was sent away");
    // The same client comes back with a fresh token.
    socket.auth = { token: secretToken({ sub: "ada", exp: now() + 600 }) };
    socket.connect();
    await eventually("the return", () => socket.connected);
    socket.close();
    stays.close();
  }
});

test("one subject has so many connections and no more", async (t) => {
  const server = await secretGateway(t, `[limits]\nconnections-per-subject = 2\n`);
  const ada = () => ({ token: secretToken({ sub: "ada", exp: now() + 600 }) });
  const [first, second] = [await join_(t, server.url, ada()), await join_(t, server.url, ada(), { transports: ["polling"] })];
  assert.ok(first.connected && second.connected);
  assert.equal(await refused(t, server.url, ada()), "subject-full");
  const bob = await join_(t, server.url, { token: secretToken({ sub: "bob" }) });
  assert.ok(bob.connected, "others have places of their own");
  first.close();
  const third = await eventually("a place", async () => {
    const tried = await join_(t, server.url, ada());
    return tried.connected ? tried : false;
  });
  assert.ok(third.connected);
  const page = (await server.api("/metrics")).text;
  assert.ok(metric(page, "bowline_limit_hits_total", 'limit="connections-per-subject"') >= 1, page);
});

test("one address opens so many sessions a second, behind a proxy too", async (t) => {
  const limit = `[limits]\nhandshakes-per-second-per-address = 5\n[server]\ntrusted-proxies = ["127.0.0.1"]\n`;
  const server = await gateway(t, { toml: limit });
  const open = async (address) => {
    const answer = await fetch(`${server.url}/socket.io/?EIO=4&transport=polling`, { headers: { "x-forwarded-for": address } });
    const text = await answer.text();
    assert.ok(answer.status === 200 || text === "limits.handshakes-per-second-per-address\n", text);
    if (answer.status === 429) assert.equal(answer.headers.get("retry-after"), "1");
    return answer.status;
  };
  const burst = await Promise.all(Array.from({ length: 40 }, () => open("192.0.2.1")));
  const taken = burst.filter((status) => status === 200).length;
  assert.ok(taken >= 5 && taken < 40, `${taken} of 40`);
  assert.equal(await open("192.0.2.2"), 200, "another address has a share of its own");
  await eventually("the next second", async () => (await open("192.0.2.1")) === 200);
});

test("keys come from a key set, which may change and go away", { timeout: 300_000 }, async (t) => {
  const pairs = { old: generateKeyPairSync("ec", { namedCurve: "P-256" }), fresh: generateKeyPairSync("ed25519") };
  const jwk = (kid) => ({ ...pairs[kid].publicKey.export({ format: "jwk" }), kid, use: "sig" });
  const show = (kid) => ({ token: token(kid === "old" ? "ES256" : "EdDSA", pairs[kid].privateKey, { sub: "ada", exp: now() + 600 }, { kid }) });
  let answer = () => [503, "away"];
  let asked = 0;
  const publisher = createServer((request, response) => {
    asked += 1;
    const [status, body] = answer();
    response.writeHead(status, { "content-type": "application/json" }).end(body);
  });
  await new Promise((resolve) => publisher.listen(0, "127.0.0.1", resolve));
  t.after(() => publisher.close());
  const url = `http://127.0.0.1:${publisher.address().port}/.well-known/jwks.json`;
  const server = await gateway(t, { toml: `[namespaces."/"]\nhandler = "echo"\nauth = { jwt = { jwks-url = "${url}" } }\n` });
  const component = async () => (await server.api("/health/ready")).json.components.find(({ name }) => name === "jwks:/");

  // Nobody gets in without keys, and that is not said to be the token's fault.
  await eventually("the failed fetch", async () => (await component())?.state === "failed");
  assert.match((await component()).error, /answered with 503/);
  assert.equal((await server.api("/health/ready")).status, 200, "the others are served");
  assert.equal(await refused(t, server.url, show("old")), "token-unverifiable");
  assert.equal(await refused(t, server.url, {}), "token-missing");

  answer = () => [200, JSON.stringify({ keys: [jwk("old")] })];
  const first = await eventually("the keys", async () => {
    const tried = await join_(t, server.url, show("old"));
    return tried.connected ? tried : false;
  });
  assert.equal((await component()).state, "ready");

  // A new key is known to whoever comes with it half a minute later at the latest, and until then it costs no fetch.
  answer = () => [200, JSON.stringify({ keys: [jwk("old"), jwk("fresh")] })];
  const before_ = asked;
  assert.equal(await refused(t, server.url, show("fresh")), "token-invalid");
  assert.equal(await refused(t, server.url, show("fresh")), "token-invalid");
  assert.equal(asked, before_);
  const second = await eventually("the new key", async () => {
    const tried = await join_(t, server.url, show("fresh"));
    if (tried.connected) return tried;
    await after(1000);
    return false;
  }, 120_000);
  assert.equal(asked, before_ + 1, "one fetch for all of them");

  // The publisher goes away: what is known stays in use.
  publisher.close();
  publisher.closeAllConnections();
  const third = await join_(t, server.url, show("fresh"));
  assert.ok(first.connected && second.connected && third.connected);
  const page = (await server.api("/metrics")).text;
  assert.ok(metric(page, "bowline_key_set_fetches_total", 'outcome="ok"') >= 2);
});

test("another secret counts with a reload, and nobody who is in is sent away", async (t) => {
  const server = await secretGateway(t);
  const ada = await join_(t, server.url, { token: secretToken({ sub: "ada" }) });
  const next = "the secret of next month, which is longer";
  writeFileSync(join(server.directory, "secret"), `${next}\n${SECRET}\n`);
  assert.equal(await refused(t, server.url, { token: secretToken({ sub: "bob" }, next) }), "token-invalid");
  server.kill("SIGHUP");
  const bob = await eventually("the new secret", async () => {
    const tried = await join_(t, server.url, { token: secretToken({ sub: "bob" }, next) });
    return tried.connected ? tried : false;
  });
  assert.ok((await join_(t, server.url, { token: secretToken({ sub: "eve" }) })).connected, "the old one counts as well");
  assert.ok(ada.connected && bob.connected);

  // Keys that cannot be read are no reason to let everybody in, or nobody.
  writeFileSync(join(server.directory, "secret"), "");
  const reload = await server.control("/api/v1/reload", { method: "POST", body: {} });
  assert.ok(reload.status >= 400 && /no secret stands in it/.test(reload.text), reload.text);
  assert.ok((await join_(t, server.url, { token: secretToken({ sub: "eve" }, next) })).connected);
  assert.equal(await refused(t, server.url, undefined), "token-missing");
});
