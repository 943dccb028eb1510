// The page /sell: suggestions as one types, pictures dropped or pasted, one click to save. The form is sent as it
// stands to /sell/suggest; the answer's parts take the place of those in the page.

import { clear } from "./picker.js";

const TYPED_MS = 90; // after the last key
const WHY_MS = 500; // after the suggestions
const TOLD_MS = 1000;
const AGAIN_MS = 2000; // after a refusal
const REACH_MS = 10_000; // for a sign of life
const SIDE_PX = 512; // of the picture that is asked about
const form = document.getElementById("sell");
const input = document.getElementById("f-pictures");
const picker = form.querySelector("[data-picker]");
const files = []; // {file, url, small: promise of a small picture, figure}
let reached = false;
let typed = 0;
let telling = 0;
let reasoning = 0;
let asking = null;
let choosing = null;
let why = null;

begin();

function begin() {
  for (const one of form.querySelectorAll("[data-plain]")) one.hidden = true;
  for (const one of form.querySelectorAll("[data-scripted], [data-choose]")) one.hidden = false;
  // The first button is what Enter presses.
  for (const one of form.querySelectorAll("[data-plain] button")) one.type = "button";
  input.classList.add("visually-hidden");
  for (const name of ["title", "description", "brand"]) {
    form.elements[name].addEventListener("input", () => soon(TYPED_MS));
  }
  form.elements.title.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault(); // to save is never a slip
    soon(0);
  });
  form.addEventListener("change", changed);
  form.addEventListener("submit", saving);
  form.addEventListener("click", clicked);
  picker.addEventListener("picker:choose", (event) => {
    const suggested = [...form.querySelectorAll("#suggestions input[type=radio]")];
    const same = suggested.find((one) => one.value === event.detail.node_id);
    if (same) {
      same.checked = true;
      clear(picker);
    }
    chosen();
  });
  const drop = form.querySelector("[data-drop]");
  for (const name of ["dragenter", "dragover"]) {
    form.addEventListener(name, (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  form.addEventListener("dragleave", () => drop.classList.remove("over"));
  form.addEventListener("drop", (event) => {
    drop.classList.remove("over");
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    add(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) add(event.clipboardData.files);
  });
  addEventListener("pageshow", (event) => event.persisted && ready());
  const asked = form.querySelector("#suggestions").dataset.prediction;
  if (input.files.length) add(input.files);
  else if (asked) reason();
  else if (form.elements.title.value.trim()) soon(0); // the browser brought it back
}

// ---- pictures

function add(chosen) {
  const most = Number(form.dataset.maxPictures) - form.querySelectorAll("[data-draft]").length;
  const before = files.length;
  const wrong = [];
  for (const file of [...chosen]) {
    if (files.some((one) => same(one.file, file))) continue;
    if (!file.type.startsWith("image/")) wrong.push(`${file.name}: ${form.dataset.noPicture}`);
    else if (file.size > Number(form.dataset.maxBytes)) wrong.push(`${file.name}: ${form.dataset.tooLarge}`);
    else if (files.length >= most) wrong.push(form.dataset.tooMany);
    else files.push(shown(file));
  }
  tell([...new Set(wrong)], "wrong-pictures");
  sync();
  if (files.length !== before) soon(0);
}

function same(one, other) {
  return one === other || (one.name === other.name && one.size === other.size && one.lastModified === other.lastModified);
}

function shown(file) {
  const one = { file, url: URL.createObjectURL(file), small: smaller(file), figure: document.createElement("figure") };
  one.figure.className = "sell-picture";
  const frame = document.createElement("div");
  frame.className = "sell-frame";
  const image = document.createElement("img");
  image.src = one.url;
  image.alt = file.name;
  const remove = document.createElement("button");
  remove.type = "button";
  remove.className = "button small";
  remove.textContent = "×";
  remove.setAttribute("aria-label", form.dataset.remove.replace("{name}", file.name));
  remove.addEventListener("click", () => forget(one));
  frame.append(image);
  one.figure.append(frame, remove);
  form.querySelector("[data-pictures]").append(one.figure);
  one.small.catch(() => {
    forget(one);
    tell([`${file.name}: ${form.dataset.noPicture}`], "wrong-pictures");
  });
  return one;
}

function forget(one) {
  const at = files.indexOf(one);
  if (at < 0) return;
  files.splice(at, 1);
  one.figure.remove();
  URL.revokeObjectURL(one.url);
  sync();
  input.focus();
  soon(0);
}

// What is sent when the form is saved.
function sync() {
  const all = new DataTransfer();
  for (const one of files) all.items.add(one.file);
  input.files = all.files;
}

// A picture as large as a model needs it; the original is what is saved.
async function smaller(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, SIDE_PX / Math.max(bitmap.width, bitmap.height));
  if (scale === 1 && file.size < 200_000) return file;
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((done, failed) => {
    canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("no picture"))), "image/jpeg", 0.9);
  });
}

// ---- suggestions

function soon(wait) {
  clearTimeout(typed);
  clearTimeout(reasoning);
  why?.abort();
  asking?.abort();
  typed = setTimeout(ask, wait);
}

async function ask() {
  asking?.abort();
  const mine = (asking = new AbortController());
  try {
    const part = await send("/sell/suggest", await filled(), mine.signal);
    if (mine.signal.aborted) return;
    put(part, "wrong");
    if (part.querySelector("#wrong[data-refused]")) {
      typed = setTimeout(ask, AGAIN_MS); // what was suggested before stays
      return;
    }
    put(part, "suggestions");
    put(part, "attributes");
    if (part.querySelector("#suggestions input[type=radio]:checked")) clear(picker);
    tellSoon();
    reasoning = setTimeout(reason, WHY_MS);
  } catch (error) {
    if (error.name !== "AbortError") tell([error.message]);
  }
}

async function chosen() {
  choosing?.abort();
  const mine = (choosing = new AbortController());
  try {
    put(await send("/sell/attributes", await filled({ picture: false }), mine.signal), "attributes");
    clearTimeout(reasoning);
    reasoning = setTimeout(reason, WHY_MS);
  } catch (error) {
    if (error.name !== "AbortError") tell([error.message]);
  }
}

// The words and the region that carried the chosen category, and look-alikes.
async function reason() {
  why?.abort();
  const mine = (why = new AbortController());
  const empty = !form.querySelector("#suggestions").dataset.prediction;
  try {
    const part = empty ? null : await send("/sell/why", await filled(), mine.signal);
    if (mine.signal.aborted) return;
    outline(part);
    if (part) put(part, "why");
    else document.getElementById("why").replaceChildren();
  } catch (error) {
    if (error.name !== "AbortError") document.getElementById("why").replaceChildren();
  }
}

// The region that carried it, over the first picture.
function outline(part) {
  for (const old of form.querySelectorAll(".sell-region")) old.remove();
  const region = part?.querySelector(".sell-region");
  const frame = form.querySelector(".sell-frame");
  if (region && frame) frame.append(document.importNode(region, true));
  region?.remove();
}

async function filled({ picture = true } = {}) {
  const first = form.querySelector("[data-draft]") ? null : files[0];
  const small = picture && first ? await first.small : null;
  const data = new FormData(form);
  data.delete("pictures");
  if (small) data.append("image", small, "picture");
  return data;
}

async function send(url, data, signal) {
  let answer;
  try {
    answer = await document_of(url, data, signal);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error(form.dataset.failed);
  }
  if (answer.page) return answer.page;
  const { signedOut, tooLarge, failed } = form.dataset;
  throw new Error(answer.status === 401 ? signedOut : answer.status === 413 ? tooLarge : failed);
}

// A page's part as nodes, never as a string of markup.
function document_of(url, data, signal) {
  return new Promise((done, failed) => {
    if (signal.aborted) {
      failed(new DOMException("given up", "AbortError"));
      return;
    }
    const request = new XMLHttpRequest();
    request.open("POST", url);
    request.responseType = "document";
    request.addEventListener("load", () => {
      const page = request.response?.getElementById("wrong") ? request.response : null;
      done({ status: request.status, page });
    });
    request.addEventListener("error", () => failed(new Error("no connection")));
    request.addEventListener("abort", () => failed(new DOMException("given up", "AbortError")));
    signal.addEventListener("abort", () => request.abort());
    request.send(data);
  });
}

// Put a part of an answer in its place; the cursor stays where it was.
function put(part, id) {
  const fresh = part.getElementById(id);
  const old = document.getElementById(id);
  if (!fresh || !old) return;
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  if (id === "wrong") old.replaceChildren(...document.importNode(fresh, true).childNodes);
  else old.replaceWith(document.importNode(fresh, true));
  if (focused) document.getElementById(focused)?.focus();
}

// ---- the rest

function changed(event) {
  if (event.target === input) add(input.files);
  else if (event.target.name === "node_id") {
    if (!picker.contains(event.target)) clear(picker);
    chosen();
  }
}

function clicked(event) {
  const button = event.target.closest("[data-remove-draft]");
  if (!button) return;
  event.preventDefault();
  button.closest("figure").remove();
  soon(0);
}

function saving(event) {
  if (event.submitter?.name !== "do") return;
  const all = files.reduce((sum, one) => sum + one.file.size, 0);
  if (all > Number(form.dataset.maxAllBytes) * 0.95) {
    event.preventDefault();
    tell([form.dataset.allTooLarge], "wrong-pictures");
    return;
  }
  if (reached) return;
  event.preventDefault();
  if (form.classList.contains("saving")) return; // a double click
  form.classList.add("saving");
  clearTimeout(typed);
  asking?.abort();
  const save = form.querySelector("[data-save]");
  save.dataset.words = save.textContent;
  save.textContent = form.dataset.saving;
  save.setAttribute("aria-disabled", "true");
  reach(event.submitter);
}

// Send the form where somebody is there to take it: a page that the browser puts in its place, or a refusal, would
// lose what was typed.
async function reach(button) {
  const words = await refusal();
  if (words) {
    ready();
    tell([words]);
    document.getElementById("wrong").scrollIntoView({ block: "nearest" });
    return;
  }
  reached = true;
  form.requestSubmit(button);
  reached = false;
}

async function refusal() {
  try {
    const headers = { Accept: "application/json" };
    const answer = await fetch("/v1/me", { headers, cache: "no-store", signal: AbortSignal.timeout(REACH_MS) });
    if (answer.status === 401) return form.dataset.signedOut;
    return answer.status >= 500 ? form.dataset.failed : "";
  } catch {
    return form.dataset.failed;
  }
}

function ready() {
  const save = form.querySelector("[data-save]");
  form.classList.remove("saving");
  if (save.dataset.words) save.textContent = save.dataset.words;
  save.removeAttribute("aria-disabled");
}

function tell(words, id = "wrong") {
  const place = document.getElementById(id);
  if (!words.length) {
    place.replaceChildren();
    return;
  }
  const notice = document.createElement("div");
  notice.className = "notice bad";
  for (const one of words) {
    const line = document.createElement("p");
    line.textContent = one;
    notice.append(line);
  }
  place.replaceChildren(notice);
}

// To those who listen: when typing pauses.
function tellSoon() {
  clearTimeout(telling);
  telling = setTimeout(() => {
    document.getElementById("told").textContent = form.querySelector("#suggestions").dataset.told ?? "";
  }, TOLD_MS);
}
