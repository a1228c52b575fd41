/** The takes of this page, newest first, to compare. They are kept in memory, and only the last ones. */
import { h } from "../lib/dom.js";
import { beginning, clock, duration } from "../lib/words.js";

const MAX_TAKES = 12;
const MAX_SAMPLES = 24_000 * 60 * 20;

/** @param {(take: import("../lib/speech.js").Take) => {play: () => void}} onChoose */
export function takeList(onChoose) {
  /** @type {import("../lib/speech.js").Take[]} */
  let takes = [];
  const list = h("ul", { class: "rows" });
  const element = h(
    "section",
    { class: "card stack", hidden: true, "aria-label": "Takes" },
    h("h3", {}, "Takes"),
    h("p", { class: "hint" }, "What this page has spoken, to compare. They are gone when it is closed."),
    list,
  );

  function draw() {
    element.hidden = takes.length === 0;
    list.replaceChildren(...takes.map(row));
  }

  function row(take) {
    const { text, voice, seed, speed, ...others } = take.body;
    const facts = [
      voice,
      `seed ${seed}`,
      speed && `speed ${speed}`,
      ...Object.entries(others).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`),
      clock(take.recording.seconds),
      `first sound ${duration(take.firstSound)}`,
    ];
    return h(
      "li",
      { class: "row" },
      h(
        "div",
        { class: "row-text" },
        h("span", { class: "row-title" }, beginning(text)),
        h("span", { class: "hint" }, facts.filter(Boolean).join(" · ")),
      ),
      h(
        "div",
        { class: "actions" },
        h(
          "button",
          {
            type: "button",
            onclick: () => onChoose(take).play(),
            "aria-label": `Play: ${beginning(text, 40)}, seed ${seed}`,
          },
          "Play",
        ),
        h(
          "button",
          {
            type: "button",
            class: "link",
            "aria-label": `Remove: ${beginning(text, 40)}, seed ${seed}`,
            onclick: () => {
              takes = takes.filter((other) => other !== take);
              draw();
            },
          },
          "Remove",
        ),
      ),
    );
  }

  return {
    element,
    /** @param {import("../lib/speech.js").Take} take */
    add(take) {
      takes = [take, ...takes].slice(0, MAX_TAKES);
      let samples = 0;
      takes = takes.filter(({ recording }, place) => (samples += recording.length) <= MAX_SAMPLES || place === 0);
      draw();
    },
  };
}
