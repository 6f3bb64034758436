// The flags of the example servers, as DESIGN section 4 gives them, so that a reference server and an example can be
// started with the same command line.

const UNITS = { ms: 1, s: 1000, m: 60_000, B: 1, KB: 1e3, MB: 1e6, KiB: 1024, MiB: 1024 ** 2 };

function amount(text) {
  const [, number, unit] = /^(\d+)([A-Za-z]*)$/.exec(text) ?? [];
  if (number === undefined || (unit && !(unit in UNITS))) {
    throw new Error(`not an amount: ${text}`);
  }
  return Number(number) * (unit ? UNITS[unit] : 1);
}

/** Parses `--listen --path --ping-interval --ping-timeout --max-payload --connect-timeout` and, for the gateway, its own. */
export function parseFlags(defaultPath, argv = process.argv.slice(2)) {
  const flags = {
    host: "127.0.0.1",
    port: 0,
    path: defaultPath,
    pingInterval: 25_000,
    pingTimeout: 20_000,
    maxPayload: 1e6,
    connectTimeout: 45_000,
    corsOrigins: [],
    cookie: false,
    allowEio3: true,
  };
  for (let i = 0; i < argv.length; i += 2) {
    const value = argv[i + 1];
    switch (argv[i]) {
      case "--listen":
        flags.host = value.slice(0, value.lastIndexOf(":"));
        flags.port = Number(value.slice(value.lastIndexOf(":") + 1));
        break;
      case "--path": flags.path = value; break;
      case "--ping-interval": flags.pingInterval = amount(value); break;
      case "--ping-timeout": flags.pingTimeout = amount(value); break;
      case "--max-payload": flags.maxPayload = amount(value); break;
      case "--connect-timeout": flags.connectTimeout = amount(value); break;
      case "--cors-origin": flags.corsOrigins.push(value); break;
      case "--cookie": flags.cookie = value; break;
      case "--allow-eio3": flags.allowEio3 = value === "true"; break;
      default: throw new Error(`unknown flag ${argv[i]}`);
    }
  }
  return flags;
}

/** The options of npm engine.io and socket.io for these flags. */
export function engineOptions(flags) {
  return {
    path: flags.path,
    pingInterval: flags.pingInterval,
    pingTimeout: flags.pingTimeout,
    maxHttpBufferSize: flags.maxPayload,
    allowEIO3: flags.allowEio3,
    ...(flags.cookie && { cookie: { name: flags.cookie } }),
    ...(flags.corsOrigins.length && {
      cors: { origin: flags.corsOrigins.includes("*") ? "*" : flags.corsOrigins },
    }),
  };
}
