// The review: sends the page's own forms without loading it anew, shows the next product at once, and listens to keys.
// The answer to a form is the page again; what is marked data-part is taken from it.

import { focus, upgrade } from "./picker.js";
import { showTimes } from "./page.js";

const root = document.getElementById("review");
const help = document.getElementById("review-help");
const KEYS = "shelver-review-keys";
const pending = new Set(); // ids of what was decided and is not answered yet
let unanswered = 0; // forms that were sent, or wait for those before them
let turn = Promise.resolve(); // one form at a time: an answer tells of all before it
let keysOn = kept() !== "off";

showKeys();
for (const one of root.querySelectorAll("[data-with-script]")) one.hidden = false;
tidy();
root.addEventListener("submit", submitted);
root.addEventListener("click", clicked);
root.addEventListener("change", changed);
root.addEventListener("picker:choose", (event) => event.target.closest("form")?.querySelector("[data-does=confirm]")?.focus());
document.addEventListener("keydown", pressed);
// What still waits to be sent would be lost with the page: the browser asks first.
addEventListener("beforeunload", (event) => {
  if (unanswered) event.preventDefault();
});

// What comes newly into the page.
function tidy() {
  const switched = root.querySelector("[data-does=keys]");
  if (switched) switched.checked = keysOn;
  for (const one of root.querySelectorAll("[data-with-script], [data-does=tick]")) one.hidden = false;
  root.querySelectorAll("[data-picker]").forEach(upgrade);
  showTimes(root);
}

// Forms

function submitted(event) {
  const form = event.target;
  if (event.defaultPrevented || !form.matches("form[method=post]")) return;
  event.preventDefault();
  const button = event.submitter;
  const fields = new URLSearchParams();
  for (const [name, value] of new FormData(form, button)) {
    if (!name.endsWith("_q")) fields.append(name, value); // what is typed into a search and not chosen
  }
  const path = button?.getAttribute("formaction") ?? form.getAttribute("action");
  const card = form.closest("article[data-card]");
  const isOne = root.dataset.mode === "cards" && card && path.startsWith("/review/decide");
  if (isOne && button?.value === "confirm" && !form.querySelector("input[type=radio]:checked")) {
    focus(form.querySelector("[data-picker]"));
    return;
  }
  if (isOne) pass(card);
  unanswered += 1;
  turn = turn.then(() => send(path, fields)).finally(() => (unanswered -= 1)).then(
    (page) => arrived(page, isOne ? card : null),
    (error) => failed(error, isOne ? card : null),
  );
}

// The answer as a document: no HTML is ever made of a string here.
function send(path, fields) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.responseType = "document";
    request.setRequestHeader("Accept", "text/html");
    request.onload = () => {
      const found = request.response?.getElementById("review");
      if (request.status < 400 && found) resolve(found);
      else reject(new Error("refused"));
    };
    request.onerror = () => reject(new Error("failed"));
    request.send(fields);
  });
}

// It was decided: the next one is shown at once.
function pass(card) {
  pending.add(card.dataset.card);
  const next = after(card) ?? before(card);
  card.hidden = true;
  if (next) show(next);
  else say(root.dataset.waits);
}

function arrived(page, card) {
  if (card) pending.delete(card.dataset.card);
  const was = root.dataset.mode;
  for (const name of ["mode", "first"]) root.dataset[name] = page.dataset[name];
  tell(page);
  for (const name of ["counts", "tools", "filters", "latest", "next"]) exchange(page, name);
  const hand = part(root, "hand");
  const current = showing();
  if (was === "cards" && root.dataset.mode === "cards" && current) {
    merge(hand, part(page, "hand"), current);
  } else {
    hand.replaceChildren(...part(page, "hand").childNodes);
    for (const one of cards()) if (pending.has(one.dataset.card)) one.hidden = true;
    tidy();
    const next = cards().find((one) => !pending.has(one.dataset.card));
    if (next) show(next);
    else hand.querySelector("h2, [tabindex='-1']")?.focus();
  }
  tidy();
  marked();
}

// What is in hand now; the one in front stays as it is, with what the reviewer has chosen in it.
function merge(hand, fresh, current) {
  const first = root.dataset.first;
  const there = new Map(cards().map((one) => [one.dataset.card, one]));
  const wanted = [...fresh.querySelectorAll("article[data-card]")];
  const ids = new Set(wanted.map((one) => one.dataset.card));
  for (const [id, one] of there) if (!ids.has(id) && !pending.has(id) && one !== current) one.remove();
  for (const one of wanted) {
    const id = one.dataset.card;
    if (pending.has(id)) continue;
    one.hidden = true;
    if (!there.has(id)) hand.append(one);
    else if (there.get(id).hidden && there.get(id) !== current) there.get(id).replaceWith(one);
  }
  const undone = first && cards().find((one) => one.dataset.card === first);
  if (undone && undone !== current) show(undone);
  else if (!ids.has(current.dataset.card)) {
    const next = after(current) ?? before(current);
    current.remove();
    if (next) show(next);
  }
}

function failed(error, card) {
  if (card) {
    pending.delete(card.dataset.card);
    show(card);
  }
  say(error.message === "refused" ? root.dataset.refused : root.dataset.failed, "bad");
}

function exchange(page, name) {
  const old = part(root, name);
  const fresh = part(page, name);
  if (!old || !fresh) return;
  if (old.open !== undefined) fresh.open = old.open;
  old.replaceWith(fresh);
}

// Into the region that is read aloud, which itself stays.
function tell(page) {
  document.getElementById("review-said").replaceChildren(...page.querySelector("#review-said").childNodes);
}

function say(words, kind = "") {
  const said = document.createElement("p");
  said.className = `notice ${kind}`;
  said.textContent = words;
  document.getElementById("review-said").replaceChildren(said);
}

// Cards

function part(within, name) {
  return within.querySelector(`[data-part="${name}"]`);
}

function cards() {
  return [...root.querySelectorAll("article[data-card]")];
}

function showing() {
  return cards().find((one) => !one.hidden);
}

function after(card) {
  return open().find((one) => card.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING);
}

function before(card) {
  return open().findLast((one) => card.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_PRECEDING);
}

function open() {
  return cards().filter((one) => !pending.has(one.dataset.card));
}

function show(card) {
  for (const one of cards()) one.hidden = one !== card;
  marked();
  // So that the next is read, and a key begins at its top.
  card.querySelector("h2")?.focus({ preventScroll: true });
  if (card.getBoundingClientRect().top < 0) card.scrollIntoView({ block: "start" });
}

// The small ones: not the one that is shown, nor what was decided.
function marked() {
  const current = showing()?.dataset.card;
  for (const one of root.querySelectorAll("[data-next]")) {
    one.hidden = one.dataset.next === current || pending.has(one.dataset.next);
  }
}

function clicked(event) {
  const small = event.target.closest("[data-next] a");
  const card = small && cards().find((one) => one.dataset.card === small.closest("[data-next]").dataset.next);
  if (card) {
    event.preventDefault();
    show(card);
    return;
  }
  const does = event.target.closest("[data-does]")?.dataset.does;
  if (does === "help") help.showModal();
  if (does === "tick") {
    for (const one of root.querySelectorAll("[data-table] input[type=checkbox]")) one.checked = true;
  }
}

function changed(event) {
  if (event.target.dataset.does !== "keys") return;
  keysOn = event.target.checked;
  try {
    localStorage.setItem(KEYS, keysOn ? "on" : "off");
  } catch {
    // A browser that keeps nothing: until the page is left.
  }
  showKeys();
}

// Keys

function kept() {
  try {
    return localStorage.getItem(KEYS);
  } catch {
    return null;
  }
}

function showKeys() {
  root.dataset.keys = keysOn ? "on" : "off";
}

function pressed(event) {
  if (!keysOn || event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || help.open) return;
  const target = event.target;
  const card = showing();
  if (event.key === "Escape" && target.closest?.("[data-picker]")) {
    card?.querySelector("h2")?.focus();
    return;
  }
  if (target.matches?.("input:not([type=radio], [type=checkbox]), textarea, select, [contenteditable]")) return;
  const done = card ? onCard(event, card) : onNothing(event, target);
  if (done || always(event)) event.preventDefault();
}

function onNothing(event, target) {
  return event.key === "Enter" && !target.closest?.("a, button, summary, [data-table]") && press(root, "confirm");
}

function onCard(event, card) {
  const { key, target } = event;
  if (key >= "1" && key <= "9") {
    const radio = card.querySelector(`input[data-key="${key}"]`);
    if (!radio) return false;
    if (radio.checked && radio === document.activeElement) return !event.repeat && press(card, "confirm");
    radio.checked = true;
    radio.focus();
    return true;
  }
  if (event.repeat && !key.startsWith("Arrow")) return false;
  if (key === "Enter") return !target.closest("a, button, summary, label.check") && press(card, "confirm");
  if (key === "ArrowDown" || key === "ArrowUp") return target.type !== "radio" && step(card, key === "ArrowDown");
  if (key === "ArrowLeft" || key === "ArrowRight") {
    const other = key === "ArrowRight" ? after(card) : before(card);
    if (other) show(other);
    return Boolean(other) || target.type === "radio";
  }
  if (key === "Escape") return press(card, "leave");
  if (key === "x") return press(card, "reject");
  if (key === "s") return press(card, "skip");
  if (key === "g") return press(card, "group");
  if (key === "b") {
    const siblings = card.querySelector(".review-siblings");
    if (!siblings) return false;
    siblings.open = !siblings.open;
    siblings.querySelector(siblings.open ? "input" : "summary").focus();
    return true;
  }
  if (key === "c" || key === "/") {
    focus(card.querySelector("[data-picker]"));
    return true;
  }
  return false;
}

function always(event) {
  if (event.repeat) return false;
  if (event.key === "u") return press(root, "undo");
  if (event.key !== "?") return false;
  help.showModal();
  return true;
}

function press(within, does) {
  const button = within.querySelector(`[data-does="${does}"]`);
  button?.click();
  return Boolean(button);
}

function step(card, down) {
  const radios = [...card.querySelectorAll("input[type=radio]")].filter((one) => one.checkVisibility());
  const at = radios.findIndex((one) => one.checked);
  const next = radios[Math.min(Math.max(at + (down ? 1 : -1), 0), radios.length - 1)];
  if (!next) return false;
  next.checked = true;
  next.focus();
  return true;
}
