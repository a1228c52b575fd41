/** Speak: a text, a voice and an engine's parameters become sound. */
import { h, statusLine } from "../lib/dom.js";
import { capabilities, voices } from "../lib/server.js";
import { speak } from "../lib/speech.js";
import { duration } from "../lib/words.js";
import { preview } from "./speak_preview.js";
import { options } from "./speak_options.js";
import { playerCard } from "./player_card.js";
import { takeList } from "./takes.js";

const EXAMPLE =
  "Hello from Chorus. On Nov. 3rd the ferry leaves at 7:45, and a ticket costs $12.50.\n\nSay anything here, and listen.";
const MAX_SEED = 2 ** 32;

/** @param {HTMLElement} panel */
export async function mount(panel) {
  const status = statusLine();
  panel.append(h("h2", { class: "unseen" }, "Speak"), status.element);
  let server;
  let known;
  try {
    [server, known] = await Promise.all([capabilities(), voices()]);
  } catch (error) {
    status.fail(error);
    return {};
  }
  const withKey = server.role !== null;
  const text = h("textarea", { id: "text", rows: 6, value: EXAMPLE, spellcheck: true });
  const chosen = options(server, known);
  const shown = preview(server.maxTextCharacters);
  const card = playerCard({ withKey, formats: server.formats });
  const takes = takeList((take) => card.show(take));
  /** @type {AbortController | null} */
  let running = null;

  const speakButton = h("button", { type: "button", class: "primary", onclick: start }, "Speak");
  const stopButton = h("button", { type: "button", onclick: () => running?.abort(), hidden: true }, "Stop");

  /** The body of the request; a seed is drawn where none is given, so that a take can be had again. */
  function body() {
    const { seed, ...others } = chosen.body();
    return { text: text.value, ...others, seed: seed ?? Math.floor(Math.random() * MAX_SEED) };
  }

  async function start() {
    running?.abort();
    const own = new AbortController();
    running = own;
    stopButton.hidden = false;
    status.say("Waiting for the first sound…");
    try {
      let begun = false;
      const take = await speak(body(), server.sampleRate, own.signal, (growing) => {
        if (!begun) {
          begun = true;
          card.show(growing, shown.seconds());
          card.play();
          status.say(`First sound after ${duration(growing.firstSound)}.`);
        }
        card.update();
      });
      card.update();
      if (take.recording.length === 0) throw new Error("The server sent no audio.");
      takes.add(take);
      const { seconds } = take.recording;
      status.say(
        `First sound after ${duration(take.firstSound)}; ${duration(seconds)} of audio made in ${duration(take.made)}.`,
      );
    } catch (error) {
      card.update();
      if (own.signal.aborted) status.say("Stopped.");
      else status.fail(error);
    } finally {
      if (running === own) {
        running = null;
        stopButton.hidden = true;
      }
    }
  }

  const changed = () => shown.update({ text: text.value, ...chosen.body(), stream: true });
  text.addEventListener("input", changed);
  chosen.element.addEventListener("change", changed);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) start();
  });

  panel.append(
    h(
      "div",
      { class: "columns" },
      h(
        "div",
        { class: "stack" },
        h(
          "div",
          { class: "card stack" },
          h("label", { for: "text" }, "Text"),
          text,
          shown.counter,
          h(
            "div",
            { class: "actions" },
            speakButton,
            stopButton,
            h("span", { class: "hint wide-only" }, "or Ctrl + Enter"),
          ),
          tagButtons(server.tags, text),
        ),
        status.element,
        card.element,
        shown.element,
      ),
      h("div", { class: "stack" }, chosen.element),
    ),
    takes.element,
  );
  changed();

  const refreshVoices = async () => chosen.setVoices(await voices());
  addEventListener("voiceschange", refreshVoices);
  return { hide: () => card.pause() };
}

/**
 * Buttons that put an engine's tags into the text.
 * @param {string[]} tags
 * @param {HTMLTextAreaElement} text
 */
function tagButtons(tags, text) {
  if (!tags.length) return null;
  const put = (tag) => {
    text.setRangeText(` ${tag} `, text.selectionStart, text.selectionEnd, "end");
    text.focus();
    text.dispatchEvent(new Event("input"));
  };
  return h(
    "details",
    {},
    h("summary", {}, "Sounds and manners"),
    h(
      "div",
      { class: "chips" },
      ...tags.map((tag) => h("button", { type: "button", class: "chip", onclick: () => put(tag) }, tag)),
    ),
  );
}
