/** The workers: the state of each, its cores and memory, and what it does. */
import { h } from "../lib/dom.js";
import { count, counted, duration, size } from "../lib/words.js";

const MOODS = { ready: "good", busy: "good", starting: "", warming: "", draining: "warn", failed: "bad", gone: "bad" };
const HEADS = ["Worker", "State", "Does", "Cores", "CPU", "Memory", "Speed", "Done", "Up"];

export function workerTable() {
  const body = h("tbody");
  const table = h(
    "table",
    {},
    h("caption", { class: "unseen" }, "Workers"),
    h("thead", {}, h("tr", {}, ...HEADS.map((head) => h("th", { scope: "col" }, head)))),
    body,
  );
  const element = h(
    "section",
    { class: "card stack", "aria-label": "Workers" },
    h("h3", {}, "Workers"),
    h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Table of the workers" }, table),
  );
  return {
    element,
    /** @param {any} health */
    update: (health) => body.replaceChildren(...health.workers.map(row)),
  };
}

function row(worker) {
  const { index, phase } = worker;
  const running = worker.pid !== undefined;
  const cells = running
    ? [
        ranges(worker.cores),
        worker.cpu_cores === undefined ? "" : worker.cpu_cores.toFixed(2),
        size(worker.resident_bytes),
        worker.speed === null ? "" : `${worker.speed.toFixed(1)} ×`,
        count(worker.done),
        duration(Math.max(0, Date.now() / 1000 - worker.started_at)),
      ]
    : ["", "", "", "", "", ""];
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, String(index)),
    h("td", {}, h("span", { class: `badge ${MOODS[phase] ?? ""}` }, phase)),
    h("td", { class: "words" }, doing(worker, running)),
    ...cells.map((text) => h("td", {}, text)),
  );
}

function doing(worker, running) {
  if (worker.reason) return worker.reason;
  if (!running) return "no process answers";
  if (worker.phase === "starting" || worker.phase === "warming") return "loads its model";
  if (worker.running.length) return worker.running.map(spoken).join("; ");
  if (worker.in_flight) return `speaks ${worker.in_flight} of ${worker.slots}`;
  return worker.phase === "draining" ? "takes no more" : "waits for work";
}

/** @param {{voice: string, characters: number, priority: string, seconds: number}} utterance */
function spoken({ voice, characters, priority, seconds }) {
  return `speaks ${counted(characters, "character")} as ${voice}${priority === "batch" ? " (batch)" : ""} for ${duration(seconds)}`;
}

/** CPUs in short: `0–3, 8`. @param {number[]} cores */
function ranges(cores) {
  /** @type {[number, number][]} */
  const found = [];
  for (const core of cores) {
    const last = found.at(-1);
    if (last && core === last[1] + 1) last[1] = core;
    else found.push([core, core]);
  }
  return found.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`)).join(", ");
}
