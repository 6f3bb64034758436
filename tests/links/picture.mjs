// Attempts over time as an SVG, for docs/links.md: a bar for each second, and the budget as a line.

const [WIDTH, HEIGHT] = [760, 260];
const MARGIN = { left: 48, right: 16, top: 28, bottom: 44 };

/** `times` are milliseconds since the loss; the service took connections again at `back`. */
export function picture(times, { back, perSecond, burst, links }) {
  const seconds = Math.ceil((Math.max(...times) + 1) / 1000);
  const counts = Array.from({ length: seconds }, () => 0);
  for (const time of times) counts[Math.floor(time / 1000)]++;
  const top = Math.max(perSecond + burst, ...counts) + 1;
  const x = (second) => MARGIN.left + (second / seconds) * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (count) => HEIGHT - MARGIN.bottom - (count / top) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const bars = counts.map((count, second) => `<rect x="${x(second).toFixed(1)}" y="${y(count).toFixed(1)}" width="${(x(1) - x(0) - 0.6).toFixed(1)}" height="${(y(0) - y(count)).toFixed(1)}"/>`);
  const step = [1, 2, 5, 10, 20, 30, 60, 120].find((step) => seconds / step <= 10) ?? 300;
  const ticks = Array.from({ length: Math.floor(seconds / step) + 1 }, (_, i) => i * step);
  const label = (at, text) => `<text x="${x(at).toFixed(1)}" y="${HEIGHT - MARGIN.bottom + 16}" text-anchor="middle">${text}</text>`;
  const level = (count) => `<text x="${MARGIN.left - 8}" y="${(y(count) + 4).toFixed(1)}" text-anchor="end">${count}</text>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Attempts per second of ${links} links after their service was lost">
<style>
  text { font: 12px system-ui, sans-serif; fill: #57606a; }
  rect { fill: #2f6feb; } .budget { stroke: #cf222e; stroke-dasharray: 4 3; } .back { stroke: #1a7f37; } .axis { stroke: #8c959f; }
  @media (prefers-color-scheme: dark) { text { fill: #9198a1; } rect { fill: #4493f8; } .budget { stroke: #f85149; } .back { stroke: #3fb950; } .axis { stroke: #656c76; } }
</style>
<text x="${MARGIN.left}" y="16">attempts in each second; ${links} links lost at 0 s, ${times.length} attempts</text>
${bars.join("\n")}
<line class="axis" x1="${MARGIN.left}" y1="${y(0)}" x2="${WIDTH - MARGIN.right}" y2="${y(0)}"/>
<line class="budget" x1="${MARGIN.left}" y1="${y(perSecond).toFixed(1)}" x2="${WIDTH - MARGIN.right}" y2="${y(perSecond).toFixed(1)}"/>
<line class="back" x1="${x(back / 1000).toFixed(1)}" y1="${MARGIN.top}" x2="${x(back / 1000).toFixed(1)}" y2="${y(0)}"/>
<text x="${(x(back / 1000) + 4).toFixed(1)}" y="${MARGIN.top + 10}">the service takes connections again</text>
${[0, perSecond, top - 1].map(level).join("\n")}
${ticks.map((tick) => label(tick, tick)).join("\n")}
<text x="${WIDTH / 2}" y="${HEIGHT - 8}" text-anchor="middle">seconds since the loss</text>
</svg>
`;
}
