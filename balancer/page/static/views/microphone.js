/** Records from the microphone, with a level meter, into a WAV file. */
import { h, statusLine } from "../lib/dom.js";
import { wavOf } from "../lib/recording.js";
import { clock } from "../lib/words.js";

const MAX_SECONDS = 30;
const WANTED_SECONDS = 10;
const FULL_SCALE = 32767;
const CLIPPED = 0.99;
const QUIET = 0.05;

/** @param {(wav: Blob) => void} onRecorded */
export function recorder(onRecorded) {
  const status = statusLine();
  const meter = h("meter", {
    class: "meter",
    min: 0,
    max: 1,
    low: QUIET,
    high: 0.9,
    optimum: 0.5,
    value: 0,
    "aria-label": "Level",
  });
  const button = h("button", { type: "button", onclick: toggle }, "Record from the microphone");
  const element = h("div", { class: "stack" }, h("div", { class: "actions" }, button), meter, status.element);
  meter.hidden = true;
  /** @type {(() => void) | null} */
  let stop = null;

  async function toggle() {
    if (stop !== null) {
      stop();
      return;
    }
    if (!navigator.mediaDevices) {
      status.fail("The browser lends a microphone only to pages that come by HTTPS, or from this host.");
      return;
    }
    try {
      // What a telephone call needs would spoil the voice.
      const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
      record(await navigator.mediaDevices.getUserMedia({ audio }));
    } catch (error) {
      status.fail(
        error.name === "NotAllowedError"
          ? "The browser was not allowed to use the microphone."
          : "There is no microphone.",
      );
    }
  }

  /** @param {MediaStream} stream */
  function record(stream) {
    const media = new MediaRecorder(stream);
    const context = new AudioContext();
    const analyser = new AnalyserNode(context, { fftSize: 2048 });
    context.createMediaStreamSource(stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    /** @type {Blob[]} */
    const parts = [];
    const begun = performance.now();
    let loudest = 0;
    let running = true;
    button.textContent = "Stop";
    meter.hidden = false;

    function measure() {
      if (!running) return;
      analyser.getFloatTimeDomainData(samples);
      const level = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
      loudest = Math.max(loudest, level);
      meter.value = level;
      const seconds = (performance.now() - begun) / 1000;
      const advice =
        loudest > CLIPPED
          ? "It is too loud: move back."
          : loudest < QUIET
            ? "It is very quiet."
            : seconds < WANTED_SECONDS
              ? "Go on, to 10 s or more."
              : "That is enough.";
      status.say(`${clock(seconds)} · ${advice}`);
      if (seconds >= MAX_SECONDS) stop();
      else requestAnimationFrame(measure);
    }

    media.addEventListener("dataavailable", (event) => parts.push(event.data));
    media.addEventListener("stop", async () => {
      const decoded = await context.decodeAudioData(await new Blob(parts).arrayBuffer());
      await context.close();
      onRecorded(wavOf([pcmOf(decoded)], decoded.length, decoded.sampleRate));
      status.say(`Recorded ${clock(decoded.duration)}. Listen to it before you add it.`);
    });
    stop = () => {
      stop = null;
      running = false;
      media.stop();
      for (const track of stream.getTracks()) track.stop();
      meter.hidden = true;
      button.textContent = "Record again";
    };
    media.start();
    measure();
  }

  return { element };
}

/** The first channel as signed 16-bit samples. @param {AudioBuffer} buffer */
function pcmOf(buffer) {
  return Int16Array.from(buffer.getChannelData(0), (sample) => Math.max(-1, Math.min(1, sample)) * FULL_SCALE);
}
