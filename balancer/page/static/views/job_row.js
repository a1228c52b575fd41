/** One job: how far it is, and what can be done with it. */
import { request } from "../lib/api.js";
import { confirmed, h, save, statusLine } from "../lib/dom.js";
import { forget } from "../lib/job_list.js";
import { clock, counted, duration } from "../lib/words.js";
import { jobListening } from "./job_listening.js";
import { watchJob } from "./job_watch.js";

const STATES = {
  queued: { word: "queued", mood: "" },
  running: { word: "being made", mood: "" },
  done: { word: "done", mood: "good" },
  failed: { word: "failed", mood: "bad" },
  cancelled: { word: "cancelled", mood: "" },
};
const FINAL = ["done", "failed", "cancelled"];

/**
 * @param {import("../lib/job_list.js").Job} job
 * @param {{server: import("../lib/server.js").Capabilities, onGone: () => void, onRetry: () => void}} options
 */
export function jobRow(job, { server, onGone, onRetry }) {
  const badge = h("span", { class: "badge" }, "…");
  const bar = h("progress", { max: 1, value: 0, "aria-label": `Progress of ${job.title}` });
  const facts = h("p", { class: "hint" });
  const status = statusLine();
  const listening = jobListening(job, server, status);
  const button = (word, action, kind = "") =>
    h(
      "button",
      { type: "button", class: kind, hidden: true, onclick: action, "aria-label": `${word}: ${job.title}` },
      word,
    );
  const downloadButton = button("Download", download);
  const cancelButton = button("Cancel", () => change("Cancelled."));
  const retryButton = button("Retry", onRetry);
  const removeButton = button("Remove", remove, "link");
  /** @type {AbortController | null} */
  let watching = null;
  let state = "queued";

  const element = h(
    "article",
    { class: "job", "aria-label": job.title },
    h("div", { class: "job-head" }, h("span", { class: "row-title" }, job.title), badge),
    bar,
    facts,
    h("div", { class: "actions" }, listening.button, downloadButton, cancelButton, retryButton, removeButton),
    listening.element,
    status.element,
  );

  /** @param {any} found as `GET /status/{id}` answers */
  function draw(found) {
    state = found.state;
    const final = FINAL.includes(state);
    const { word, mood } = STATES[state];
    badge.textContent = word;
    badge.className = `badge ${mood}`;
    bar.hidden = final;
    bar.value = found.progress;
    facts.textContent = describe(found, job.format);
    if (found.error) status.fail(found.error.message ?? found.error);
    listening.update(found);
    downloadButton.hidden = state !== "done";
    cancelButton.hidden = final;
    retryButton.hidden = !["failed", "cancelled"].includes(state) || job.body === undefined;
    removeButton.hidden = !final;
  }

  async function watch() {
    if (watching || FINAL.includes(state)) return;
    const own = new AbortController();
    watching = own;
    try {
      await watchJob(job.id, own.signal, draw);
    } catch (error) {
      if (own.signal.aborted) return;
      if (error.status === 404) {
        badge.textContent = "gone";
        bar.hidden = true;
        facts.textContent = "The server does not have it any more, or another key queued it.";
        removeButton.hidden = false;
      } else status.fail(error);
    } finally {
      if (watching === own) watching = null;
    }
  }

  function stop() {
    watching?.abort();
    watching = null;
    listening.pause();
  }

  async function download() {
    try {
      status.say("Fetching the audio…");
      const response = await request(`audio/${job.id}`);
      save(await response.blob(), `chorus-${job.id}.${job.format}`);
      status.say("");
    } catch (error) {
      status.fail(error);
    }
  }

  async function change(word) {
    try {
      draw(await (await request(`queue/${job.id}`, { method: "DELETE" })).json());
      status.say(word);
      return true;
    } catch (error) {
      if (error.status === 404) return true;
      status.fail(error);
      return false;
    }
  }

  async function remove() {
    if (state === "done" && !(await confirmed(`Remove “${job.title}”, with its audio?`, "Remove it"))) return;
    if (state !== "cancelled" && !(await change(""))) return;
    listening.pause();
    forget(job.id);
    onGone();
  }

  watch();
  return { element, watch, stop };
}

/**
 * @param {any} found
 * @param {string} format
 */
function describe(found, format) {
  const { state, segments, segmentsDone, secondsDone, etaSeconds, position } = found;
  const parts = [];
  if (state === "queued" && position)
    parts.push(position === 1 ? "next in the queue" : `number ${position} in the queue`);
  if (segments) parts.push(`${segmentsDone} of ${counted(segments, "segment")}`);
  if (found.duration ?? secondsDone) parts.push(`${clock(found.duration ?? secondsDone)} of audio`);
  if (!FINAL.includes(state) && etaSeconds > 0) parts.push(`about ${duration(etaSeconds)} left`);
  parts.push(format.toUpperCase());
  return parts.join(" · ");
}
