/** The API key, which is kept for this tab only, and the dialog that asks for it. */
import { field, h } from "./dom.js";

const STORED_AS = "chorus.key";

/** @type {Set<() => void>} */
const listeners = new Set();
/** @type {Promise<boolean> | null} */
let asking = null;

/** The key, or an empty text. */
export function storedKey() {
  return sessionStorage.getItem(STORED_AS) ?? "";
}

/** @param {() => void} listener called after another key was given, or the key was taken away */
export function onKeyChange(listener) {
  listeners.add(listener);
}

/** @param {string} key */
function store(key) {
  if (key === storedKey()) return;
  if (key) sessionStorage.setItem(STORED_AS, key);
  else sessionStorage.removeItem(STORED_AS);
  for (const listener of listeners) listener();
}

/**
 * Asks for a key. Several requests that are refused at once ask together.
 * @param {string} [reason]
 * @returns {Promise<boolean>} whether a key was given
 */
export function showKeyDialog(reason = "") {
  asking ??= ask(reason).finally(() => {
    asking = null;
  });
  return asking;
}

/**
 * @param {string} reason
 * @returns {Promise<boolean>}
 */
function ask(reason) {
  return new Promise((resolve) => {
    const input = h("input", { type: "password", autocomplete: "off", spellcheck: false, value: storedKey() });
    const close = (given) => {
      dialog.close();
      dialog.remove();
      resolve(given);
    };
    const use = (event) => {
      event.preventDefault();
      const key = input.value.trim();
      close(key !== "");
      store(key);
    };
    const dialog = h(
      "dialog",
      { "aria-labelledby": "key-title", oncancel: () => close(false) },
      h("h2", { id: "key-title" }, "API key"),
      reason && h("p", { class: "fault" }, reason),
      h(
        "form",
        { class: "stack", onsubmit: use },
        field(
          "Key",
          input,
          "It is kept for this tab only. On the server’s host, “chorus keys add NAME” makes one; with “--role operator”, one that may also change voices and drain the host.",
        ),
        h(
          "div",
          { class: "actions" },
          h("button", { type: "submit", class: "primary" }, "Use this key"),
          storedKey() && h("button", { type: "button", onclick: () => (close(false), store("")) }, "Forget it"),
          h("button", { type: "button", onclick: () => close(false) }, "Cancel"),
        ),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
