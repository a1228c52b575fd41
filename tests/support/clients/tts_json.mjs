// The client of a web app: requests speech as JSON, and writes the audio to a file.
import { writeFile } from "node:fs/promises";

const [base, text, file] = process.argv.slice(2);
const response = await fetch(`${base}/tts-json`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ text, character: "default" }),
});
if (!response.ok) throw new Error(`HTTP ${response.status}: ${await response.text()}`);
const answer = await response.json();
await writeFile(file, Buffer.from(answer.audio, "base64"));
console.log(JSON.stringify({ ...answer, audio: undefined }));
