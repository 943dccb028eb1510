// The form of a listing: there is always an empty row for one more attribute, and who leaves with words that are not
// saved is asked.

const rows = document.querySelector("[data-attributes]");
const form = document.getElementById("listing");

function addRow() {
  const all = rows.querySelectorAll(".attribute-row");
  const last = all[all.length - 1];
  if (!last || [...last.querySelectorAll("input")].every((input) => !input.value)) return;
  const row = last.cloneNode(true);
  for (const input of row.querySelectorAll("input")) {
    input.value = "";
    input.setAttribute("aria-label", input.getAttribute("aria-label").replace(/\d+/, String(all.length + 1)));
  }
  last.after(row);
}

rows?.addEventListener("input", addRow);

let changed = false;
let sent = false;
form?.addEventListener("input", () => { changed = true; });
form?.addEventListener("submit", () => { sent = true; });
window.addEventListener("beforeunload", (event) => {
  if (changed && !sent) event.preventDefault();
});
