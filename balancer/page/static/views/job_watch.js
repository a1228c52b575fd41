/** Follows a job by its stream of events; where too many are open already, by asking now and then. */
import { requestJson } from "../lib/api.js";
import { events } from "../lib/events.js";

/** A browser has six connections to a server, of which the others are for what the user does. */
const MAX_STREAMS = 2;
/** Between two requests for any of the other jobs: with many jobs, each is asked for less often. */
const POLL_MS = 2000;
const AGAIN_MS = 1000;
const FINAL = ["done", "failed", "cancelled"];

let streams = 0;
let polled = 0;

/**
 * Resolves when the job has ended.
 * @param {string} id
 * @param {AbortSignal} signal
 * @param {(status: any) => void} onStatus
 */
export async function watchJob(id, signal, onStatus) {
  const path = `status/${encodeURIComponent(id)}`;
  for (;;) {
    let status;
    if (streams < MAX_STREAMS) {
      streams += 1;
      try {
        for await (const { name, data } of events(path, signal)) {
          if (name !== "status") continue;
          status = data;
          onStatus(data);
        }
      } catch (error) {
        // A stream ends with each restart of the server; whether the job is still there, the next request tells.
        if (signal.aborted || error.status === 404 || error.status === 401) throw error;
      } finally {
        streams -= 1;
      }
      await pause(AGAIN_MS, signal);
    } else {
      polled += 1;
      try {
        await pause(POLL_MS * polled, signal);
        status = await requestJson(path, { signal });
      } finally {
        polled -= 1;
      }
      onStatus(status);
    }
    if (status && FINAL.includes(status.state)) return;
  }
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
