/** What the server is and can do, which all views ask for and which is fetched once. */
import { requestJson } from "./api.js";

/**
 * @typedef {{name: string, description: string, minimum?: number, maximum?: number, default?: number, integer: boolean, choices: string[]}} Parameter
 * @typedef {{engine: string, description: string, sampleRate: number, parameters: Parameter[], tags: string[], clonesVoices: boolean, formats: string[], maxTextCharacters: number, maxJobTextCharacters: number, role: "client" | "operator" | null}} Capabilities
 * @typedef {{id: string, name: string, description: string, language: string, aliases: string[], synthetic: boolean, cloned: boolean}} Voice
 */

/** @type {Map<string, Promise<any>>} */
const answers = new Map();

/** @returns {Promise<Capabilities>} */
export function capabilities() {
  return once("capabilities");
}

/** The voices that the running engine can speak. @returns {Promise<Voice[]>} */
export async function voices() {
  return (await once("v1/audio/voices")).data;
}

/** The names of the voices that only other engines can speak. @returns {Promise<string[]>} */
export async function otherVoices() {
  const { data, engines } = await once("v1/audio/voices");
  const spoken = new Set(data.map(({ name }) => name));
  return [...new Set(Object.values(engines).flat())].filter((name) => !spoken.has(name)).sort();
}

/** The voices have changed. */
export function forgetVoices() {
  answers.delete("v1/audio/voices");
  dispatchEvent(new Event("voiceschange"));
}

/** Another key may do other things. */
export function forgetServer() {
  answers.clear();
}

/** @param {string} path */
function once(path) {
  let answer = answers.get(path);
  if (answer === undefined) {
    answer = requestJson(path);
    answers.set(path, answer);
    answer.catch(() => answers.delete(path));
  }
  return answer;
}
