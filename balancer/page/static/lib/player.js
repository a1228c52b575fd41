/** Plays a recording by Web Audio, also while it still grows, from any place that is there. */

const LEAD_SECONDS = 0.08;
const PIECE_SECONDS = 10;
/** Seconds that are handed to the device ahead of time: an hour as floats would fill the memory. */
const AHEAD_SECONDS = 20;

/** Events: `change` when playing begins, pauses or ends. */
export class Player extends EventTarget {
  /** @type {AudioContext | null} */
  static #context = null;
  /** @type {Player | null} the one that is heard: only one is at a time */
  static #heard = null;

  /** @param {import("./recording.js").Recording} recording */
  constructor(recording) {
    super();
    this.recording = recording;
    this.playing = false;
  }

  /** Where it plays on, in samples, while it does not play. */
  #place = 0;
  /** Samples up to here have been handed to the device. */
  #scheduled = 0;
  /** When the next sample is due, on the context's clock. */
  #due = 0;
  /** @type {{at: number, first: number, length: number}[]} what was handed to the device, in order */
  #pieces = [];
  /** @type {Set<AudioBufferSourceNode>} */
  #sources = new Set();

  /** Where it plays or would play on, in seconds. */
  get position() {
    return (this.playing ? this.#now() : this.#place) / this.recording.rate;
  }

  /** Plays on, from the beginning if it had come to the end. */
  async play() {
    if (this.playing) return;
    Player.#heard?.pause();
    Player.#heard = this;
    const { rate } = this.recording;
    if (Player.#context?.sampleRate !== rate) {
      Player.#context?.close();
      Player.#context = new AudioContext({ sampleRate: rate });
    }
    if (this.recording.complete && this.#place >= this.recording.length) this.#place = 0;
    this.playing = true;
    this.#start(this.#place);
    this.dispatchEvent(new Event("change"));
    await Player.#context.resume();
  }

  pause() {
    if (!this.playing) return;
    this.#place = Math.min(this.#now(), this.recording.length);
    this.playing = false;
    this.#silence();
    if (Player.#heard === this) Player.#heard = null;
    this.dispatchEvent(new Event("change"));
  }

  /** @param {number} seconds */
  seek(seconds) {
    const place = Math.round(Math.min(Math.max(0, seconds), this.recording.seconds) * this.recording.rate);
    if (this.playing) {
      this.#silence();
      this.#start(place);
    } else this.#place = place;
    this.dispatchEvent(new Event("change"));
  }

  /** The recording has grown, or is complete. */
  update() {
    if (!this.playing) return;
    this.#schedule();
    this.#endIfOver();
  }

  /** @param {number} place */
  #start(place) {
    this.#pieces = [];
    this.#scheduled = place;
    this.#due = 0;
    this.#place = place;
    this.#schedule();
  }

  #schedule() {
    const context = Player.#context;
    const { rate, length } = this.recording;
    while (this.#scheduled < length && this.#due < context.currentTime + AHEAD_SECONDS) {
      const samples = this.recording.floats(this.#scheduled, PIECE_SECONDS * rate);
      const buffer = context.createBuffer(1, samples.length, rate);
      buffer.copyToChannel(samples, 0);
      const source = new AudioBufferSourceNode(context, { buffer });
      // Late audio, behind a gap, begins a little later: the pieces that follow then do not come too late.
      const at = Math.max(this.#due, context.currentTime + LEAD_SECONDS);
      source.connect(context.destination);
      source.start(at);
      source.addEventListener("ended", () => {
        if (!this.#sources.delete(source)) return;
        this.#schedule();
        this.#endIfOver();
      });
      this.#sources.add(source);
      this.#pieces.push({ at, first: this.#scheduled, length: samples.length });
      this.#scheduled += samples.length;
      this.#due = at + buffer.duration;
    }
  }

  #silence() {
    const sources = [...this.#sources];
    this.#sources.clear();
    for (const source of sources) source.stop();
  }

  #endIfOver() {
    if (!this.playing || this.#sources.size || !this.recording.complete) return;
    this.#place = this.recording.length;
    this.playing = false;
    if (Player.#heard === this) Player.#heard = null;
    this.dispatchEvent(new Event("change"));
  }

  /** The sample that is heard now. */
  #now() {
    const time = Player.#context.currentTime;
    let place = this.#place;
    for (const { at, first, length } of this.#pieces) {
      if (at > time) break;
      place = first + Math.min(length, Math.floor((time - at) * this.recording.rate));
    }
    return place;
  }
}
