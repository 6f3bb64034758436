// The chart of the README: what a message and a session cost, side by side.
import * as echarts from "echarts";

import { SERVERS } from "./servers.mjs";
import { median } from "./figures.mjs";
import { machine } from "./report.mjs";

const WIDTH = 880;
const PANEL = { width: 250, height: 128, left: 146, top: 84, columns: 440, rows: 190 };
const LABEL = 12;

// Colours of a light page, and what each becomes on a dark one.
export const INK = "#1f2328";
export const QUIET = "#59636e";
export const BOWLINE = "#0969da";
export const PEER = "#afb8c1";
const DARK = { [INK]: "#e6edf3", [QUIET]: "#9198a1", [BOWLINE]: "#4493f8", [PEER]: "#57606a" };

const PANELS = [
  { workload: "echo", title: "An event and its ack", unit: "µs", servers: ["floor", "bowline", "socketioxide", "socketio", "python"] },
  { workload: "broadcast", title: "A broadcast to 1,000, for each receiver", unit: "µs", servers: ["floor", "bowline", "socketioxide", "socketio", "python"] },
  { workload: "join", title: "A client that joins", unit: "µs", digits: 0, servers: ["floor", "bowline", "socketioxide", "socketio", "python"] },
  { workload: "idle", title: "Memory of an idle session", unit: "KB", digits: 1, by: 1000, servers: ["bowline", "socketioxide", "socketio", "python"] },
];

/** The chart as SVG. Panels without figures stay empty. */
export function chart(results) {
  const panels = PANELS.map((panel, index) => ({ ...place(index), ...panel, bars: bars(results, panel) }));
  const height = PANEL.top + 2 * PANEL.rows;
  const drawing = echarts.init(null, null, { renderer: "svg", ssr: true, width: WIDTH, height });
  drawing.setOption({
    animation: false,
    textStyle: { fontFamily: "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif" },
    title: [heading(results), ...panels.map(panelTitle)],
    grid: panels.map(({ left, top }) => ({ left, top, width: PANEL.width - LABEL * 5, height: PANEL.height })),
    xAxis: panels.map((_, gridIndex) => ({ gridIndex, type: "value", min: 0, show: false, max: "dataMax" })),
    yAxis: panels.map(({ bars }, gridIndex) => ({
      gridIndex,
      type: "category",
      inverse: true,
      data: bars.map((bar) => bar.name),
      axisLine: { show: false },
      axisTick: { show: false },
      axisLabel: { color: INK, fontSize: LABEL },
    })),
    series: panels.map(({ bars, unit, digits = 2 }, index) => ({
      type: "bar",
      xAxisIndex: index,
      yAxisIndex: index,
      barWidth: 16,
      data: bars.map(({ value, color }) => ({ value, itemStyle: { color, borderRadius: [0, 2, 2, 0] } })),
      label: { show: true, position: "right", color: INK, fontSize: LABEL, formatter: ({ value }) => `${written(value, digits)} ${unit}` },
    })),
  });
  const svg = drawing.renderToSVGString();
  drawing.dispose();
  return themed(svg);
}

function place(index) {
  return {
    left: PANEL.left + PANEL.columns * (index % 2),
    top: PANEL.top + 28 + PANEL.rows * Math.floor(index / 2),
  };
}

function bars(results, { workload, servers, by = 1 }) {
  return servers
    .map((server) => ({ server, figures: [...results.of(workload, server).values()] }))
    .filter(({ figures }) => figures.length > 0)
    .map(({ server, figures }) => ({
      name: SERVERS[server].short,
      value: median(figures) / by,
      color: server === "bowline" ? BOWLINE : PEER,
    }));
}

function heading(results) {
  return {
    text: "What a message and a session cost the server",
    subtext: `Processor time and memory, shorter is better. The floor does no more than epoll and write(2).\n${machine()}; the server on one core; median of ${results.told}; ${results.days}`,
    left: 16,
    top: 10,
    padding: 0,
    itemGap: 6,
    textStyle: { color: INK, fontSize: 17 },
    subtextStyle: { color: QUIET, fontSize: LABEL, lineHeight: 17 },
  };
}

function panelTitle({ title, left, top }) {
  const style = { color: INK, fontSize: 13, fontWeight: 600 };
  return { text: title, left: left - PANEL.left + 16, top: top - 26, padding: 0, textStyle: style };
}

function written(value, digits) {
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** Lets the colours follow the page's, where whoever shows the image knows of that. */
export function themed(svg) {
  const rules = Object.entries(DARK).map(([light, dark]) => `[fill="${light}"]{fill:${dark}}[stroke="${light}"]{stroke:${dark}}`);
  const style = `<style>@media (prefers-color-scheme:dark){${rules.join("")}}</style>`;
  return svg.replace(/<svg[^>]*>/, (opening) => `${opening}\n${style}`);
}
