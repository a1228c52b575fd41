/** Reads PCM from a response, while it comes. */

const WAV_HEADER_BYTES = 44;

/**
 * The samples of a response whose body is signed 16-bit little-endian mono PCM, in pieces.
 * @param {Response} response
 * @param {{wav?: boolean}} [options] `wav`: the body is a WAV file, whose header is skipped
 * @returns {AsyncGenerator<Int16Array>}
 */
export async function* samplesOf(response, { wav = false } = {}) {
  const reader = response.body.getReader();
  let skipped = wav ? WAV_HEADER_BYTES : 0;
  let rest = new Uint8Array(0);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      let bytes = value;
      if (skipped) {
        const now = Math.min(skipped, bytes.length);
        skipped -= now;
        bytes = bytes.subarray(now);
      }
      const joined = new Uint8Array(rest.length + bytes.length);
      joined.set(rest);
      joined.set(bytes, rest.length);
      const even = joined.length - (joined.length % 2);
      rest = joined.slice(even);
      if (even) yield new Int16Array(joined.buffer.slice(0, even));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
