// What came out, as Markdown: the targets, then all gateways.
import { median, spread, table } from "../figures.mjs";
import { Results as AllResults, machine } from "../report.mjs";
import { GATEWAYS } from "./gateways.mjs";

/** A figure of a measurement: its path, what it is called, and by what it is multiplied. */
const FIGURES = [
  { name: "plain, p50, ms", path: "workloads.plain.added.request_us#all#p50", scale: 1e-3, digits: 3 },
  { name: "plain, p99, ms", path: "workloads.plain.added.request_us#all#p99", scale: 1e-3, digits: 2 },
  { name: "first content, p50, ms", path: "workloads.stream.added.request_us#first_content#p50", scale: 1e-3, digits: 3 },
  { name: "first content, p99, ms", path: "workloads.stream.added.request_us#first_content#p99", scale: 1e-3, digits: 2 },
  { name: "plain, µs", path: "workloads.plain-8.gateway.cpu_us_per_request", digits: 0, of: "cpu" },
  { name: "streamed, µs", path: "workloads.stream-8.gateway.cpu_us_per_request", digits: 0, of: "cpu" },
  { name: "idle, MB", path: "idle.largest_rss_bytes", scale: 1e-6, digits: 1, of: "memory" },
  { name: "idle, all processes, MB", path: "idle.pss_bytes", scale: 1e-6, digits: 1, of: "memory" },
  { name: "under load, all processes, MB", path: "workloads.stream-8.gateway.rss_max_bytes", scale: 1e-6, digits: 1, of: "memory" },
];

/** DESIGN section 6. */
const TARGETS = [
  { what: "added to a plain answer, p50", figure: FIGURES[0], most: 0.15, unit: "ms" },
  { what: "added to the first content of a stream, p50", figure: FIGURES[2], most: 0.15, unit: "ms" },
  { what: "processor time of a plain request", figure: FIGURES[4], most: 150, unit: "µs" },
  { what: "processor time of a stream with 8 tokens", figure: FIGURES[5], most: 150, unit: "µs" },
  { what: "resident memory of the gateway process, idle", figure: FIGURES[6], most: 15, unit: "MB" },
];

/** The results of a run, by gateway. */
export class Results extends AllResults {
  #lines;

  constructor(lines) {
    super(lines);
    this.#lines = lines;
  }

  /** A figure of a gateway in all rounds. */
  figures(id, { path, scale = 1 }) {
    const found = this.#lines.filter((line) => line.server === id).map(({ result }) => look(result, path));
    return found.filter((figure) => figure !== undefined).map((figure) => figure * scale);
  }

  /** Whether cores were kept from halting, throughout. */
  get awake() {
    return this.#lines.every(({ result }) => result.awake);
  }

  /** The same of the provider alone, over all gateways that it was measured for. */
  direct(path) {
    return this.#lines.map(({ result }) => look(result, path)).filter((figure) => figure !== undefined);
  }
}

/** As `at`; a `#` in the last part stands for a full stop that belongs to its name. */
function look(result, path) {
  const parts = path.split(".").map((part) => part.replaceAll("#", "."));
  return parts.reduce((value, key) => value?.[key], result);
}

export function report(results) {
  const cores = results.awake ? "Cores that wait are kept from halting." : "Cores that wait halt, and waking them costs everybody time.";
  const quick = results.quick ? " **Quick: few requests, the figures mean little.**" : "";
  const alone = [
    ["plain", "workloads.plain.direct.request_us.all"],
    ["first content of a stream", "workloads.stream.direct.request_us.first_content"],
  ].map(([name, path]) => `${name} p50 ${spread(results.direct(`${path}.p50`), 0)} µs, p99 ${spread(results.direct(`${path}.p99`), 0)} µs`);
  return [
    `${results.days}, ${machine()}, ${results.told}, run ${results.run}. Median (least–greatest). ${cores}${quick}`,
    `The provider alone: ${alone.join("; ")}.`,
    table(["target", "at most", "Bowline", ""], targets(results)),
    "Added to what the provider alone takes, one request at a time:",
    rows(results, FIGURES.filter((figure) => !figure.of)),
    "Processor time of all processes of the gateway for each request, eight at a time:",
    rows(results, FIGURES.filter((figure) => figure.of === "cpu")),
    "Memory: resident, of the largest process; then that of all processes, where what they share counts once (idle), and resident under load, where it counts for each:",
    rows(results, FIGURES.filter((figure) => figure.of === "memory")),
  ].filter((part) => part !== "").join("\n\n") + "\n";
}

/** A page with the report in the place of what stands between its two comments. */
export function published(page, text) {
  const place = /(<!-- AI gateway: from here[^]*?-->\n)[^]*?(<!-- AI gateway: to here\. -->)/;
  if (!place.test(page)) throw new Error("the page does not say where the report on the AI gateway begins and ends");
  return page.replace(place, (_, begin, end) => `${begin}\n${text}\n${end}`);
}

function targets(results) {
  return TARGETS.map(({ what, figure, most, unit }) => {
    const found = results.figures("bowline", figure);
    const verdict = found.length === 0 ? "not measured" : median(found) <= most ? "met" : "**missed**";
    return [what, `${most} ${unit}`, spread(found, figure.digits), verdict];
  });
}

/** A row for each gateway, with how it stands to Bowline. */
function rows(results, figures) {
  const own = figures.map((figure) => results.figures("bowline", figure));
  const measured = Object.keys(GATEWAYS).filter((id) => results.figures(id, figures[0]).length > 0);
  return table(
    ["gateway", ...figures.map(({ name }) => name)],
    measured.map((id) => [
      GATEWAYS[id].name,
      ...figures.map((figure, at) => {
        const found = results.figures(id, figure);
        if (found.length === 0) return "–";
        const ratio = id === "bowline" || own[at].length === 0 ? "" : `, ${times(median(found) / median(own[at]))}`;
        return `${spread(found, figure.digits)}${ratio}`;
      }),
    ]),
  );
}

function times(ratio) {
  return `${ratio >= 10 ? ratio.toFixed(0) : ratio.toFixed(1)} ×`;
}
