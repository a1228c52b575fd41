/** The page's frame: four views, one of which is shown, chosen by the hash of the address. */
import { onKeyChange, showKeyDialog, storedKey } from "./lib/key.js";
import { forgetServer } from "./lib/server.js";

/**
 * A view fills its panel once, when it is first shown.
 * @typedef {{show?: () => void, hide?: () => void}} View
 */

/** @type {Record<string, () => Promise<{mount: (panel: HTMLElement) => View | Promise<View>}>>} */
const MODULES = {
  speak: () => import("./views/speak.js"),
  voices: () => import("./views/voices.js"),
  jobs: () => import("./views/jobs.js"),
  live: () => import("./views/live.js"),
};
const NAMES = Object.keys(MODULES);

/** @type {Map<string, Promise<View>>} */
const mounted = new Map();
let current = "";

const tab = (name) => document.getElementById(`tab-${name}`);
const panel = (name) => document.getElementById(`view-${name}`);

/** The name in the address, or the first view's. */
function nameInAddress() {
  const name = location.hash.slice(1);
  return NAMES.includes(name) ? name : NAMES[0];
}

/** @param {string} name */
function viewOf(name) {
  let view = mounted.get(name);
  if (view === undefined) {
    view = MODULES[name]().then((module) => module.mount(panel(name)));
    mounted.set(name, view);
  }
  return view;
}

async function show() {
  const name = nameInAddress();
  if (name === current) return;
  const last = current;
  current = name;
  for (const other of NAMES) {
    const chosen = other === name;
    tab(other).setAttribute("aria-selected", String(chosen));
    tab(other).tabIndex = chosen ? 0 : -1;
    panel(other).hidden = !chosen;
  }
  document.title = `${tab(name).textContent} – Chorus`;
  if (last) (await viewOf(last)).hide?.();
  const view = await viewOf(name);
  if (current === name) view.show?.();
}

/** @param {KeyboardEvent} event */
function moveBetweenTabs(event) {
  const steps = { ArrowRight: 1, ArrowLeft: -1 };
  const place = NAMES.indexOf(nameInAddress());
  let next;
  if (event.key in steps) next = (place + steps[event.key] + NAMES.length) % NAMES.length;
  else if (event.key === "Home") next = 0;
  else if (event.key === "End") next = NAMES.length - 1;
  else return;
  event.preventDefault();
  location.hash = NAMES[next];
  tab(NAMES[next]).focus();
}

function labelKeyButton() {
  document.getElementById("key-button").textContent = storedKey() ? "API key ✓" : "API key";
}

for (const name of NAMES) {
  tab(name).addEventListener("click", () => {
    location.hash = name;
  });
  tab(name).addEventListener("keydown", moveBetweenTabs);
}
document.getElementById("key-button").addEventListener("click", () => showKeyDialog());
onKeyChange(() => {
  // What the server shows depends on the key: every view begins anew.
  labelKeyButton();
  forgetServer();
  const remount = async () => {
    for (const view of mounted.values()) (await view).hide?.();
    mounted.clear();
    for (const name of NAMES) panel(name).replaceChildren();
    current = "";
    await show();
  };
  remount();
});
addEventListener("hashchange", show);
labelKeyButton();
show();
