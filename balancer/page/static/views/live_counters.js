/** Counts of the last hour: where audio came from, jobs, and refusals by reason. */
import { h } from "../lib/dom.js";
import { count } from "../lib/words.js";

const CACHE = {
  hit: "from the cache",
  partial: "in part from the cache",
  coalesced: "with another's",
  miss: "spoken anew",
};
const JOBS = { queued: "queued", running: "being made", done: "done", failed: "failed", cancelled: "cancelled" };

export function counters() {
  const cache = list();
  const jobs = list();
  const refusals = list();
  const element = h(
    "div",
    { class: "plots three" },
    card("Answers of the last hour", cache),
    card("Jobs in the store", jobs),
    card("Refusals of the last hour", refusals),
  );

  /** @param {any} history */
  function update(history) {
    const hour = history.lastHour ?? history.lastMinute;
    if (!hour) return;
    fill(
      cache,
      Object.entries(hour.cache).map(([name, number]) => [CACHE[name] ?? name, number]),
    );
    const kept = (name) => history.seconds.jobsKept[name]?.at(-1) ?? 0;
    fill(
      jobs,
      Object.keys(JOBS).map((name) => [JOBS[name], Math.round(kept(name))]),
    );
    const refused = Object.entries(hour.refusals).filter(([, number]) => number > 0);
    fill(
      refusals,
      refused.length ? refused.map(([name, number]) => [name.replaceAll("_", " "), number]) : [["none", 0]],
    );
  }

  return { element, update };
}

function list() {
  return h("dl", { class: "details counts" });
}

/**
 * @param {HTMLElement} element
 * @param {[string, number][]} rows
 */
function fill(element, rows) {
  element.replaceChildren(...rows.flatMap(([name, number]) => [h("dt", {}, name), h("dd", {}, count(number))]));
}

/**
 * @param {string} title
 * @param {HTMLElement} content
 */
function card(title, content) {
  return h("section", { class: "card stack", "aria-label": title }, h("h3", {}, title), content);
}
