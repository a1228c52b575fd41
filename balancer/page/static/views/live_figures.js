/** The few numbers that are looked at first. */
import { h } from "../lib/dom.js";
import { count, counted, duration } from "../lib/words.js";

const dash = "–";

export function figures() {
  const element = h("dl", { class: "figures" });

  /**
   * @param {any} health
   * @param {any} history
   */
  function update(health, history) {
    const minute = history.lastMinute;
    const { interactive = 0, batch = 0 } = health.queueDepths;
    const streams = history.seconds.streams.running.at(-1) ?? 0;
    const slots = health.slots - health.freeSlots;
    const shown = [
      ["Slots in use", `${slots} of ${health.slots}`, counted(health.workers.length, "worker")],
      ["Waiting", count(interactive + batch), `${count(interactive)} interactive, ${count(batch)} batch`],
      ["Streams", count(Math.round(streams)), minute ? counted(minute.streams.gaps, "gap") + " in a minute" : dash],
      ["First sound", seconds(minute?.firstSound.p50), within(minute?.firstSound)],
      ["Whole answers", seconds(minute?.answer.p50), within(minute?.answer)],
      [
        "Audio per second",
        minute ? duration(minute.audioSeconds / minute.seconds) : dash,
        minute ? `${counted(minute.requests.speech.ok, "answer")} in a minute` : dash,
      ],
    ];
    element.replaceChildren(
      ...shown.map(([name, value, more]) =>
        h("div", { class: "figure" }, h("dt", {}, name), h("dd", {}, value), h("dd", {}, more)),
      ),
    );
  }

  return { element, update };
}

/** @param {number | null | undefined} value */
function seconds(value) {
  return typeof value === "number" ? duration(value) : dash;
}

/** @param {{p95: number | null} | undefined} percentiles */
function within(percentiles) {
  return typeof percentiles?.p95 === "number" ? `95 % within ${duration(percentiles.p95)}` : "none in the last minute";
}
