/** The choices beside a text: voice, speed, seed, and the parameters of the running engine, by its card. */
import { field, h, newId, select } from "../lib/dom.js";

const MIN_SPEED = 0.25;
const MAX_SPEED = 4;
const STEPS = 200;

/**
 * @param {import("../lib/server.js").Capabilities} server
 * @param {import("../lib/server.js").Voice[]} voices
 */
export function options(server, voices) {
  const voice = select(voices.map(asOption), "default");
  const speed = range({ name: "Speed", minimum: MIN_SPEED, maximum: MAX_SPEED, default: 1, step: 0.05 });
  const seed = h("input", {
    type: "number",
    min: "0",
    max: String(2 ** 32 - 1),
    step: "1",
    placeholder: "a new one for each take",
  });
  const parameters = server.parameters.map((parameter) => ({ parameter, control: controlOf(parameter) }));

  const element = h(
    "div",
    { class: "card stack" },
    field("Voice", voice),
    speed.element,
    field("Seed", seed, "The same seed, text and voice give the same audio."),
    h("h3", {}, "Engine"),
    h("p", { class: "hint" }, h("strong", {}, server.engine), " ", server.description),
    ...parameters.map(({ control }) => control.element),
    parameters.length === 0 && h("p", { class: "hint" }, "This engine has no parameters of its own."),
  );

  return {
    element,
    /** The fields of `POST /tts`, without the text; what has its default is left out. */
    body() {
      /** @type {Record<string, unknown>} */
      const body = { voice: voice.value };
      if (speed.value() !== undefined) body.speed = speed.value();
      if (seed.value !== "" && seed.validity.valid) body.seed = Number(seed.value);
      for (const { parameter, control } of parameters) {
        const value = control.value();
        if (value !== undefined) body[parameter.name] = value;
      }
      return body;
    },
    /** @param {import("../lib/server.js").Voice[]} changed */
    setVoices(changed) {
      const chosen = voice.value;
      voice.replaceChildren(...changed.map(asOption).map(({ value, label }) => h("option", { value }, label)));
      voice.value = changed.some(({ name }) => name === chosen) ? chosen : (changed[0]?.name ?? "");
    },
  };
}

/** @param {import("../lib/server.js").Voice} voice */
function asOption({ name, language }) {
  return { value: name, label: language ? `${name} (${language})` : name };
}

/** @param {import("../lib/server.js").Parameter} parameter */
function controlOf(parameter) {
  const label = parameter.name.replaceAll("_", " ");
  if (parameter.choices.length) {
    const list = select([
      { value: "", label: "default" },
      ...parameter.choices.map((value) => ({ value, label: value })),
    ]);
    return { element: field(label, list, parameter.description), value: () => list.value || undefined };
  }
  const width = parameter.maximum - parameter.minimum;
  const step = parameter.integer ? 1 : width / STEPS;
  return range({ ...parameter, name: label, step }, parameter.description);
}

/**
 * A number in a range: a slider, with its value beside it.
 * @param {{name: string, minimum: number, maximum: number, default: number, step: number}} bounds
 * @param {string} [hint]
 */
function range(bounds, hint = "") {
  const { name, minimum, maximum, default: usual, step } = bounds;
  const input = h("input", {
    type: "range",
    id: newId(),
    min: String(minimum),
    max: String(maximum),
    step: String(step),
    value: String(usual),
  });
  const shown = h("output", { for: input.id });
  const describe = () => {
    shown.textContent = Number(Number(input.value).toPrecision(4)).toString();
  };
  input.addEventListener("input", describe);
  describe();
  const reset = h(
    "button",
    {
      type: "button",
      class: "link",
      onclick: () => {
        input.value = String(usual);
        describe();
        input.dispatchEvent(new Event("change", { bubbles: true }));
      },
    },
    `default ${usual}`,
  );
  reset.setAttribute("aria-label", `${name}: default ${usual}`);
  const element = h(
    "div",
    { class: "field range" },
    h("div", { class: "range-head" }, h("label", { for: input.id }, name), shown),
    input,
    h("div", { class: "range-ends hint" }, h("span", {}, String(minimum)), reset, h("span", {}, String(maximum))),
    hint && h("p", { class: "hint" }, hint),
  );
  const isUsual = () => Math.abs(Number(input.value) - usual) < step / 2;
  return { element, value: () => (isUsual() ? undefined : Number(Number(input.value).toPrecision(6))) };
}
