/** Live: what the host is doing, and what it did in the last hour. Asks once in two seconds, while it is seen. */
import { requestJson } from "../lib/api.js";
import { confirmed, h, statusLine } from "../lib/dom.js";
import { capabilities } from "../lib/server.js";
import { merged } from "../lib/history.js";
import { sentence } from "../lib/words.js";
import { figures } from "./live_figures.js";
import { counters } from "./live_counters.js";
import { livePlots } from "./live_plots.js";
import { workerTable } from "./live_workers.js";

const INTERVAL_MS = 2000;

/** @param {HTMLElement} panel */
export async function mount(panel) {
  const status = statusLine();
  let server;
  try {
    server = await capabilities();
  } catch (error) {
    panel.append(h("h2", {}, "Live"), status.element);
    status.fail(error);
    return {};
  }
  const notes = h("ul", { class: "warnings", "aria-label": "Warnings", "aria-live": "polite" });
  const summary = figures();
  const plots = await livePlots();
  const workers = workerTable();
  const counts = counters();
  const service = h("button", { type: "button", hidden: true, onclick: changeService });
  let health = null;
  let history = null;
  let timer = 0;
  let seen = false;
  /** Workers and history take turns, so that there is one request at a time. */
  let turn = 0;

  async function refresh() {
    clearTimeout(timer);
    if (!seen || document.hidden) return;
    try {
      if (turn % 2 === 0 || history === null) {
        const since = history?.latest ?? 0;
        history = merged(history, await requestJson(`history?since=${since}`));
      }
      if (turn % 2 === 1 || health === null) health = await healthNow();
      turn += 1;
      status.say("");
      draw();
    } catch (error) {
      status.fail(error);
      if (error.status === 401 || error.status === 403) return;
    }
    clearTimeout(timer);
    timer = setTimeout(refresh, INTERVAL_MS);
  }

  /** The answer is 503 where no worker can speak, and says more then, not less. */
  async function healthNow() {
    const found = await requestJson("health", { errors: false });
    if (found.workers === undefined) throw new Error("The server tells of its workers only with an API key.");
    return found;
  }

  function draw() {
    const told = health.warnings.map(({ message }) => sentence(message));
    const lines = told.length ? told.map((text) => h("li", {}, text)) : [h("li", { class: "calm" }, "All is well.")];
    if (notes.textContent !== lines.map((line) => line.textContent).join("")) notes.replaceChildren(...lines);
    summary.update(health, history);
    plots.update(history);
    workers.update(health);
    counts.update(history);
    if (server.role === "operator") {
      service.hidden = false;
      service.textContent = health.draining ? "Put back into service" : "Take out of service";
    }
  }

  async function changeService() {
    const drain = !health.draining;
    const question =
      "Take this host out of service? It answers /ready with 503, so that clients are sent elsewhere; requests are still served.";
    if (drain && !(await confirmed(question, "Take it out"))) return;
    try {
      const found = await requestJson(drain ? "drain" : "resume", { method: "POST" });
      health = { ...health, draining: found.draining };
      draw();
    } catch (error) {
      status.fail(error);
    }
  }

  panel.append(
    h("div", { class: "actions spread" }, h("h2", {}, "Live"), service),
    status.element,
    notes,
    summary.element,
    plots.element,
    workers.element,
    counts.element,
  );
  if (server.role !== "operator")
    panel.append(
      h(
        "p",
        { class: "hint" },
        "With an operator’s API key, this host can be taken out of service here, and put back.",
      ),
    );
  document.addEventListener("visibilitychange", refresh);
  return {
    show() {
      seen = true;
      refresh();
    },
    hide() {
      seen = false;
      clearTimeout(timer);
    },
  };
}
