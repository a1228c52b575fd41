/** Has the server speak, and receives the audio while it is made. */
import { request } from "./api.js";
import { samplesOf } from "./pcm.js";
import { Recording } from "./recording.js";

/**
 * A take: what was asked for, and its audio.
 * @typedef {{body: Record<string, unknown>, recording: Recording, startedAt: number, firstSound?: number, made?: number}} Take
 * `body` is one of `POST /tts`; times are seconds.
 */

/**
 * Speaks a body of `POST /tts`; resolves with the first sound, and `finished` with the last.
 * @param {Record<string, unknown>} body
 * @param {number} rate the engine's samples per second
 * @param {AbortSignal} signal
 * @param {(take: Take) => void} onSound called with each piece
 * @returns {Promise<Take>}
 */
export async function speak(body, rate, signal, onSound) {
  const startedAt = performance.now();
  const response = await request("tts", { json: { ...body, format: "pcm", stream: true }, signal });
  /** @type {Take} */
  const take = { body, recording: new Recording(rate), startedAt };
  const elapsed = () => (performance.now() - startedAt) / 1000;
  try {
    for await (const samples of samplesOf(response)) {
      take.firstSound ??= elapsed();
      take.recording.append(samples);
      onSound(take);
    }
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Error("The audio broke off before its end. Try again.", { cause: error });
  } finally {
    take.recording.complete = true;
    take.made = elapsed();
  }
  return take;
}

/**
 * A take as a file. WAV and PCM are here already; the server encodes the others from the same seed.
 * @param {Take} take
 * @param {string} format
 * @returns {Promise<Blob>}
 */
export async function fileOf(take, format) {
  if (format === "wav") return take.recording.wav();
  if (format === "pcm") return new Blob(take.recording.chunks, { type: "audio/pcm" });
  const response = await request("tts", { json: { ...take.body, format, stream: true } });
  return response.blob();
}
