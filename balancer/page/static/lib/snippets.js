/** A request in the languages of those who want to send it themselves. No key stands in it. */

/** Where the server is, without a slash at its end. */
export function serverUrl() {
  return new URL(".", location.href.split("#")[0]).href.replace(/\/$/, "");
}

/**
 * @param {Record<string, unknown>} body of `POST /tts`
 * @param {{url?: string, withKey: boolean}} options
 * @returns {Record<"curl" | "Python" | "JavaScript", string>}
 */
export function snippets(body, { url = serverUrl(), withKey }) {
  const file = `speech.${body.format ?? "wav"}`;
  return {
    curl: curl(`${url}/tts`, body, file, withKey),
    Python: python(`${url}/tts`, body, file, withKey),
    JavaScript: javascript(`${url}/tts`, body, file, withKey),
  };
}

/** @param {string} text */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function curl(url, body, file, withKey) {
  const lines = [`curl -f ${quoted(url)}`, "-H 'Content-Type: application/json'"];
  if (withKey) lines.push('-H "Authorization: Bearer $CHORUS_API_KEY"');
  lines.push(`-d ${quoted(JSON.stringify(body))}`, `-o ${file}`);
  return `${lines.join(" \\\n  ")}\n`;
}

/** A value as Python writes it. @param {unknown} value */
function pythonic(value) {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  return JSON.stringify(value);
}

function python(url, body, file, withKey) {
  const fields = Object.entries(body).map(([name, value]) => `    ${JSON.stringify(name)}: ${pythonic(value)},`);
  return [
    "import json",
    withKey && "import os",
    "import urllib.request",
    "",
    "body = {",
    ...fields,
    "}",
    'headers = {"Content-Type": "application/json"}',
    withKey && 'headers["Authorization"] = "Bearer " + os.environ["CHORUS_API_KEY"]',
    `request = urllib.request.Request(${JSON.stringify(url)}, json.dumps(body).encode(), headers)`,
    `with urllib.request.urlopen(request) as response, open("${file}", "wb") as file:`,
    "    file.write(response.read())",
    "",
  ]
    .filter((line) => line !== false)
    .join("\n");
}

function javascript(url, body, file, withKey) {
  return [
    'import { writeFile } from "node:fs/promises";',
    "",
    `const response = await fetch(${JSON.stringify(url)}, {`,
    '  method: "POST",',
    "  headers: {",
    '    "Content-Type": "application/json",',
    withKey && "    Authorization: `Bearer ${process.env.CHORUS_API_KEY}`,",
    "  },",
    `  body: JSON.stringify(${JSON.stringify(body, null, 2).replaceAll("\n", "\n  ")}),`,
    "});",
    "if (!response.ok) throw new Error(await response.text());",
    `await writeFile("${file}", Buffer.from(await response.arrayBuffer()));`,
    "",
  ]
    .filter((line) => line !== false)
    .join("\n");
}
