// Choosing a category: searched as one types, or looked for level by level. Upgrades every [data-picker] of the
// page (templates/picker.html). A choice is a checked radio button, told by the event `picker:choose`.

const WAIT_MS = 120;
const N_FOUND = 20;
const states = new WeakMap();

document.querySelectorAll("[data-picker]").forEach(upgrade);

export function upgrade(root) {
  if (states.has(root)) return;
  const input = root.querySelector("input[type=search]");
  const list = element("ul", { class: "picker-list", role: "listbox", id: `${input.id}-list` });
  list.setAttribute("aria-label", root.querySelector(`label[for="${input.id}"]`).textContent);
  list.hidden = true;
  const panel = element("div", { class: "picker-panel" });
  panel.hidden = true;
  const browse = root.querySelector("[data-picker-browse]");
  const state = { root, input, list, panel, browse, at: -1, found: [], timer: 0, asking: null };
  states.set(root, state);

  root.querySelector("[data-picker-plain]").hidden = true;
  root.querySelector("[data-picker-found]").replaceChildren(panel);
  root.querySelector(".picker-row").after(list);
  set(input, { role: "combobox", "aria-expanded": "false", "aria-controls": list.id, "aria-autocomplete": "list" });
  browse.type = "button";
  browse.setAttribute("aria-expanded", "false");

  input.addEventListener("input", () => {
    clearTimeout(state.timer);
    state.timer = setTimeout(() => search(state), WAIT_MS);
  });
  input.addEventListener("keydown", (event) => pressed(state, event));
  input.addEventListener("blur", () => setTimeout(() => close(state), 150));
  input.addEventListener("focus", () => state.found.length && input.value.trim() && open(state));
  // Before the field loses its focus, which would close the list.
  list.addEventListener("mousedown", (event) => event.preventDefault());
  list.addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]");
    if (option) take(state, Number(option.dataset.at));
  });
  browse.addEventListener("click", () => (panel.hidden ? look(state, null, true) : shut(state)));
}

export function focus(root) {
  states.get(root)?.input.focus();
}

export function clear(root) {
  root.querySelector("[data-picker-chosen]").replaceChildren();
}

// node: {node_id, path}.
export function choose(root, node) {
  const state = states.get(root);
  const radio = element("input", { type: "radio", name: root.dataset.picker, value: node.node_id });
  const label = element("label", { class: "choice" });
  label.append(radio, crumbs(node.path));
  root.querySelector("[data-picker-chosen]").replaceChildren(label);
  radio.checked = true;
  state.input.value = "";
  state.found = [];
  close(state);
  shut(state);
  say(state, root.dataset.chosen.replace("{name}", node.path.join(" › ")));
  const detail = { node_id: node.node_id, path: node.path };
  root.dispatchEvent(new CustomEvent("picker:choose", { bubbles: true, detail }));
}

async function search(state) {
  const asked = state.input.value.trim();
  state.asking?.abort();
  if (!asked) {
    state.found = [];
    close(state);
    say(state, "");
    return;
  }
  state.asking = new AbortController();
  try {
    const url = `/v1/taxonomy/search?${new URLSearchParams({ q: asked.slice(0, 200), n: N_FOUND })}`;
    const answer = await get(url, state.asking.signal);
    state.found = answer.nodes;
    state.list.replaceChildren(...answer.nodes.map((node, i) => option(state, node, i)));
    mark(state, answer.nodes.length ? 0 : -1);
    if (answer.nodes.length) open(state);
    else close(state);
    const { none, one, some } = state.root.dataset;
    const n = answer.nodes.length;
    say(state, n > 1 ? some.replace("{n}", n) : n ? one : none);
  } catch (error) {
    if (error.name !== "AbortError") say(state, state.root.dataset.failed);
  }
}

function pressed(state, event) {
  const isOpen = !state.list.hidden;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    if (!state.found.length) return;
    event.preventDefault();
    open(state);
    const step = event.key === "ArrowDown" ? 1 : -1;
    mark(state, isOpen ? (state.at + step + state.found.length) % state.found.length : 0);
  } else if (event.key === "Enter") {
    event.preventDefault(); // the form is not sent from here
    if (isOpen && state.at >= 0) take(state, state.at);
    else search(state);
  } else if (event.key === "Escape" && isOpen) {
    event.preventDefault();
    event.stopPropagation();
    close(state);
  }
}

function option(state, node, i) {
  const made = element("li", { role: "option", id: `${state.input.id}-${i}`, "aria-selected": "false" });
  made.dataset.at = i;
  made.append(crumbs(node.path));
  if (node.also) made.append(also(node.also)); // the same in the language that was typed
  return made;
}

function also(path) {
  const made = element("span", { class: "picker-also" });
  made.textContent = path.join(" › ");
  return made;
}

function mark(state, at) {
  state.at = at;
  [...state.list.children].forEach((one, i) => one.setAttribute("aria-selected", String(i === at)));
  const marked = state.list.children[at];
  if (!marked) return state.input.removeAttribute("aria-activedescendant");
  state.input.setAttribute("aria-activedescendant", marked.id);
  if (!state.list.hidden) marked.scrollIntoView({ block: "nearest" });
}

function take(state, at) {
  choose(state.root, state.found[at]);
}

function open(state) {
  state.list.hidden = false;
  state.input.setAttribute("aria-expanded", "true");
}

function close(state) {
  state.list.hidden = true;
  state.input.setAttribute("aria-expanded", "false");
  state.input.removeAttribute("aria-activedescendant");
}

// One level: the categories above to go back to, and those inside.
async function look(state, nodeId, first) {
  let here = null;
  let inside;
  try {
    if (nodeId === null) {
      inside = (await get("/v1/taxonomy")).roots;
    } else {
      here = await get(`/v1/taxonomy/nodes/${encodeURIComponent(nodeId)}`);
      inside = here.children;
    }
  } catch {
    say(state, state.root.dataset.failed);
    return;
  }
  const above = element("p", { class: "picker-above" });
  above.append(step(state, state.root.dataset.all, null, here === null));
  for (const one of here ? [...here.parents, here] : []) {
    above.append(" › ", step(state, one.name, one.node_id, one === here));
  }
  const parts = [above];
  if (here) {
    const own = element("button", { type: "button", class: "button" });
    own.textContent = state.root.dataset.choose.replace("{name}", here.name);
    own.addEventListener("click", () => chosen(state, here));
    parts.push(own);
  }
  const list = element("ul", { class: "picker-level" });
  for (const node of inside) {
    const item = element("li");
    const button = element("button", { type: "button" });
    button.textContent = node.is_leaf ? node.name : `${node.name} ›`;
    button.addEventListener("click", () => (node.is_leaf ? chosen(state, node) : look(state, node.node_id)));
    item.append(button);
    list.append(item);
  }
  state.panel.replaceChildren(...parts, list);
  state.panel.hidden = false;
  state.browse.setAttribute("aria-expanded", "true");
  if (!first) (list.querySelector("button") ?? above.querySelector("button")).focus();
}

function chosen(state, node) {
  choose(state.root, node);
  state.browse.focus();
}

function step(state, name, nodeId, isHere) {
  const button = element("button", { type: "button" });
  button.textContent = name;
  if (isHere) button.setAttribute("aria-current", "true");
  else button.addEventListener("click", () => look(state, nodeId));
  return button;
}

function shut(state) {
  state.panel.hidden = true;
  state.browse.setAttribute("aria-expanded", "false");
}

function say(state, words) {
  state.root.querySelector("[data-picker-status]").textContent = words;
}

export function crumbs(path) {
  const made = element("span", { class: "crumbs" });
  for (const name of path) {
    const part = element("span");
    part.textContent = name;
    made.append(part);
  }
  return made;
}

async function get(url, signal) {
  const answer = await fetch(url, { signal, headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
  return answer.json();
}

function element(name, attributes = {}) {
  const made = document.createElement(name);
  set(made, attributes);
  return made;
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}
