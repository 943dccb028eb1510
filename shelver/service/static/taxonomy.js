// The explorer of the tree: finds categories as one types. Without it the form does the same with its button.

const WAIT_MS = 120;
const N_FOUND = 30;
const form = document.querySelector(".tree-search");
const field = form?.querySelector("input[type=search]");

function filled(text, n) {
  return text.replace("%(n)s", new Intl.NumberFormat(document.documentElement.lang).format(n));
}

function show(nodes) {
  const template = form.querySelector("#tree-row");
  const list = form.querySelector(".tree-found");
  const kept = new URLSearchParams(new FormData(form));
  kept.delete("q");
  list.replaceChildren(...nodes.map((node) => {
    const row = template.content.firstElementChild.cloneNode(true);
    const link = row.querySelector("a");
    const query = new URLSearchParams(kept);
    query.set("node", node.node_id);
    link.href = `/taxonomy?${query}`;
    link.textContent = node.path.join(" › ");
    row.querySelector("span").textContent = node.also ? node.also.join(" › ") : "";
    return row;
  }));
  list.hidden = !nodes.length;
  form.querySelector("#tree-said").textContent = nodes.length ? filled(form.dataset.found, nodes.length) : form.dataset.none;
}

if (field) {
  let waiting = 0;
  let asking = null;
  const ask = async () => {
    asking?.abort();
    const words = field.value.trim();
    if (!words) {
      form.querySelector(".tree-found").hidden = true;
      form.querySelector("#tree-said").textContent = "";
      return;
    }
    asking = new AbortController();
    try {
      const answer = await fetch(`/v1/taxonomy/search?${new URLSearchParams({ q: words, n: N_FOUND })}`, {
        headers: { Accept: "application/json" },
        signal: asking.signal,
      });
      if (answer.ok) show((await answer.json()).nodes);
    } catch (error) {
      if (error.name !== "AbortError") form.querySelector("#tree-said").textContent = "";
    }
  };
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(ask, WAIT_MS);
  });
  // From the field into what was found.
  field.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown") return;
    const first = form.querySelector(".tree-found a");
    if (!first) return;
    event.preventDefault();
    first.focus();
  });
}
