/** Draws a recording with a cursor; a click, a drag or the arrow keys move the cursor. */
import { h } from "./dom.js";
import { clock } from "./words.js";

const BAR = 3;
const GAP = 2;
const STEP_SECONDS = 1;

/**
 * @typedef {{element: HTMLElement, show: (player: import("./player.js").Player | null, expected?: number) => void, draw: () => void}} Waveform
 */

/** @returns {Waveform} */
export function waveform() {
  const canvas = h("canvas", { "aria-hidden": "true" });
  const element = h(
    "div",
    { class: "waveform", role: "slider", tabIndex: 0, "aria-label": "Position", "aria-valuemin": "0" },
    canvas,
  );
  /** @type {import("./player.js").Player | null} */
  let player = null;
  let expected = 0;

  const total = () =>
    player === null
      ? 0
      : player.recording.complete
        ? player.recording.seconds
        : Math.max(expected, player.recording.seconds);

  function draw() {
    describe();
    const { width, height } = element.getBoundingClientRect();
    const scale = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    const colours = getComputedStyle(element);
    const played = colours.getPropertyValue("--accent");
    const ahead = colours.getPropertyValue("--wave");
    const empty = colours.getPropertyValue("--line");
    const seconds = total();
    const position = player?.position ?? 0;
    const bars = Math.max(1, Math.floor(width / (BAR + GAP)));
    for (let bar = 0; bar < bars; bar += 1) {
      const from = (seconds * bar) / bars;
      const to = (seconds * (bar + 1)) / bars;
      const there = player !== null && from < player.recording.seconds;
      const level = there ? Math.sqrt(player.recording.level(from, to)) : 0;
      const tall = Math.max(BAR, level * (height - 8));
      context.fillStyle = !there ? empty : to <= position ? played : ahead;
      context.beginPath();
      context.roundRect(bar * (BAR + GAP), (height - tall) / 2, BAR, tall, BAR / 2);
      context.fill();
    }
    if (player !== null && seconds > 0) {
      context.fillStyle = played;
      context.fillRect(Math.min(width - 2, (position / seconds) * width), 2, 2, height - 4);
    }
  }

  function describe() {
    element.setAttribute("aria-valuemax", total().toFixed(1));
    element.setAttribute("aria-valuenow", (player?.position ?? 0).toFixed(1));
    element.setAttribute(
      "aria-valuetext",
      player === null ? "Nothing to play" : `${clock(player.position)} of ${clock(total())}`,
    );
  }

  /** @param {PointerEvent} event */
  function seekTo(event) {
    const { left, width } = element.getBoundingClientRect();
    player?.seek(((event.clientX - left) / width) * total());
    draw();
  }

  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    seekTo(event);
  });
  element.addEventListener("pointermove", (event) => {
    if (element.hasPointerCapture(event.pointerId)) seekTo(event);
  });
  element.addEventListener("keydown", (event) => {
    if (player === null) return;
    const places = {
      ArrowLeft: player.position - STEP_SECONDS,
      ArrowDown: player.position - STEP_SECONDS,
      ArrowRight: player.position + STEP_SECONDS,
      ArrowUp: player.position + STEP_SECONDS,
      Home: 0,
      End: total(),
    };
    if (!(event.key in places)) return;
    event.preventDefault();
    player.seek(places[event.key]);
    draw();
  });
  new ResizeObserver(draw).observe(element);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  return {
    element,
    show(shown, seconds = 0) {
      player = shown;
      expected = seconds;
      draw();
    },
    draw,
  };
}
