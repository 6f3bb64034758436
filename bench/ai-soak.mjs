// The picture of docs/ai.md: memory, permits and connections of a gateway while its providers fail in every way there is.
//
//   node ai-soak.mjs FIGURES.json OUT.svg      FIGURES as `npm run ai-faults` in tests/ leaves them with SAMPLES=FIGURES.json
import { readFileSync, writeFileSync } from "node:fs";
import * as echarts from "echarts";

import { BOWLINE, INK, PEER, QUIET, themed } from "./chart.mjs";
import { machine } from "./report.mjs";

const WIDTH = 880;
const HEIGHT = 440;
const PANEL = { left: 64, right: 24, height: 112, top: 102, rows: 168 };

/** What is drawn, from above. */
const PANELS = [
  { title: "Memory of the gateway, MiB", of: (sample) => sample.bytes / 2 ** 20, color: BOWLINE },
  { title: "Permits held and waited for, of all scopes", of: (sample) => sample.permits, color: BOWLINE },
];

/** The picture as SVG. */
export function picture(figures) {
  const drawing = echarts.init(null, null, { renderer: "svg", ssr: true, width: WIDTH, height: HEIGHT });
  const top = (index) => PANEL.top + 24 + PANEL.rows * index;
  drawing.setOption({
    animation: false,
    textStyle: { fontFamily: "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif" },
    title: [heading(figures), ...PANELS.map(({ title }, index) => ({ text: title, left: 16, top: top(index) - 26, padding: 0, textStyle: { color: INK, fontSize: 13, fontWeight: 600 } }))],
    grid: PANELS.map((_, index) => ({ left: PANEL.left, right: PANEL.right, top: top(index), height: PANEL.height })),
    xAxis: PANELS.map((_, gridIndex) => ({
      gridIndex,
      type: "value",
      max: Math.ceil(figures.samples.at(-1).seconds),
      axisLabel: { color: QUIET, formatter: "{value} s" },
      axisLine: { lineStyle: { color: PEER } },
      axisTick: { lineStyle: { color: PEER } },
      splitLine: { show: false },
    })),
    yAxis: PANELS.map((_, gridIndex) => ({
      gridIndex,
      type: "value",
      min: 0,
      splitNumber: 3,
      axisLine: { show: false },
      axisLabel: { color: QUIET },
      splitLine: { lineStyle: { color: PEER, opacity: 0.4 } },
    })),
    series: PANELS.map(({ of, color }, index) => ({
      type: "line",
      xAxisIndex: index,
      yAxisIndex: index,
      showSymbol: false,
      lineStyle: { color, width: 2 },
      data: figures.samples.map((sample) => [sample.seconds, of(sample)]),
    })),
  });
  const svg = drawing.renderToSVGString();
  drawing.dispose();
  return themed(svg);
}

function heading({ requests, attempts, modes, seconds, reloads, when }) {
  const count = (number) => number.toLocaleString("en");
  return {
    text: `${count(requests)} requests to providers that fail`,
    subtext:
      `${modes} ways to fail, streamed and plain, clients that stay and that leave: ${count(attempts)} attempts in ${Math.round(seconds)} s, ${reloads} reloads meanwhile.\n` +
      "Afterwards no permit is held, no connection is open, and both sides have counted the same attempts.\n" +
      `${machine()}, shared by gateway, clients and providers; ${when.slice(0, 10)}`,
    left: 16,
    top: 10,
    padding: 0,
    itemGap: 6,
    textStyle: { color: INK, fontSize: 17 },
    subtextStyle: { color: QUIET, fontSize: 12, lineHeight: 17 },
  };
}

const [from, to] = process.argv.slice(2);
if (to) {
  writeFileSync(to, picture(JSON.parse(readFileSync(from, "utf8"))));
  console.log(`${to} is drawn`);
}
