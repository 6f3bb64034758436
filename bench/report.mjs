// What came out, as Markdown: the targets, then all figures.
import { cpus, release, totalmem } from "node:os";

import { SERVERS } from "./servers.mjs";
import { WORKLOADS } from "./workloads.mjs";
import { at, median, ratios, spread, table } from "./figures.mjs";
import { judge } from "./targets.mjs";

/** Where times are of interest, and which of the load tool's. */
const LATENCIES = { latency: "latency_us", broadcast: "fanout_us", "broadcast-10k": "fanout_us", rooms: "fanout_us" };

/** The results of a run, by workload and server. */
export class Results {
  #lines;

  constructor(lines) {
    this.#lines = lines;
  }

  /** The figures of a server under a workload, by round; by default the one that the workload is about. */
  of(workload, server, path = WORKLOADS[workload].figure) {
    const figures = new Map();
    for (const line of this.#lines) {
      if (line.workload !== workload || line.server !== server) continue;
      const figure = at(line.result, path);
      if (figure !== undefined) figures.set(line.round, figure);
    }
    return figures;
  }

  /** What there is of these workloads alone. */
  only(workloads) {
    return new Results(this.#lines.filter((line) => workloads.includes(line.workload)));
  }

  get rounds() {
    return Math.max(0, ...this.#lines.map((line) => line.round));
  }

  /** How many rounds, in words. */
  get told() {
    return this.rounds === 1 ? "one round" : `${this.rounds} rounds`;
  }

  /** From the first to the last day that was measured. */
  get days() {
    const days = this.#lines.map((line) => line.at.slice(0, 10)).toSorted();
    return days.at(0) === days.at(-1) ? days.at(0) : `${days.at(0)} to ${days.at(-1)}`;
  }

  get run() {
    return this.#lines.at(-1)?.run;
  }

  get quick() {
    return this.run?.endsWith("-quick") ?? false;
  }
}

export function machine() {
  const cores = cpus();
  const memory = Math.round(totalmem() / 2 ** 30);
  return `${cores.length} cores (${cores[0].model.trim()}), ${memory} GiB, Linux ${/^\d+\.\d+/.exec(release())}`;
}

/** All of it, or, of a run that was to measure only some of it, no more than that. */
export function report(results, whole = true) {
  const quick = results.quick ? " **Quick: few messages, the figures mean little.**" : "";
  const sections = { Targets: targets(results, whole), Medians: medians(results), "All figures": everything(results), Latency: latencies(results) };
  return [
    `${results.days}, ${machine()}, ${results.told}, run ${results.run}. Median (least–greatest).${quick}`,
    ...Object.entries(sections)
      .filter(([, table]) => table !== "")
      .map(([title, table]) => `## ${title}\n\n${table}`),
  ].join("\n\n") + "\n";
}

/** A page with the report in the place of what stands between its two comments. */
export function published(page, text) {
  const place = /(<!-- From here[^]*?-->\n)[^]*?(<!-- To here\. -->)/;
  if (!place.test(page)) throw new Error("the page does not say where the report begins and ends");
  return page.replace(place, (_, begin, end) => `${begin}\n${text}\n${end}`);
}

function targets(results, whole) {
  const judged = judge(results).filter(({ verdict }) => whole || verdict !== "not measured");
  const rows = judged.map(({ what, most, figure, verdict }) => [
    what,
    most,
    figure,
    verdict === "missed" ? "**missed**" : verdict,
  ]);
  return table(["target", "at most", "figure", ""], rows);
}

function medians(results) {
  const servers = Object.keys(SERVERS);
  const rows = Object.entries(WORKLOADS).map(([id, { unit, digits = 2 }]) => [
    `${id}, ${unit}`,
    ...servers.map((server) => {
      const figures = [...results.of(id, server).values()];
      return figures.length === 0 ? "" : spread([median(figures)], digits);
    }),
  ]);
  return table(["", ...servers.map((server) => SERVERS[server].short)], rows.filter(measured));
}

/** Rows without any figure are not worth a line. */
function measured(row) {
  return row.slice(1).some((cell) => cell !== "");
}

function everything(results) {
  const rows = [];
  for (const [id, workload] of Object.entries(WORKLOADS)) {
    const digits = workload.digits ?? 2;
    let name = `${id}, ${workload.unit}`;
    for (const server of workload.servers) {
      const figures = results.of(id, server);
      if (figures.size === 0) continue;
      const base = workload.base ?? server;
      const ratio = base === server ? "" : `${spread(ratios(figures, results.of(id, base)))} × ${SERVERS[base].short}`;
      const load = [...results.of(id, server, "load.cpu_us_per_message").values()];
      const beside = load.length === 0 ? "" : median(load).toFixed(2);
      rows.push([name, SERVERS[server].name, String(figures.size), spread([...figures.values()], digits), ratio, beside]);
      name = "";
    }
  }
  return table(["workload", "server", "rounds", "figure", "ratio", "load tool, µs"], rows);
}

function latencies(results) {
  const rows = [];
  const quantiles = ["p50", "p99", "p999", "max"];
  for (const [id, kind] of Object.entries(LATENCIES)) {
    let name = `${id}, ${kind === "fanout_us" ? "until the last receiver has it" : "until the ack"}`;
    for (const server of WORKLOADS[id].servers) {
      const cells = quantiles.map((quantile) => spread([...results.of(id, server, `${kind}.${quantile}`).values()], 0));
      if (cells.every((cell) => cell === "–")) continue;
      rows.push([name, SERVERS[server].name, ...cells]);
      name = "";
    }
  }
  return table(["workload", "server", "p50, µs", "p99, µs", "p99.9, µs", "greatest, µs"], rows);
}
