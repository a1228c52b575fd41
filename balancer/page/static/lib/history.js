/** The history of the last hour, by columns, to which each answer adds what is new. */

const SECONDS_KEPT = 180;
const MINUTES_KEPT = 60;

/**
 * @param {any} known the history so far, or null
 * @param {any} news an answer of `GET /history?since=…`
 */
export function merged(known, news) {
  // A restarted server has another history.
  if (known === null || known.startedAt !== news.startedAt) return news;
  return {
    ...news,
    seconds: appended(known.seconds, news.seconds, SECONDS_KEPT),
    minutes: appended(known.minutes, news.minutes, MINUTES_KEPT),
  };
}

/**
 * Columns, in objects by name, with further values.
 * @param {any} known
 * @param {any} news
 * @param {number} kept
 */
function appended(known, news, kept) {
  const length = known.at.length;
  const added = news.at.length;
  const join = (old, fresh) => {
    if (Array.isArray(fresh ?? old)) {
      const before = old ?? new Array(length).fill(0);
      const behind = fresh ?? new Array(added).fill(0);
      return [...before, ...behind].slice(-kept);
    }
    const names = new Set([...Object.keys(old ?? {}), ...Object.keys(fresh ?? {})]);
    return Object.fromEntries([...names].map((name) => [name, join(old?.[name], fresh?.[name])]));
  };
  return join(known, news);
}
