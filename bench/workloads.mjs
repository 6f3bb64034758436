// What servers are measured under. A measurement takes one and a half to four seconds, so that seven
// rounds of all end within forty minutes.

const CPU = "server.cpu_us_per_message";
const LATENCY = "latency_us.p99";

/**
 * `load` are the arguments of `bowline bench`; `many(n)` is n, less for slow servers. `figure` is the
 * path of the figure in its answer, and `base` the server to which the others are compared. `audience`
 * is what the floor does with a message. `rooms` and `app` say which program Bowline is then; `alike`
 * that slow servers get as many messages as the others.
 */
export const WORKLOADS = {
  echo: {
    what: "100 sessions, each awaits the ack of its event before the next",
    figure: CPU,
    unit: "µs an event",
    base: "floor",
    servers: ["floor", "bowline", "bowline2", "socketioxide", "socketio", "python"],
    load: (many) => ["echo", "--ack", "--sessions", 100, "--messages", many(200_000)],
  },
  broadcast: broadcast(1000, ["floor", "bowline", "bowline2", "socketioxide", "socketio", "python"]),
  burst: {
    ...broadcast(1000, ["floor", "bowline", "socketioxide", "socketio"]),
    what: "1,000 sessions, ten events in one write to all",
    load: (many) => ["broadcast", "--sessions", 1000, "--burst", 10, "--rounds", many(120)],
  },
  "scale-5k": broadcast(5000, ["floor", "bowline"]),
  "broadcast-10k": broadcast(10_000, ["floor", "bowline", "socketioxide"]),
  "scale-19k": broadcast(19_000, ["floor", "bowline"]),
  rooms: {
    what: "100 rooms of 100 sessions; an event goes to its room",
    figure: CPU,
    unit: "µs a delivery",
    base: "floor",
    audience: "rooms",
    rooms: true,
    servers: ["floor", "bowline", "socketioxide"],
    load: (many) => ["rooms", "--sessions", 10_000, "--rooms", 100, "--rounds", many(25)],
  },
  binary: {
    what: "100 sessions, each awaits the return of an event with 64 bytes before the next",
    figure: CPU,
    unit: "µs an event",
    base: "floor",
    servers: ["floor", "bowline", "socketioxide", "socketio"],
    load: (many) => ["echo", "--binary", "--sessions", 100, "--messages", many(150_000)],
  },
  polling: {
    what: "as echo, over long polling only",
    figure: CPU,
    unit: "µs an event",
    base: "socketio",
    // The ratio of the target: until Node has compiled all of this to its liking, many have come.
    alike: true,
    servers: ["bowline", "socketioxide", "socketio"],
    load: (many) => ["echo", "--ack", "--wire", "polling", "--sessions", 100, "--messages", many(30_000)],
  },
  backend: {
    what: "as echo, each event through an app behind HTTP",
    figure: CPU,
    unit: "µs an event",
    app: true,
    servers: ["bowline"],
    load: (many) => ["echo", "--ack", "--sessions", 100, "--messages", many(20_000)],
  },
  latency: {
    what: "5,000 events a second at 1,000 sessions, on a fixed schedule; until the ack",
    figure: LATENCY,
    digits: 0,
    unit: "µs, p99",
    base: "socketio",
    servers: ["bowline", "socketioxide", "socketio"],
    load: () => ["echo", "--ack", "--sessions", 1000, "--rate", 5000, "--seconds", 3],
  },
  join: join("websocket", ["floor", "bowline", "socketioxide", "socketio", "python"]),
  "join-upgrade": join("upgrade", ["bowline", "socketioxide", "socketio"]),
  idle: {
    what: "10,000 sessions that do nothing",
    figure: "server.bytes_per_session",
    unit: "bytes a session",
    digits: 0,
    servers: ["floor", "bowline", "bowline2", "socketioxide", "socketio", "python"],
    load: () => ["idle", "--sessions", 10_000, "--seconds", 1],
  },
  heartbeat: {
    what: "10,000 idle sessions with a ping every 25 s, for two intervals",
    figure: "server.cpu_us_per_session_second",
    unit: "µs a session and second",
    // Whole intervals, so that every session is asked equally often.
    rounds: 3,
    servers: ["bowline"],
    load: () => ["idle", "--sessions", 10_000, "--seconds", 50],
  },
  start: {
    what: "from exec until a request is answered, median of five starts",
    figure: "first_answer_ms",
    unit: "ms",
    starts: 5,
    servers: ["bowline"],
  },
  size: {
    what: "the program without what debuggers need",
    figure: "stripped_mb",
    unit: "MB",
    rounds: 1,
    servers: ["bowline"],
  },
};

/** Names for several workloads. */
export const GROUPS = { scale: ["broadcast", "scale-5k", "broadcast-10k", "scale-19k"] };

function broadcast(sessions, servers) {
  const shown = sessions.toLocaleString("en");
  return {
    what: `${shown} sessions; one emits to all, and the next round begins when all have it`,
    figure: CPU,
    unit: "µs a delivery",
    base: "floor",
    audience: "broadcast",
    servers,
    load: (many) => ["broadcast", "--sessions", sessions, "--rounds", many(Math.round(250_000 / sessions))],
  };
}

function join(wire, servers) {
  const how = wire === "upgrade" ? "polling, then upgraded" : "WebSocket only";
  return {
    what: `5,000 sessions join as fast as they can, ${how}`,
    figure: "server.join_us",
    unit: "µs a session",
    digits: 1,
    base: "socketioxide",
    servers,
    load: () => ["join", "--wire", wire, "--sessions", 5000],
  };
}
