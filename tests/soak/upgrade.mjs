// Numbered events in both directions over a polling session that upgrades at a random moment: none
// may be lost, none may come twice, and all in order.
//
//   npm run soak          SOAK_RUNS=200 SOAK_EVENTS=10000 SEED=7 widen and repeat it
//
// In each run a session under test joins `/relay` by polling and emits `up` events; a peer on a
// WebSocket joins too and emits `down` events. Both hear both, so that each direction is checked
// where it ends. At a random number of events the session upgrades, once or twice after an attempt
// that it gives up half way. Every fourth session is the official client with its own upgrade.
import { availableParallelism } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

import { Manager } from "socket.io-client";

import { startTarget, targetName } from "../clients/target.mjs";
import { Random } from "./random.mjs";
import { RawClient } from "./raw-client.mjs";

const RUNS = Number(process.env.SOAK_RUNS ?? 10);
const EVENTS = Number(process.env.SOAK_EVENTS ?? 2000);
const SEED = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 32));
const SHARDS = Number(process.env.SOAK_SHARDS ?? availableParallelism());
// Milliseconds without any event after which a run has failed: events were lost.
const STALL = 60_000;
// Runs after which a long soak says how far it is.
const PROGRESS = 20;
const ABANDONED = ["silent", "cut", "close", "garbage"];

const totals = { events: 0, raw: 0, official: 0, abandoned: 0, polled: 0, noops: 0, requests: 0, failed: 0 };

/** Checks that `up` and `down` arrive in order, each once. */
class Ledger {
  next = { up: 0, down: 0 };

  constructor(who) {
    this.who = who;
  }

  take(direction, n) {
    const expected = this.next[direction];
    if (n !== expected) {
      const what = n > expected ? `${n - expected} lost` : "twice, or out of order";
      throw new Error(`${this.who}: ${direction} ${n} came where ${expected} was expected: ${what}`);
    }
    this.next[direction] = n + 1;
  }

  get complete() {
    return this.next.up === EVENTS && this.next.down === EVENTS;
  }

  toString() {
    return `${this.who} has up ${this.next.up}, down ${this.next.down}`;
  }
}

/** The official client; `upgrade` starts its own probe, which it would else start when it opens. */
class OfficialClient {
  constructor(url, { onEvent, onFail, transports, upgrade = false }) {
    this.manager = new Manager(url, { transports, upgrade, reconnection: false });
    this.socket = this.manager.socket("/relay");
    this.socket.onAny(onEvent);
    this.socket.on("disconnect", (reason) => onFail(new Error(`disconnected: ${reason}`)));
    this.manager.on("error", onFail);
  }

  open() {
    return new Promise((done) => this.socket.once("connect", done));
  }

  emit(direction, n) {
    this.socket.emit(direction, n);
  }

  upgrade() {
    const { engine } = this.manager;
    const upgraded = new Promise((done, fail) => {
      engine.once("upgrade", done);
      engine.once("upgradeError", fail);
    });
    engine._probe("websocket");
    return upgraded;
  }

  get onWebSocket() {
    return this.manager.engine.transport.name === "websocket";
  }

  close() {
    this.socket.off("disconnect");
    this.manager._close();
  }
}

/** The raw client, speaking as much Socket.IO as is needed. */
class RawRelayClient {
  constructor(url, { onEvent, onFail, ...options }) {
    this.connected = new Promise((done) => {
      const onMessage = (packet) => {
        const event = /^2\/relay,\["(up|down)",(\d+)\]$/.exec(packet);
        if (event) onEvent(event[1], Number(event[2]));
        else if (packet.startsWith("0/relay,")) done();
        else onFail(new Error(`Socket.IO packet ${packet.slice(0, 80)}`));
      };
      this.raw = new RawClient(url, { ...options, onFail, onMessage });
    });
  }

  async open() {
    await this.raw.open();
    this.raw.send("0/relay,");
    await this.connected;
  }

  emit(direction, n) {
    this.raw.send(`2/relay,["${direction}",${n}]`);
  }

  upgrade() {
    return this.raw.upgrade();
  }

  get onWebSocket() {
    return this.raw.state === "websocket";
  }

  close() {
    this.raw.close();
  }
}

async function run(number, target) {
  const random = new Random(SEED + number);
  const plan = {
    official: number % 4 === 3,
    upgradeAt: random.between(0, 2 * EVENTS - 1), // of the events that the session sent and received
    abandon: number % 4 === 3 ? [] : Array.from({ length: random.pick([0, 0, 0, 1, 1, 2]) }, () => random.pick(ABANDONED)),
    fresh: random.chance(0.3),
    batch: random.pick([1, 7, 50, 500]),
    quiet: random.chance(0.2), // nobody emits while it upgrades
    window: random.pick([4, 30, 200, 1000]), // events under way, each direction
    upPerTurn: random.pick([2, 10, 50]),
    downPerTurn: random.pick([2, 10, 50]),
  };

  let failure;
  let moved = 0; // counts events that arrive anywhere
  let wake = () => {};
  const fail = (error) => {
    failure ??= error;
    wake();
  };
  const session = new Ledger("session");
  const peer = new Ledger("peer");
  const listen = (ledger) => ({
    onEvent: (direction, n) => {
      try {
        ledger.take(direction, n);
      } catch (error) {
        fail(error);
      }
      moved++;
      wake();
    },
    onFail: (error) => fail(new Error(`${ledger.who}: ${error.message}`)),
  });

  const peerClient = new OfficialClient(target.url, { ...listen(peer), transports: ["websocket"] });
  const client = plan.official
    ? new OfficialClient(target.url, { ...listen(session), transports: ["polling", "websocket"] })
    : new RawRelayClient(target.url, {
        ...listen(session),
        fresh: plan.fresh,
        batch: () => random.between(1, plan.batch),
      });

  const stalled = setInterval(() => {
    if (moved === stalled.seen) fail(new Error(`no event in ${STALL} ms: ${session}; ${peer}`));
    stalled.seen = moved;
  }, STALL);
  try {
    await Promise.all([peerClient.open(), client.open()]);
    const upgrading = { begun: false, over: false, done: undefined };
    let up = 0;
    let down = 0;
    while (!failure && !(session.complete && peer.complete && upgrading.begun)) {
      const paused = plan.quiet && upgrading.begun && !upgrading.over;
      const upNow = paused ? 0 : Math.min(plan.upPerTurn, EVENTS - up, plan.window - (up - peer.next.up));
      const downNow = paused ? 0 : Math.min(plan.downPerTurn, EVENTS - down, plan.window - (down - session.next.down));
      for (let i = 0; i < upNow; i++) client.emit("up", up++);
      for (let i = 0; i < downNow; i++) peerClient.emit("down", down++);
      if (!upgrading.begun && up + session.next.down >= plan.upgradeAt) {
        upgrading.begun = true;
        upgrading.done = upgrade(client, plan).catch(fail).finally(() => (upgrading.over = true));
      }
      const before = moved;
      await Promise.race([sleep(5), new Promise((done) => (wake = done))]);
      if (moved === before) await sleep(0);
    }
    await upgrading.done;
    if (failure) throw failure;
    if (!client.onWebSocket) throw new Error("the session did not end on a WebSocket");
  } catch (error) {
    throw new Error(`run ${number}: ${error.message}\nplan ${JSON.stringify(plan)}\nup and down: ${session}; ${peer}`);
  } finally {
    clearInterval(stalled);
    client.close();
    peerClient.close();
  }

  totals.events += 2 * EVENTS;
  totals[plan.official ? "official" : "raw"]++;
  totals.abandoned += plan.abandon.length;
  for (const counter of ["polledPackets", "noops", "requests"]) {
    totals[counter === "polledPackets" ? "polled" : counter] += client.raw?.[counter] ?? 0;
  }
}

async function upgrade(client, plan) {
  for (const how of plan.abandon) await client.raw.abandonUpgrade(how);
  // A server may take a moment to see that the last attempt was given up.
  if (plan.abandon.length > 0) await sleep(50);
  await client.upgrade();
}

const started = Date.now();
console.log(`upgrade soak against ${targetName}: ${RUNS} runs of ${EVENTS} events each way, seed ${SEED}, ${SHARDS} shards`);
const target = await startTarget({
  server: { shards: SHARDS },
  // The session sends faster than a client is usually allowed to.
  limits: { "events-per-second": 500_000 },
});
for (let number = 0; number < RUNS; number++) {
  try {
    await run(number, target);
  } catch (error) {
    totals.failed++;
    console.error(error.message);
  }
  if ((number + 1) % PROGRESS === 0 && number + 1 < RUNS) console.error(`${number + 1} of ${RUNS} runs`);
}
let ended = true;
await target.stop().catch((error) => {
  ended = false;
  console.error(error.message);
});
const { events, raw, official, abandoned, polled, noops, requests, failed } = totals;
console.log(
  `${raw + official} sessions upgraded with every event in order, none lost, none twice (${raw} raw, ${official} official clients); ${events} events\n` +
    `${abandoned} upgrades given up half way; raw clients: ${requests} requests, ${polled} polled packets, ${noops} noops; ${((Date.now() - started) / 1000).toFixed(1)} s; seed ${SEED}\n` +
    `${raw + official} passed, ${failed} failed`,
);
process.exitCode = failed > 0 || !ended ? 1 : 0;
