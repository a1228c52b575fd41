// The client of a web app: queues a text, polls its status until it is ready, and fetches the audio.
import { writeFile } from "node:fs/promises";

const [base, text, file] = process.argv.slice(2);
const queued = await fetch(`${base}/queue`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ text, character: "default", userId: "user-1" }),
});
if (queued.status !== 202) throw new Error(`HTTP ${queued.status}: ${await queued.text()}`);
const { requestId } = await queued.json();
let status;
do {
  await new Promise((resolve) => setTimeout(resolve, 100));
  status = await (await fetch(`${base}/status/${requestId}`)).json();
} while (!status.ready && status.state !== "failed");
if (!status.ready) throw new Error(JSON.stringify(status));
const audio = await fetch(new URL(status.audioUrl, base));
if (!audio.ok) throw new Error(`HTTP ${audio.status}`);
await writeFile(file, Buffer.from(await audio.arrayBuffer()));
console.log(JSON.stringify(status));
