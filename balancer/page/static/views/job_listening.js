/** Listens to a job: to WAV and PCM also while it is made, by Web Audio; to other formats by the browser's player. */
import { request } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { samplesOf } from "../lib/pcm.js";
import { Player } from "../lib/player.js";
import { Recording } from "../lib/recording.js";
import { clock } from "../lib/words.js";
import { waveform } from "../lib/waveform.js";

const FINAL = ["done", "failed", "cancelled"];

/**
 * @param {import("../lib/job_list.js").Job} job
 * @param {import("../lib/server.js").Capabilities} server
 * @param {ReturnType<typeof import("../lib/dom.js").statusLine>} status
 */
export function jobListening(job, server, status) {
  const isPcm = job.format === "wav" || job.format === "pcm";
  const wave = waveform();
  const time = h("span", { class: "time" });
  const playButton = h("button", { type: "button", class: "round", "aria-label": `Play: ${job.title}` });
  const strip = h("div", { class: "player-row", hidden: true }, playButton, wave.element, time);
  const audio = h("audio", { controls: true, hidden: true, "aria-label": job.title });
  const button = h(
    "button",
    { type: "button", hidden: true, onclick: listen, "aria-label": `Listen: ${job.title}` },
    "Listen",
  );
  /** @type {Player | null} */
  let player = null;
  let found = null;
  let listening = false;

  playButton.addEventListener("click", () => (player.playing ? player.pause() : player.play()));

  async function listen() {
    listening = true;
    button.hidden = true;
    try {
      await (isPcm ? listenToPcm() : listenToFile());
    } catch (error) {
      listening = false;
      button.hidden = false;
      status.fail(error);
    }
  }

  async function listenToFile() {
    audio.hidden = false;
    if (server.role === null) audio.src = `audio/${job.id}?stream=true`;
    else audio.src = URL.createObjectURL(await (await request(`audio/${job.id}`)).blob());
    await audio.play();
  }

  async function listenToPcm() {
    const response = await request(`audio/${job.id}?stream=true`);
    const recording = new Recording(server.sampleRate);
    const own = new Player(recording);
    player = own;
    own.addEventListener("change", changed);
    strip.hidden = false;
    wave.show(own, found?.secondsDone ?? 0);
    try {
      for await (const samples of samplesOf(response, { wav: job.format === "wav" })) {
        const first = recording.length === 0;
        recording.append(samples);
        if (first) own.play();
        own.update();
        wave.draw();
      }
    } finally {
      recording.complete = true;
      own.update();
      wave.draw();
    }
  }

  function changed() {
    playButton.classList.toggle("playing", player.playing);
    playButton.setAttribute("aria-label", `${player.playing ? "Pause" : "Play"}: ${job.title}`);
    tick();
  }

  function tick() {
    wave.draw();
    time.textContent = `${clock(player.position)} / ${clock(Math.max(player.recording.seconds, found?.secondsDone ?? 0))}`;
    if (player.playing) requestAnimationFrame(tick);
  }

  return {
    button,
    element: h("div", {}, strip, audio),
    /** @param {any} latest as `GET /status/{id}` answers */
    update(latest) {
      found = latest;
      const ready =
        found.state === "done" ||
        (found.secondsPlayable > 0 && !FINAL.includes(found.state) && (isPcm || server.role === null));
      button.hidden = !ready || listening;
    },
    pause() {
      player?.pause();
      audio.pause();
    },
  };
}
