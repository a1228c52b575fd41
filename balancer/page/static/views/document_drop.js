/** Takes a document by drag and drop or from a dialog, and shows its parts to choose from. */
import { request } from "../lib/api.js";
import { h, newId } from "../lib/dom.js";
import { beginning, count, counted, size } from "../lib/words.js";

/** More parts than this, as a table may have, are queued all or not at all. */
const MAX_CHOICES = 200;

/**
 * `voice` is given by a row of a table that names one.
 * @typedef {{title: string, text: string, voice?: string}} Part
 * @param {(document: {name: string, parts: Part[]}) => void} onRead
 * @param {(parts: Part[]) => void} onQueue
 */
export function dropZone(onRead, onQueue) {
  const input = h("input", { type: "file", accept: ".txt,.md,.markdown,.epub,.csv,text/*", id: newId() });
  const fault = h("p", { class: "fault", role: "status" });
  const parts = h("div", { class: "stack" });
  const zone = h(
    "div",
    { class: "drop" },
    h("label", { for: input.id }, "Or drop a file here: text, Markdown, EPUB or CSV"),
    input,
    fault,
  );
  const element = h("div", { class: "stack" }, zone, parts);

  input.addEventListener("change", () => {
    if (input.files.length) read(input.files[0]);
  });
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) read(file);
  });

  /** @param {File} file */
  async function read(file) {
    fault.textContent = "";
    parts.replaceChildren();
    try {
      const found = await readDocument(file);
      onRead({ name: file.name, parts: found });
      if (found.length > 1) parts.replaceChildren(chooser(found));
    } catch (error) {
      fault.textContent = `“${file.name}” (${size(file.size)}): ${error.message}`;
    } finally {
      input.value = "";
    }
  }

  /** @param {Part[]} found */
  function chooser(found) {
    const queueButton = (word, chosen) =>
      h("div", { class: "actions" }, h("button", { type: "button", onclick: () => onQueue(chosen()) }, word));
    if (found.length > MAX_CHOICES) return queueButton(`Queue all ${counted(found.length, "part")}`, () => found);
    const boxes = found.map(({ title, text }) => {
      const box = h("input", { type: "checkbox", checked: true, id: newId() });
      return {
        box,
        line: h(
          "div",
          { class: "check" },
          box,
          h("label", { for: box.id }, `${title} · ${count(text.length)} characters`),
        ),
      };
    });
    const chosen = () => found.filter((_, place) => boxes[place].box.checked);
    return h(
      "fieldset",
      { class: "parts stack" },
      h("legend", { class: "label" }, "Parts, each of which becomes a job"),
      ...boxes.map(({ line }) => line),
      queueButton("Queue these", chosen),
    );
  }

  return { element };
}

/**
 * The parts of a document, as the server reads them: chapters, or the rows of a table.
 * @param {File} file
 * @returns {Promise<Part[]>}
 */
async function readDocument(file) {
  const form = new FormData();
  form.set("file", file);
  const { title, chapters, jobs } = await (await request("documents", { body: form })).json();
  if (jobs.length)
    return jobs.map(({ text, character }) => ({ title: beginning(text), text, voice: character ?? undefined }));
  return chapters.map((chapter) => ({
    title: [title, chapter.title].filter(Boolean).join(" – ") || beginning(chapter.text),
    text: chapter.text,
  }));
}
