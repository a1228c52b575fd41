/** How a text will be spoken: its characters, segments and length, as the server sees them. */
import { requestJson } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { count, counted, duration } from "../lib/words.js";

const TYPING_MS = 350;

/** @param {number} limit characters of a text, at most */
export function preview(limit) {
  const counter = h("p", { class: "hint counter", "aria-live": "off" });
  const list = h("ol", { class: "segments" });
  const element = h(
    "details",
    { class: "card" },
    h("summary", {}, "Segments, as they will be spoken"),
    h("p", { class: "hint" }, "Each is made by one worker. Numbers and abbreviations are in words, markup is gone."),
    list,
  );
  let seconds = 0;
  let timer = 0;
  /** @type {AbortController | null} */
  let asking = null;

  function countOnly(length, rest = "") {
    counter.textContent = `${count(length)} of ${count(limit)} characters${rest}`;
    counter.classList.toggle("fault", length > limit);
  }

  async function ask(body) {
    asking?.abort();
    const own = new AbortController();
    asking = own;
    try {
      const found = await requestJson("segments", { json: body, signal: own.signal, ask: false });
      seconds = found.seconds;
      countOnly(body.text.length, ` · ${counted(found.segments.length, "segment")} · about ${duration(seconds)}`);
      list.replaceChildren(
        ...found.segments.map((segment) =>
          h(
            "li",
            {},
            segment.text,
            segment.pauseSeconds ? h("span", { class: "pause" }, duration(segment.pauseSeconds)) : null,
          ),
        ),
      );
    } catch (error) {
      if (own.signal.aborted) return;
      list.replaceChildren();
      counter.textContent = `${counter.textContent} · ${error.message}`;
      counter.classList.add("fault");
    }
  }

  return {
    counter,
    element,
    seconds: () => seconds,
    /** @param {Record<string, unknown> & {text: string}} body of `POST /tts` */
    update(body) {
      clearTimeout(timer);
      countOnly(body.text.length);
      if (!body.text.trim() || body.text.length > limit) {
        asking?.abort();
        list.replaceChildren();
        return;
      }
      timer = setTimeout(() => ask(body), TYPING_MS);
    },
  };
}
