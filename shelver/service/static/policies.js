// The editor of a policy: the slider asks the preview route what a target precision would change, and shows it.

import { showTimes } from "/static/page.js";

const WAIT_MS = 200;
const language = document.documentElement.lang;
const percents = new Intl.NumberFormat(language, { style: "percent", minimumFractionDigits: 0, maximumFractionDigits: 1 });
const numbers = new Intl.NumberFormat(language, { maximumFractionDigits: 4 });
const section = document.querySelector(".policy-preview");
const slider = document.querySelector("#target");
// The text as this page wrote it, last; nothing where it came back because it is wrong.
let shown = document.querySelector("#as-text ~ form .notice.bad") ? null : document.querySelector("#f-policy")?.defaultValue;

function slot(name) {
  return section.querySelector(`[data-slot="${name}"]`);
}

function say(name, text) {
  const at = slot(name);
  if (at) at.textContent = text;
}

function filled(text, values) {
  return text.replace(/%\((\w+)\)s/g, (_whole, name) => values[name] ?? "");
}

function percent(share) {
  return share === null || share === undefined ? "–" : percents.format(share);
}

function figure(outlook) {
  const found = outlook?.precision;
  return found ? `${percent(found.value)} (${percent(found.low)} – ${percent(found.high)})` : "–";
}

// As `Drawn` of policies.py: a square of 100 by 100, the precision upwards from `least`.
function draw(preview) {
  const plot = section.querySelector(".plot");
  if (!plot) return;
  const least = Number(plot.dataset.least);
  const y = (precision) => (100 * (1 - Math.max(precision - least, 0) / (1 - least))).toFixed(2);
  const dot = (outlook) => (outlook?.precision ? `M${(100 * outlook.coverage).toFixed(2)} ${y(outlook.precision.value)}h0` : "");
  slot("aim").setAttribute("d", preview.target === null ? "" : `M0 ${y(preview.target)}H100`);
  slot("now").setAttribute("d", dot(preview.now));
  slot("then").setAttribute("d", dot(preview.then));
}

function listChanged(changed) {
  const words = JSON.parse(section.dataset.changes);
  const template = document.querySelector("#changed-row");
  const rows = changed.map((one) => {
    const row = template.content.firstElementChild.cloneNode(true);
    const cells = row.children;
    const link = row.querySelector("a");
    const title = one.title || section.dataset.untitled;
    if (one.product_id) {
      link.href = `/listings/${encodeURIComponent(one.product_id)}`;
      link.textContent = title;
    } else {
      link.replaceWith(title);
    }
    const time = row.querySelector("time");
    time.dateTime = one.at;
    time.textContent = one.at;
    cells[1].textContent = words[one.change];
    cells[2].textContent = one.path_before ?? section.dataset.open;
    cells[3].textContent = one.path_after ?? section.dataset.open;
    cells[4].textContent = percent(one.confidence);
    return row;
  });
  slot("changed").replaceChildren(...rows);
  showTimes(slot("changed"));
  slot("changed-wrap").hidden = !rows.length;
  slot("unchanged").hidden = rows.length > 0;
  slot("pager")?.remove();
}

// What is saved: the policy as the page has it, with what the preview found. The text follows, unless somebody has
// written in it and not looked at it yet.
function keep(found) {
  const { promise, ...policy } = JSON.parse(document.querySelector("#save-form input[name=policy]").value);
  const kept = { ...policy, thresholds: found.thresholds ?? [0], ...(found.promise ? { promise: found.promise } : {}) };
  document.querySelector("#save-form input[name=policy]").value = JSON.stringify(kept);
  const text = document.querySelector("#f-policy");
  if (text.value === shown) {
    text.value = JSON.stringify(kept, null, 2);
    shown = text.value;
  }
  document.querySelector("#save-form [data-slot=same]").hidden = true;
}

function show(preview) {
  const data = section.dataset;
  const target = percent(preview.target);
  const thresholds = preview.policy.thresholds ?? [0];
  const then = preview.then;
  const reached = then && preview.reached;
  say("summary", filled(reached ? data.summary : data.none, {
    target,
    threshold: numbers.format(thresholds[0]),
    coverage: percent(then?.coverage),
    precision: percent(then?.precision?.value),
  }));
  const guess = preview.source === "labels" ? data.guessLabels : data.guessReport;
  say("promise", !reached ? "" : preview.promised ? data.promised : guess);
  slot("why").hidden = !preview.reason;
  say("reason", preview.reason ?? "");
  say("threshold", thresholds.map((one) => numbers.format(one)).join(" · "));
  say("precision", figure(then));
  say("coverage", percent(then?.coverage));
  say("recent", percent(preview.recent.coverage_then));
  for (const name of ["n_no_longer_decided", "n_newly_decided", "n_deeper", "n_higher"]) {
    say(name, numbers.format(preview.recent[name]));
  }
  draw(preview);
  listChanged(preview.recent.changed);
  keep(preview.policy);
}

if (section && slider) {
  const policy = JSON.parse(document.querySelector("#save-form input[name=policy]").value);
  let waiting = 0;
  let asking = null;

  const ask = async () => {
    asking?.abort();
    asking = new AbortController();
    const body = {
      name: section.dataset.policy,
      policy,
      precision: Number(slider.value) / 100,
      days: Number(section.dataset.days),
      limit: Number(section.dataset.limit),
    };
    if (section.dataset.source) body.source = section.dataset.source;
    try {
      const answer = await fetch("/v1/policies/preview", {
        method: "POST",
        headers: { "Content-Type": "application/json", Accept: "application/json" },
        body: JSON.stringify(body),
        signal: asking.signal,
      });
      const said = await answer.json();
      if (answer.ok) show(said);
      else say("summary", said.detail ?? section.dataset.failed);
    } catch (error) {
      if (error.name !== "AbortError") say("summary", section.dataset.failed);
    }
  };

  slider.addEventListener("input", () => {
    document.querySelector("#target-said").textContent = percent(Number(slider.value) / 100);
    clearTimeout(waiting);
    waiting = setTimeout(ask, WAIT_MS);
  });
  document.querySelector("#target-form").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    ask();
  });
  document.querySelector("#target-button").hidden = true;
}
