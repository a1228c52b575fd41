/** Requests to the server that the page came from. Addresses are relative, so that a proxy may add a prefix. */
import { showKeyDialog, storedKey } from "./key.js";
import { sentence } from "./words.js";

/** An answer that is an error; the message is for people. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status
   * @param {string} code
   */
  constructor(message, status, code) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
  }
}

/**
 * @typedef {{method?: string, json?: unknown, body?: BodyInit, type?: string, accept?: string, signal?: AbortSignal, ask?: boolean, errors?: boolean}} Options
 * `json` is sent as the body; `ask`: whether a missing key is asked for; `errors`: whether 503 is an error.
 */

/**
 * The response, which is no error.
 * @param {string} path
 * @param {Options} [options]
 * @returns {Promise<Response>}
 */
export async function request(path, options = {}) {
  const response = await send(path, options);
  if (response.ok || (response.status === 503 && options.errors === false)) return response;
  const error = await errorOf(response);
  if (error.status !== 401 || options.ask === false) throw error;
  const reason = storedKey() ? "The server does not know this key." : "This server asks for a key.";
  if (!(await showKeyDialog(reason))) throw error;
  return request(path, options);
}

/**
 * The JSON of a response.
 * @param {string} path
 * @param {Options} [options]
 * @returns {Promise<any>}
 */
export async function requestJson(path, options = {}) {
  return (await request(path, options)).json();
}

/**
 * @param {string} path
 * @param {Options} options
 */
async function send(path, { method, json, body, type, accept, signal }) {
  const headers = new Headers();
  if (storedKey()) headers.set("Authorization", `Bearer ${storedKey()}`);
  if (accept) headers.set("Accept", accept);
  if (json !== undefined) headers.set("Content-Type", "application/json");
  else if (type) headers.set("Content-Type", type);
  const content = json === undefined ? body : JSON.stringify(json);
  try {
    return await fetch(path, {
      method: method ?? (content === undefined ? "GET" : "POST"),
      headers,
      body: content,
      signal,
      cache: "no-store",
      credentials: "omit",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("The server cannot be reached.", 0, "unreachable");
  }
}

/** @param {Response} response */
async function errorOf(response) {
  const content = await response.json().catch(() => null);
  const { message, code } = content?.error ?? {};
  const retry = response.headers.get("Retry-After");
  const again = retry ? ` Try again in ${retry} s.` : "";
  const text = message ? sentence(message) : `The server answered with ${response.status}.`;
  return new ApiError(text + again, response.status, code ?? "");
}
