// The OpenAI client for Node hears streams in each format, and as events. Arguments: URL of the server, text.
import OpenAI from "openai";

const [url, input] = process.argv.slice(2);
const client = new OpenAI({ apiKey: "none needed", baseURL: `${url}/v1`, maxRetries: 0 });
const formats = ["pcm", "wav", "mp3", "opus", "aac", "flac"];

for (const format of [...formats, "sse"]) {
  const sse = format === "sse";
  const began = performance.now();
  let first = 0, bytes = 0, seconds = 0;
  try {
    const response = await client.audio.speech.create({
      model: "gpt-4o-mini-tts", voice: "alloy", input, response_format: sse ? "pcm" : format,
      ...(sse ? { stream_format: "sse" } : {}),
    });
    let text = "";
    const decoder = new TextDecoder();
    for await (const piece of response.body) {
      first ||= performance.now() - began;
      bytes += piece.length;
      if (sse) text += decoder.decode(piece, { stream: true });
    }
    if (sse) {
      const events = text.split("\n").filter((line) => line.startsWith("data: ")).map((line) => JSON.parse(line.slice(6)));
      if (events.at(-1)?.type !== "speech.audio.done") throw new Error("no speech.audio.done at the end");
      bytes = events.slice(0, -1).reduce((sum, event) => sum + Buffer.from(event.audio, "base64").length, 0);
    }
    if (format === "pcm" || sse) seconds = bytes / 48000;
    else if (format === "wav") seconds = (bytes - 44) / 48000;
    else seconds = null;
    console.log(JSON.stringify({ name: format, first: first / 1000, end: (performance.now() - began) / 1000, seconds }));
  } catch (error) {
    console.log(JSON.stringify({ name: format, error: String(error.message) }));
  }
}
