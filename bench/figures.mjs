// Arithmetic on the figures of rounds, and how they are written.

export function median(figures) {
  const sorted = figures.toSorted((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

/** The value at a path such as `server.cpu_us_per_message`. */
export function at(result, path) {
  return path.split(".").reduce((value, key) => value?.[key], result);
}

/**
 * A figure over another one of the same round, for all rounds that have both: the two were measured
 * one right after the other, so that what slows the machine down for minutes slows both.
 */
export function ratios(figures, base) {
  return [...figures].filter(([round]) => base.has(round)).map(([round, figure]) => figure / base.get(round));
}

/** `median (least–greatest)`; one figure stands alone. */
export function spread(figures, digits = 2) {
  if (figures.length === 0) return "–";
  const write = (figure) => figure.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const middle = write(median(figures));
  return figures.length === 1 ? middle : `${middle} (${write(Math.min(...figures))}–${write(Math.max(...figures))})`;
}

/** A Markdown table whose columns also stand under each other in a terminal; nothing without rows. */
export function table(head, rows) {
  if (rows.length === 0) return "";
  const widths = head.map((cell, column) => Math.max(...[head, ...rows].map((row) => row[column].length), cell.length));
  const line = (cells) => `| ${cells.map((cell, column) => cell.padEnd(widths[column])).join(" | ")} |`;
  return [line(head), `|${widths.map((width) => "-".repeat(width + 2)).join("|")}|`, ...rows.map(line)].join("\n");
}
