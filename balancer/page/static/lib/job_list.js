/** The jobs that this browser has queued. The server tells of a job only to who knows its id, so the ids are kept. */

const STORED_AS = "chorus.jobs";
const MAX_JOBS = 100;

/**
 * `body` is one of `POST /queue`, to queue it again; it is not stored, for it may be a book.
 * @typedef {{id: string, title: string, format: string, body?: Record<string, unknown>}} Job
 */

/** @type {Job[] | null} */
let jobs = null;

/** Newest first. @returns {Job[]} */
export function knownJobs() {
  jobs ??= stored();
  return jobs;
}

/** @param {Job} job */
export function remember(job) {
  jobs = [job, ...knownJobs()].slice(0, MAX_JOBS);
  store();
}

/** @param {string} id */
export function forget(id) {
  jobs = knownJobs().filter((job) => job.id !== id);
  store();
}

/** @returns {Job[]} */
function stored() {
  try {
    const found = JSON.parse(localStorage.getItem(STORED_AS) ?? "[]");
    return found.map(({ id, title, format }) => ({ id: String(id), title: String(title), format: String(format) }));
  } catch {
    return [];
  }
}

function store() {
  localStorage.setItem(STORED_AS, JSON.stringify(jobs.map(({ id, title, format }) => ({ id, title, format }))));
}
