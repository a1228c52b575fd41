/** Audio that grows while it is received: signed 16-bit mono PCM, and its loudness by blocks for the waveform. */

const BLOCK = 256;
const FULL_SCALE = 32768;
const WAV_HEADER_BYTES = 44;

export class Recording {
  /** @param {number} rate samples per second */
  constructor(rate) {
    this.rate = rate;
    this.length = 0;
    this.complete = false;
    /** @type {Int16Array[]} */
    this.chunks = [];
    /** @type {number[]} the loudest sample of each block, from 0 to 1 */
    this.levels = [];
  }

  #inBlock = 0;

  get seconds() {
    return this.length / this.rate;
  }

  /** @param {Int16Array} samples */
  append(samples) {
    this.chunks.push(samples);
    this.length += samples.length;
    for (let index = 0; index < samples.length; index += 1) {
      if (this.#inBlock === 0) this.levels.push(0);
      const level = Math.abs(samples[index]) / FULL_SCALE;
      if (level > this.levels[this.levels.length - 1]) this.levels[this.levels.length - 1] = level;
      this.#inBlock = (this.#inBlock + 1) % BLOCK;
    }
  }

  /**
   * The loudest sample between two moments.
   * @param {number} from in seconds
   * @param {number} to
   */
  level(from, to) {
    const first = Math.floor((from * this.rate) / BLOCK);
    const last = Math.max(first + 1, Math.ceil((to * this.rate) / BLOCK));
    let loudest = 0;
    for (let block = first; block < last && block < this.levels.length; block += 1) {
      if (this.levels[block] > loudest) loudest = this.levels[block];
    }
    return loudest;
  }

  /**
   * The samples from a place on, in [-1, 1].
   * @param {number} start index of the first
   * @param {number} most how many, at most
   */
  floats(start, most) {
    const result = new Float32Array(Math.max(0, Math.min(most, this.length - start)));
    let place = 0;
    for (const chunk of this.chunks) {
      const end = Math.min(chunk.length, start + result.length - place);
      for (let index = Math.max(0, start - place); index < end; index += 1) {
        result[place + index - start] = chunk[index] / FULL_SCALE;
      }
      place += chunk.length;
    }
    return result;
  }

  /** The recording as a WAV file. */
  wav() {
    return wavOf(this.chunks, this.length, this.rate);
  }
}

/**
 * A WAV file of mono PCM.
 * @param {Int16Array[]} chunks
 * @param {number} length samples in all
 * @param {number} rate
 */
export function wavOf(chunks, length, rate) {
  const header = new DataView(new ArrayBuffer(WAV_HEADER_BYTES));
  const ascii = (at, text) => [...text].forEach((letter, index) => header.setUint8(at + index, letter.charCodeAt(0)));
  ascii(0, "RIFF");
  header.setUint32(4, WAV_HEADER_BYTES - 8 + 2 * length, true);
  ascii(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true);
  header.setUint16(22, 1, true);
  header.setUint32(24, rate, true);
  header.setUint32(28, 2 * rate, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  ascii(36, "data");
  header.setUint32(40, 2 * length, true);
  return new Blob([header, ...chunks], { type: "audio/wav" });
}
