/** The last hour as plots, drawn by uPlot. */
import { h } from "../lib/dom.js";
import { duration } from "../lib/words.js";

const HEIGHT = 190;
const MIN_MINUTES = 3;

/**
 * `read` gives the values of a series from the history's columns.
 * @type {{title: string, unit: "time" | "number", series: {label: string, read: (columns: any) => (number | null)[]}[]}[]}
 */
const PLOTS = [
  {
    title: "Time to the first sound",
    unit: "time",
    series: ["p50", "p95", "p99"].map((name) => ({
      label: percentile(name),
      read: (columns) => columns.firstSound[name],
    })),
  },
  {
    title: "Time of whole answers",
    unit: "time",
    series: ["p50", "p95", "p99"].map((name) => ({ label: percentile(name), read: (columns) => columns.answer[name] })),
  },
  {
    title: "Throughput, per second",
    unit: "number",
    series: [
      { label: "seconds of audio", read: (columns) => perSecond(columns.audioSeconds, columns.seconds) },
      { label: "answers", read: (columns) => perSecond(columns.requests.speech.ok, columns.seconds) },
    ],
  },
  {
    title: "Slots and queue",
    unit: "number",
    series: [
      { label: "slots in use", read: (columns) => columns.slots.busy },
      { label: "interactive, waiting", read: (columns) => columns.queue.interactive },
      { label: "batch, waiting", read: (columns) => columns.queue.batch },
    ],
  },
];

/** @param {string} name */
function percentile(name) {
  return name === "p50" ? "median" : `${name.slice(1)}th percentile`;
}

/**
 * @param {number[]} counts
 * @param {number[]} seconds
 */
function perSecond(counts, seconds) {
  return counts.map((number, place) => number / seconds[place]);
}

/** Loads the library, which only this view needs. */
function loadLibrary() {
  return new Promise((resolve, reject) => {
    if (globalThis.uPlot) return resolve(globalThis.uPlot);
    document.head.append(h("link", { rel: "stylesheet", href: "page/vendor/uPlot.min.css" }));
    const script = h("script", { src: "page/vendor/uPlot.iife.min.js" });
    script.addEventListener("load", () => resolve(globalThis.uPlot));
    script.addEventListener("error", () => reject(new Error("The plots cannot be loaded.")));
    document.head.append(script);
  });
}

export async function livePlots() {
  const uPlot = await loadLibrary();
  const plots = PLOTS.map((plot) => drawn(uPlot, plot));
  const range = h("p", { class: "hint" });
  const element = h(
    "section",
    { class: "stack", "aria-label": "Plots" },
    range,
    h("div", { class: "plots" }, ...plots.map(({ element }) => element)),
  );

  return {
    element,
    /** @param {any} history */
    update(history) {
      // A server that has just started has few minutes, but seconds.
      const byMinutes = history.minutes.at.length >= MIN_MINUTES;
      range.textContent = byMinutes ? "The last hour, by minutes" : "The last minutes, by seconds";
      for (const plot of plots) plot.update(byMinutes ? history.minutes : history.seconds);
    },
  };
}

/**
 * @param {any} uPlot
 * @param {typeof PLOTS[number]} plot
 */
function drawn(uPlot, { title, unit, series }) {
  const canvas = h("div", { class: "plot", role: "img", "aria-label": title });
  const legend = h(
    "ul",
    { class: "legend" },
    ...series.map(({ label }, place) => h("li", {}, h("span", { class: `swatch swatch-${place}` }), label)),
  );
  const element = h("figure", { class: "card stack" }, h("figcaption", {}, h("h3", {}, title)), canvas, legend);
  const show =
    unit === "time"
      ? (value) => (value === 0 ? "0" : duration(value))
      : (value) => String(Number(value.toPrecision(3)));
  let chart = null;
  let data = [[], ...series.map(() => [])];

  function build() {
    chart?.destroy();
    const colours = getComputedStyle(document.documentElement);
    const colour = (name) => colours.getPropertyValue(name).trim();
    const strokes = ["--accent", "--field", "--bad"].map(colour);
    const axis = {
      stroke: colour("--quiet"),
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { show: false },
      font: "12px system-ui, sans-serif",
    };
    chart = new uPlot(
      {
        width: canvas.clientWidth,
        height: HEIGHT,
        padding: [6, 6, 0, 0],
        legend: { show: false },
        cursor: { y: false },
        scales: { y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] } },
        axes: [
          {
            ...axis,
            size: 28,
            space: 70,
            values: (_, times, __, ___, step) => times.map((at) => timeOfDay(at, step < 60)),
          },
          { ...axis, size: 56, space: 36, values: (_, values) => values.map(show) },
        ],
        series: [
          {},
          ...series.map((_, place) => ({ stroke: strokes[place], width: 2, points: { show: false }, spanGaps: true })),
        ],
      },
      data,
      canvas,
    );
  }

  new ResizeObserver(() => {
    if (canvas.clientWidth === 0) return;
    if (chart === null) build();
    else chart.setSize({ width: canvas.clientWidth, height: HEIGHT });
  }).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart && build());

  return {
    element,
    /** @param {any} columns */
    update(columns) {
      data = [columns.at, ...series.map(({ read }) => read(columns))];
      chart?.setData(data);
      const latest = series.map(({ label }, place) => `${label} ${describe(data[place + 1], show)}`);
      canvas.setAttribute("aria-label", `${title}: ${latest.join(", ")}`);
    },
  };
}

function describe(values, show) {
  const last = values.findLast((value) => value !== null);
  return last === undefined ? "not measured" : show(last);
}

/**
 * @param {number} at Unix time in seconds
 * @param {boolean} exact whether with seconds
 */
function timeOfDay(at, exact) {
  const second = exact ? "2-digit" : undefined;
  return new Date(at * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second });
}
