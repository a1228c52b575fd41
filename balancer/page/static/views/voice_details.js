/** What operators see of a voice: its consent, its recording and the verdict on that. */
import { requestJson } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { duration } from "../lib/words.js";

/**
 * A part that opens, and asks the server then.
 * @param {string} name
 */
export function voiceDetails(name) {
  const content = h("div", { class: "stack" });
  const details = h("details", {}, h("summary", {}, "Consent and recording"), content);
  details.addEventListener("toggle", async () => {
    if (!details.open) return;
    try {
      content.replaceChildren(...describe(await requestJson(`v1/audio/voices/${encodeURIComponent(name)}`)));
    } catch (error) {
      content.replaceChildren(h("p", { class: "fault" }, error.message));
    }
  });
  return details;
}

/**
 * @param {any} voice as `GET /v1/audio/voices/{name}` shows it
 * @returns {HTMLElement[]}
 */
export function describe(voice) {
  const { consent, clip } = voice;
  const rows = [
    ["Consent", consent ? `${consent.givenBy}, ${consent.givenOn}` : "none is needed: the voice is not a person’s"],
    ["Engines", voice.engines.join(", ") || "none"],
    [
      "Recording",
      clip
        ? `${duration(clip.seconds)}, of which ${duration(clip.speechSeconds)} are speech, at ${clip.sampleRate} Hz`
        : "none",
    ],
  ].filter(Boolean);
  return [
    h("dl", { class: "details" }, ...rows.flatMap(([term, text]) => [h("dt", {}, term), h("dd", {}, text)])),
    ...(clip ? [verdict(voice)] : []),
  ];
}

/**
 * The verdict on a recording, in words: of each check, and remarks.
 * @param {{checks: {subject: string, passed: boolean, words: string}[], notes: string[]}} voice
 */
function verdict({ checks, notes }) {
  const good = checks.every(({ passed }) => passed);
  return h(
    "div",
    { class: "stack" },
    h("p", { class: good ? "" : "fault" }, good ? "The recording is good." : "The recording cannot be cloned well:"),
    h(
      "ul",
      { class: "verdict" },
      ...checks.map(({ subject, passed, words }) => h("li", { class: passed ? "" : "fault" }, `${subject}: ${words}`)),
      ...notes.map((text) => h("li", {}, text)),
    ),
  );
}
