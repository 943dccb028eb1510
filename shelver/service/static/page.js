// What every page does where scripts run: times in the reader's own zone, choices that send themselves,
// and a word where a browser cuts what is typed or pasted.

const language = document.documentElement.lang;
const format = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });

export function showTimes(within) {
  for (const time of within.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.textContent = format.format(at);
    time.title = at.toISOString();
  }
}

showTimes(document);

for (const form of document.querySelectorAll("form[data-sends-itself]")) {
  form.querySelector("button")?.setAttribute("hidden", "");
  form.addEventListener("change", () => form.requestSubmit());
}

const LONG = 200; // who fills a shorter field sees that it is full

document.addEventListener("input", ({ target }) => {
  if (!(target.maxLength >= LONG)) return;
  const next = target.nextElementSibling;
  const told = next?.matches("[data-told-full]") ? next : null;
  if (target.value.length < target.maxLength) {
    told?.remove();
    return;
  }
  if (told) return;
  const words = document.createElement("p");
  words.className = "hint";
  words.dataset.toldFull = "";
  words.setAttribute("role", "status");
  words.textContent = document.body.dataset.full.replace("{n}", new Intl.NumberFormat(language).format(target.maxLength));
  target.after(words);
});
