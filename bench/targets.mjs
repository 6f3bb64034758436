// The targets (DESIGN section 6, issue 6): at most so much, as the median of all rounds.
import { median, ratios, spread } from "./figures.mjs";

/** `figures` are those of the rounds. */
export const TARGETS = [
  { what: "echo, with ack", most: 1.2, unit: "× floor", figures: over("echo", "floor") },
  { what: "broadcast to 1,000 sessions", most: 1.05, unit: "× floor", figures: over("broadcast", "floor") },
  { what: "broadcast to 10,000 sessions", most: 1.05, unit: "× floor", figures: over("broadcast-10k", "floor") },
  {
    what: "a delivery in bursts of ten",
    most: 0.25,
    unit: "× a write of the floor each",
    figures: (results) => ratios(results.of("burst", "bowline"), results.of("broadcast", "floor")),
  },
  {
    what: "growth of a delivery, 1,000 → 19,000 sessions",
    most: 1,
    unit: "× the floor's growth",
    figures: (results) => ratios(growth(results, "bowline"), growth(results, "floor")),
  },
  { what: "idle session", most: 2000, unit: "bytes", digits: 0, figures: plain("idle") },
  { what: "join", most: 0.6, unit: "× socketioxide", figures: over("join", "socketioxide") },
  {
    what: "two shards on one core, echo",
    most: 1.1,
    unit: "× one shard",
    figures: (results) => ratios(results.of("echo", "bowline2"), results.of("echo", "bowline")),
  },
  {
    what: "two shards on one core, broadcast",
    most: 1.1,
    unit: "× one shard",
    figures: (results) => ratios(results.of("broadcast", "bowline2"), results.of("broadcast", "bowline")),
  },
  { what: "echo over polling only", most: 0.5, unit: "× Socket.IO (Node)", figures: over("polling", "socketio") },
  { what: "idle session with heartbeats, in a second", most: 1, unit: "µs", figures: plain("heartbeat") },
  { what: "first answer after exec", most: 50, unit: "ms", digits: 1, figures: plain("start") },
  { what: "release binary, stripped", most: 25, unit: "MB", digits: 1, figures: plain("size") },
];

/** One row for each target: the words for it, and whether it is met. */
export function judge(results, targets = TARGETS) {
  return targets.map(({ what, most, unit, digits = 2, figures }) => {
    const found = figures(results);
    const verdict = found.length === 0 ? "not measured" : median(found) <= most ? "met" : "missed";
    return { what, most: `≤ ${most.toLocaleString("en")} ${unit}`, figure: spread(found, digits), verdict };
  });
}

/** Bowline's figure over another server's. */
function over(workload, server) {
  return (results) => ratios(results.of(workload, "bowline"), results.of(workload, server));
}

function plain(workload) {
  return (results) => [...results.of(workload, "bowline").values()];
}

/** By how much a delivery to 19,000 sessions costs more than one to 1,000, in each round. */
function growth(results, server) {
  const few = results.of("broadcast", server);
  const many = results.of("scale-19k", server);
  return new Map([...many].filter(([round]) => few.has(round)).map(([round, figure]) => [round, figure / few.get(round)]));
}
