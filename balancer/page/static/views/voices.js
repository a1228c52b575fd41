/** Voices: what there is to hear; operators add and remove. */
import { request } from "../lib/api.js";
import { confirmed, h, statusLine } from "../lib/dom.js";
import { showKeyDialog } from "../lib/key.js";
import { Player } from "../lib/player.js";
import { capabilities, forgetVoices, otherVoices, voices } from "../lib/server.js";
import { speak } from "../lib/speech.js";
import { voiceDetails } from "./voice_details.js";
import { voiceForm } from "./voice_form.js";

const SAMPLE = "Hello. This is how I sound when I read a sentence or two aloud.";
const SAMPLE_SEED = 1;

/** @param {HTMLElement} panel */
export async function mount(panel) {
  const status = statusLine();
  const list = h("ul", { class: "voices" });
  /** @type {{player: Player, button: HTMLElement} | null} */
  let heard = null;
  let server;
  try {
    server = await capabilities();
  } catch (error) {
    panel.append(status.element);
    status.fail(error);
    return {};
  }
  const isOperator = server.role === "operator";

  async function draw() {
    try {
      const others = isOperator ? await otherVoices() : [];
      list.replaceChildren(...(await voices()).map(card), ...others.map(otherCard));
    } catch (error) {
      status.fail(error);
    }
  }

  async function listen(voice, button) {
    status.say("");
    if (heard?.player.playing) {
      heard.player.pause();
      if (heard.button === button) return;
    }
    button.disabled = true;
    try {
      const body = { text: SAMPLE, voice: voice.name, seed: SAMPLE_SEED };
      /** @type {Player | null} */
      let player = null;
      await speak(body, server.sampleRate, new AbortController().signal, (take) => {
        if (player === null) {
          player = new Player(take.recording);
          player.addEventListener("change", () => {
            button.textContent = player.playing ? "Pause" : "Listen";
          });
          heard = { player, button };
          button.disabled = false;
          player.play();
        }
        player.update();
      });
      player?.update();
    } catch (error) {
      status.fail(error);
    } finally {
      button.disabled = false;
    }
  }

  /** @param {string} name */
  async function remove(name) {
    const question = `Remove the voice “${name}”, with its recording and the record of consent?`;
    if (!(await confirmed(question, "Remove it"))) return;
    try {
      await request(`v1/audio/voices/${encodeURIComponent(name)}`, { method: "DELETE" });
      forgetVoices();
      status.say(`“${name}” is removed.`);
    } catch (error) {
      status.fail(error);
    }
    draw();
  }

  /** @param {string} name */
  function removeButton(name) {
    return h(
      "button",
      { type: "button", class: "danger", "aria-label": `Remove ${name}`, onclick: () => remove(name) },
      "Remove",
    );
  }

  /** @param {string} name of a voice that the running engine cannot speak */
  function otherCard(name) {
    return h(
      "li",
      { class: "card stack" },
      h("div", { class: "voice-head" }, h("h3", {}, name), h("span", { class: "badge" }, "for other engines")),
      h("div", { class: "actions" }, removeButton(name)),
      voiceDetails(name),
    );
  }

  /** @param {import("../lib/server.js").Voice} voice */
  function card(voice) {
    const listenButton = h("button", { type: "button", "aria-label": `Listen to ${voice.name}` }, "Listen");
    listenButton.addEventListener("click", () => listen(voice, listenButton));
    const aliases = voice.aliases.length ? `also: ${voice.aliases.join(", ")}` : "";
    const names = [voice.language, aliases].filter(Boolean).join(" · ");
    return h(
      "li",
      { class: "card stack" },
      h(
        "div",
        { class: "voice-head" },
        h("h3", {}, voice.name),
        h("span", { class: "badge" }, voice.synthetic ? "synthetic" : "a person’s"),
        voice.cloned && h("span", { class: "badge" }, "cloned"),
      ),
      voice.description && h("p", {}, voice.description),
      names && h("p", { class: "hint" }, names),
      h("div", { class: "actions" }, listenButton, isOperator && voice.name !== "default" && removeButton(voice.name)),
      isOperator && voiceDetails(voice.name),
    );
  }

  panel.append(
    h("h2", {}, "Voices"),
    status.element,
    list,
    isOperator ? voiceForm(server, () => (forgetVoices(), draw())) : forOperators(server.role),
  );
  await draw();
  return { show: draw, hide: () => heard?.player.pause() };
}

/** @param {"client" | null} role */
function forOperators(role) {
  const why =
    role === null
      ? "Voices are added and removed with an operator’s API key. This server has no keys: make one on its host; from then on every request needs a key."
      : "Voices are added and removed with an operator’s API key. Yours is a client’s.";
  return h(
    "section",
    { class: "card stack", "aria-label": "Add a voice" },
    h("h3", {}, "Add a voice"),
    h("p", {}, why),
    h("p", {}, h("code", {}, "chorus keys add ops --role operator")),
    h("p", { class: "hint" }, "On the host itself, “chorus voices add” does the same without a key."),
    h(
      "div",
      { class: "actions" },
      h("button", { type: "button", onclick: () => showKeyDialog() }, "I have an operator’s key"),
    ),
  );
}
