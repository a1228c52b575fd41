/** Jobs: long texts, which are spoken when workers are idle, and survive crashes and restarts. */
import { requestJson } from "../lib/api.js";
import { field, h, select, statusLine } from "../lib/dom.js";
import { knownJobs, remember } from "../lib/job_list.js";
import { capabilities, voices } from "../lib/server.js";
import { beginning, count, counted } from "../lib/words.js";
import { dropZone } from "./document_drop.js";
import { jobRow } from "./job_row.js";

/** @param {HTMLElement} panel */
export async function mount(panel) {
  const status = statusLine();
  let server;
  let known;
  try {
    [server, known] = await Promise.all([capabilities(), voices()]);
  } catch (error) {
    panel.append(h("h2", {}, "Jobs"), status.element);
    status.fail(error);
    return {};
  }
  const text = h("textarea", { rows: 7, placeholder: "Paste a chapter, or Markdown" });
  const counter = h("p", { class: "hint counter" });
  const voice = select(
    known.map(({ name }) => ({ value: name, label: name })),
    "default",
  );
  const format = select(
    server.formats.map((value) => ({ value, label: value.toUpperCase() })),
    "wav",
  );
  const list = h("div", { class: "rows" });
  const empty = h(
    "p",
    { class: "hint" },
    "There are none yet. What you queue here is listed until you remove it, also after the page was closed.",
  );
  /** @type {Map<string, ReturnType<typeof jobRow>>} */
  const rows = new Map();

  const documents = dropZone(({ parts, name }) => {
    if (parts.length === 1) {
      text.value = parts[0].text;
      text.dispatchEvent(new Event("input"));
      status.say(`“${name}” is in the field above.`);
    } else status.say(`“${name}” has ${counted(parts.length, "part")}: choose which to queue.`);
  }, enqueueAll);

  text.addEventListener("input", () => {
    counter.textContent = `${count(text.value.length)} of ${count(server.maxJobTextCharacters)} characters`;
    counter.classList.toggle("fault", text.value.length > server.maxJobTextCharacters);
  });

  /**
   * @param {string} title
   * @param {{text: string, voice: string, format: string}} body
   */
  async function enqueue(title, body) {
    const receipt = await requestJson("queue", { json: body });
    remember({ id: receipt.requestId, title, format: body.format, body });
    draw();
  }

  /** @param {import("../lib/job_list.js").Job} job */
  async function again(job) {
    try {
      await enqueue(job.title, job.body);
    } catch (error) {
      status.fail(error);
    }
  }

  /**
   * All of them or none.
   * @param {import("./document_drop.js").Part[]} parts
   */
  async function enqueueAll(parts) {
    if (!parts.length) {
      status.fail("None is chosen.");
      return;
    }
    status.say(`Queueing ${counted(parts.length, "job")}…`);
    try {
      const bodies = parts.map((part) => ({ text: part.text, voice: part.voice ?? voice.value, format: format.value }));
      const lines = bodies.map((body) => JSON.stringify(body)).join("\n");
      const { jobs } = await requestJson("queue/batch", { body: lines, type: "application/x-ndjson" });
      // The first one is to stand at the top of the list.
      for (const [place, receipt] of [...jobs.entries()].reverse()) {
        remember({ id: receipt.requestId, title: parts[place].title, format: format.value, body: bodies[place] });
      }
      draw();
      status.say(`${counted(jobs.length, "job")} queued.`);
    } catch (error) {
      status.fail(error);
    }
  }

  async function submit(event) {
    event.preventDefault();
    if (!text.value.trim()) {
      status.fail("There is no text to queue.");
      text.focus();
      return;
    }
    try {
      await enqueue(beginning(text.value), { text: text.value, voice: voice.value, format: format.value });
      text.value = "";
      counter.textContent = "";
      status.say("It is queued.");
    } catch (error) {
      status.fail(error);
    }
  }

  function draw() {
    const jobs = knownJobs();
    empty.hidden = jobs.length > 0;
    const current = new Set(jobs.map(({ id }) => id));
    for (const [id, row] of rows) {
      if (!current.has(id)) {
        row.stop();
        rows.delete(id);
      }
    }
    for (const job of jobs) {
      if (!rows.has(job.id)) rows.set(job.id, jobRow(job, { server, onGone: draw, onRetry: () => again(job) }));
    }
    list.replaceChildren(...jobs.map(({ id }) => rows.get(id).element));
  }

  panel.append(
    h("h2", {}, "Jobs"),
    h(
      "form",
      { class: "card stack", onsubmit: submit, "aria-label": "Queue a job" },
      field("Text", text),
      counter,
      documents.element,
      h(
        "div",
        { class: "columns even" },
        field("Voice", voice),
        field("Format", format, "WAV can be heard while it is made."),
      ),
      h("div", { class: "actions" }, h("button", { type: "submit", class: "primary" }, "Queue it")),
      status.element,
    ),
    h("section", { class: "card stack", "aria-label": "Your jobs" }, h("h3", {}, "Your jobs"), empty, list),
  );
  draw();
  return {
    show: () => {
      for (const row of rows.values()) row.watch();
    },
    hide: () => {
      for (const row of rows.values()) row.stop();
    },
  };
}
