/** Builds elements. Texts become text nodes: nothing that a user or a server sends is ever parsed as HTML. */

/**
 * An element with properties and children.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, unknown>} [properties] names with a dash, `role` and `for` are attributes, `on…` are listeners
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else if (name === "class") element.className = String(value);
    else if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, String(value));
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

let ids = 0;

/** An id that no other element has. */
export function newId() {
  ids += 1;
  return `id-${ids}`;
}

/**
 * A labelled control.
 * @param {string} label
 * @param {HTMLElement} control
 * @param {Node | string | null} [hint]
 */
export function field(label, control, hint = null) {
  control.id ||= newId();
  const described = hint === null ? null : h("p", { class: "hint", id: newId() }, hint);
  if (described) control.setAttribute("aria-describedby", described.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, described);
}

/**
 * A list to choose from.
 * @param {{value: string, label: string}[]} options
 * @param {string} [chosen]
 */
export function select(options, chosen) {
  const element = h("select", {}, ...options.map(({ value, label }) => h("option", { value }, label)));
  if (chosen !== undefined) element.value = chosen;
  return element;
}

/** A line in which a view says what has happened; screen readers read it out. */
export function statusLine() {
  const line = h("p", { class: "status", role: "status" });
  return {
    element: line,
    /** @param {string} text */
    say(text) {
      line.classList.remove("fault");
      line.textContent = text;
    },
    /** @param {unknown} error */
    fail(error) {
      line.classList.add("fault");
      line.textContent = error instanceof Error ? error.message : String(error);
    },
  };
}

/**
 * Asks a question that is answered by two buttons.
 * @param {string} question
 * @param {string} yes the word on the button that goes on
 * @returns {Promise<boolean>}
 */
export function confirmed(question, yes) {
  return new Promise((resolve) => {
    const answer = (value) => {
      dialog.close();
      dialog.remove();
      resolve(value);
    };
    const dialog = h(
      "dialog",
      { "aria-label": question, oncancel: () => answer(false) },
      h("p", {}, question),
      h(
        "div",
        { class: "actions" },
        h("button", { type: "button", class: "danger", onclick: () => answer(true) }, yes),
        h("button", { type: "button", onclick: () => answer(false) }, "Cancel"),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

/**
 * Saves bytes as a file of the user's.
 * @param {Blob} blob
 * @param {string} name
 */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
