/** The form that adds a voice, from a file or from the microphone. */
import { request } from "../lib/api.js";
import { field, h, newId, statusLine } from "../lib/dom.js";
import { recorder } from "./microphone.js";
import { describe } from "./voice_details.js";

/**
 * @param {import("../lib/server.js").Capabilities} server
 * @param {() => void} onAdded
 */
export function voiceForm(server, onAdded) {
  const status = statusLine();
  const result = h("div", { class: "stack" });
  const name = h("input", { type: "text", required: true, maxLength: 200, autocomplete: "off" });
  const language = h("input", { type: "text", value: "en", maxLength: 50, autocomplete: "off" });
  const description = h("input", {
    type: "text",
    maxLength: 1000,
    autocomplete: "off",
    placeholder: "warm, unhurried",
  });
  const consent = h("input", {
    type: "text",
    maxLength: 1000,
    autocomplete: "off",
    placeholder: "Ada Lovelace, by e-mail of 3 May",
  });
  const synthetic = h("input", { type: "checkbox", id: newId() });
  const file = h("input", { type: "file", accept: "audio/*,video/webm" });
  const listen = h("audio", { controls: true, hidden: true });
  listen.setAttribute("aria-label", "The recording");
  /** @type {Blob | null} */
  let clip = null;

  const microphone = recorder((recorded) => {
    file.value = "";
    choose(recorded);
  });
  file.addEventListener("change", () => {
    if (file.files.length) choose(file.files[0]);
  });

  /** @param {Blob} chosen */
  function choose(chosen) {
    clip = chosen;
    if (listen.src) URL.revokeObjectURL(listen.src);
    listen.src = URL.createObjectURL(chosen);
    listen.hidden = false;
    result.replaceChildren();
  }

  async function add(event) {
    event.preventDefault();
    result.replaceChildren();
    if (!consent.value.trim() && !synthetic.checked) {
      status.fail(
        "Cloning a person’s voice needs their consent: write down who agreed, and how. Or say that the voice is not a person’s.",
      );
      consent.focus();
      return;
    }
    if (clip === null) {
      status.fail("Choose a recording, or make one.");
      file.focus();
      return;
    }
    const form = new FormData();
    form.set("name", name.value.trim());
    form.set("language", language.value.trim() || "en");
    if (description.value.trim()) form.set("description", description.value.trim());
    if (consent.value.trim()) form.set("consent", consent.value.trim());
    if (synthetic.checked) form.set("synthetic", "true");
    form.set("clip", clip, clip instanceof File ? clip.name : "recording.wav");
    addButton.disabled = true;
    status.say("The recording is being checked…");
    try {
      const voice = await (await request("v1/audio/voices", { body: form })).json();
      status.say(`“${voice.name}” is added${server.clonesVoices ? ": every worker can speak it from now on" : ""}.`);
      result.replaceChildren(...describe(voice));
      element.reset();
      clip = null;
      listen.hidden = true;
      onAdded();
    } catch (error) {
      status.fail(error);
    } finally {
      addButton.disabled = false;
    }
  }

  const addButton = h("button", { type: "submit", class: "primary" }, "Add the voice");
  const element = h(
    "form",
    { class: "card stack", onsubmit: add, noValidate: false, "aria-label": "Add a voice" },
    h("h3", {}, "Add a voice"),
    !server.clonesVoices &&
      h(
        "p",
        { class: "note" },
        `The running engine, ${server.engine}, does not clone voices: what you add here is for others, such as turbo.`,
      ),
    h("div", { class: "columns even" }, field("Name", name), field("Language", language, "Such as en or pt-BR.")),
    field("Description", description),
    field("Consent", consent, "Who agreed that this voice is cloned, and how. It is recorded with the voice."),
    h("div", { class: "check" }, synthetic, h("label", { for: synthetic.id }, "The voice is not a person’s")),
    field("Recording", file, "10 to 15 s of one person who speaks, without noise or music."),
    microphone.element,
    listen,
    h("div", { class: "actions" }, addButton),
    status.element,
    result,
  );
  return element;
}
