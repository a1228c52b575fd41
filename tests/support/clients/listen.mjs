// The client of a web app: queues a text, follows the job's events, and listens to it while it is made.
import { writeFile } from "node:fs/promises";

const [base, text, file] = process.argv.slice(2);
const queued = await fetch(`${base}/queue`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ text, character: "default", format: "mp3" }),
});
if (queued.status !== 202) throw new Error(`HTTP ${queued.status}: ${await queued.text()}`);
const { requestId, statusUrl } = await queued.json();

const listening = fetch(`${base}/audio/${requestId}?stream=true`).then(async (audio) => {
  if (!audio.ok) throw new Error(`HTTP ${audio.status}`);
  await writeFile(file, Buffer.from(await audio.arrayBuffer()));
});
const events = await (await fetch(statusUrl, { headers: { Accept: "text/event-stream" } })).text();
await listening;
const statuses = events.split("\n").filter((line) => line.startsWith("data: ")).map((line) => JSON.parse(line.slice(6)));
const running = statuses.filter((status) => status.state === "running").map((status) => status.secondsDone);
console.log(JSON.stringify({
  last: statuses.at(-1),
  streamable: statuses.filter((status) => status.streamUrl !== null).length,
  rising: running.every((seconds, index) => index === 0 || seconds >= running[index - 1]),
}));
