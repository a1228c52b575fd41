/** The card that plays one take: waveform, download, and the request to copy. */
import { h, select, statusLine, save } from "../lib/dom.js";
import { Player } from "../lib/player.js";
import { snippets } from "../lib/snippets.js";
import { fileOf } from "../lib/speech.js";
import { waveform } from "../lib/waveform.js";
import { clock } from "../lib/words.js";

/** @param {{withKey: boolean, formats: string[]}} options */
export function playerCard({ withKey, formats }) {
  /** @type {import("../lib/speech.js").Take | null} */
  let take = null;
  /** @type {Player | null} */
  let player = null;

  const wave = waveform();
  const status = statusLine();
  const time = h("span", { class: "time" }, "0:00");
  const playButton = h("button", {
    type: "button",
    class: "round",
    onclick: toggle,
    disabled: true,
    "aria-label": "Play",
  });
  const format = select(
    formats.map((value) => ({ value, label: value.toUpperCase() })),
    "wav",
  );
  format.setAttribute("aria-label", "Format");
  const downloadButton = h("button", { type: "button", onclick: download, disabled: true }, "Download");
  const copyButtons = ["curl", "Python", "JavaScript"].map((language) =>
    h("button", { type: "button", class: "chip", disabled: true, onclick: () => copy(language) }, language),
  );

  const element = h(
    "div",
    { class: "card stack player" },
    h("div", { class: "player-row" }, playButton, wave.element, time),
    h(
      "div",
      { class: "actions spread" },
      h("div", { class: "actions" }, format, downloadButton),
      h("div", { class: "actions" }, h("span", { class: "hint" }, "Copy as"), ...copyButtons),
    ),
    status.element,
  );

  function toggle() {
    if (player?.playing) player.pause();
    else player?.play();
  }

  async function download() {
    status.say("");
    try {
      save(await fileOf(take, format.value), `chorus-${take.body.seed}.${format.value}`);
    } catch (error) {
      status.fail(error);
    }
  }

  async function copy(language) {
    const text = snippets({ ...take.body, format: format.value }, { withKey })[language];
    try {
      await navigator.clipboard.writeText(text);
      status.say(`The request is in the clipboard, as ${language}.`);
    } catch {
      status.fail("The browser does not let this page write to the clipboard.");
    }
  }

  function tick() {
    wave.draw();
    time.textContent = `${clock(player.position)} / ${clock(player.recording.seconds)}`;
    if (player.playing) requestAnimationFrame(tick);
  }

  function changed() {
    playButton.classList.toggle("playing", player.playing);
    playButton.setAttribute("aria-label", player.playing ? "Pause" : "Play");
    tick();
  }

  const card = {
    element,
    /**
     * @param {import("../lib/speech.js").Take} shown
     * @param {number} [expected] seconds that it will have, about
     */
    show(shown, expected = 0) {
      player?.pause();
      take = shown;
      player = new Player(shown.recording);
      player.addEventListener("change", changed);
      for (const button of [playButton, ...copyButtons]) button.disabled = false;
      downloadButton.disabled = !shown.recording.complete;
      status.say("");
      wave.show(player, expected);
      changed();
      return card;
    },
    play: () => player?.play(),
    pause: () => player?.pause(),
    /** The take has grown, or is complete. */
    update() {
      if (player === null) return;
      player.update();
      downloadButton.disabled = !take.recording.complete || take.recording.length === 0;
      tick();
    },
  };
  return card;
}
