// The client of a web app: reads speech while it is made, and writes it to a file. Prints how it came.
import { writeFile } from "node:fs/promises";

const [base, text, file] = process.argv.slice(2);
const response = await fetch(`${base}/tts`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ text, character: "default", format: "mp3", stream: true }),
});
if (!response.ok) throw new Error(`HTTP ${response.status}: ${await response.text()}`);
const pieces = [];
for await (const piece of response.body) pieces.push(piece);
await writeFile(file, Buffer.concat(pieces));
console.log(JSON.stringify({ pieces: pieces.length, length: response.headers.get("Content-Length") }));
