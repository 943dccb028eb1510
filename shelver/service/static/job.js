// Keeps what a page shows of a job up to date, with the events of /v1/jobs/{id}/events as they happen.
//
// Each element with data-job="ID" is followed, unless it has data-over. Within it, where they are there:
//   [data-job-state]   a badge; its texts are data-queued, data-running, ...
//   [data-job-bar]     a <progress>
//   [data-job-words]   what the job says of itself
//   [data-job-said]    the same for screen readers, less often (role="status")
//   [data-job-events]  a <tbody>; rows are made from <template data-job-event>
//   [data-job-waits]   hidden once the job has begun
//   [data-job-count]   the number of this name among the counts that an import tells
// When the job has ended the element gets the event "jobend"; unless somebody prevents it, the page is loaded again.
import { showTimes } from "./page.js";

const MOST = 3; // a browser opens only six connections to one place, and the page needs some itself
const KINDS = ["queued", "started", "progress", "given_back", "put_back", "cancel_requested", "done", "failed", "cancelled"];
const LAST = ["done", "failed", "cancelled"];
const TONES = { done: "good", failed: "bad", cancelled: "warn", running: "accent" };
const SAID_EVERY_MS = 15000;
const KEPT_EVENTS = 200;
const numbers = new Intl.NumberFormat(document.documentElement.lang);

export function follow(root) {
  const within = (name) => root.querySelector(`[data-job-${name}]`);
  const source = new EventSource(`/v1/jobs/${root.dataset.job}/events?after=${root.dataset.after || 0}`);
  let saidAt = 0;

  const show = (kind, data) => {
    const badge = within("state");
    if (badge) {
      badge.textContent = badge.dataset[data.state] || data.state;
      badge.className = `badge ${TONES[data.state] || ""}`;
    }
    if (data.state !== "queued") within("waits")?.setAttribute("hidden", "");
    const bar = within("bar");
    if (bar && kind === "progress") {
      if (typeof data.fraction === "number") bar.value = data.fraction;
      else bar.removeAttribute("value");
    }
    const words = data.words || "";
    const line = within("words");
    if (line && words) line.textContent = words;
    const said = within("said");
    if (said && (kind !== "progress" || Date.now() - saidAt > SAID_EVERY_MS)) {
      saidAt = Date.now();
      said.textContent = `${badge ? badge.textContent : data.state}. ${words}`;
    }
    for (const one of root.querySelectorAll("[data-job-count]")) {
      const n = data.counts?.[one.dataset.jobCount];
      if (n !== undefined) one.textContent = numbers.format(n);
    }
    addEvent(root, kind, data);
  };

  for (const kind of KINDS) {
    source.addEventListener(kind, (event) => {
      let data;
      try {
        data = JSON.parse(event.data);
      } catch {
        return;
      }
      show(kind, data);
      if (!LAST.includes(kind)) return;
      source.close();
      const going = root.dispatchEvent(new CustomEvent("jobend", { bubbles: true, cancelable: true, detail: data }));
      if (!going) return;
      const again = new URL(window.location.href);
      again.searchParams.delete("done"); // what was said of its beginning is over
      window.location.replace(again);
    });
  }
  return source;
}

function addEvent(root, kind, data) {
  const rows = root.querySelector("[data-job-events]");
  const template = root.querySelector("template[data-job-event]");
  if (!rows || !template) return;
  const row = template.content.cloneNode(true);
  const time = row.querySelector("time");
  time.dateTime = data.at;
  row.querySelector("[data-kind]").textContent = rows.dataset[kind.replace(/_(\w)/g, (_, one) => one.toUpperCase())] || kind;
  row.querySelector("[data-words]").textContent = data.words || "";
  showTimes(row);
  rows.prepend(row);
  while (rows.children.length > KEPT_EVENTS) rows.lastElementChild.remove();
}

const open = [...document.querySelectorAll("[data-job]:not([data-over])")].slice(0, MOST);
for (const root of open) follow(root);
