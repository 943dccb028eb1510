// The form to upload a feed: a file can be dropped on it, and one sees how much of it is there already. The file is
// sent as the body of /v1/uploads, as any program would send it.

const form = document.querySelector("[data-drop]");
const field = form?.querySelector("input[type=file]");
const bar = form?.querySelector("[data-drop-bar]");
const said = form?.querySelector("[data-drop-said]");

function say(text, bad = false) {
  said.textContent = text;
  said.className = bad ? "notice bad" : "";
}

function failed(detail) {
  bar.hidden = true;
  form.querySelector("button").disabled = false;
  say(`${form.dataset.failed} ${detail || ""}`.trim(), true);
}

function upload(file) {
  const request = new XMLHttpRequest();
  request.open("POST", `/v1/uploads?name=${encodeURIComponent(file.name.slice(-200))}`);
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.setRequestHeader("Accept", "application/json");
  request.responseType = "json";
  request.upload.addEventListener("progress", (event) => {
    if (!event.lengthComputable) return;
    bar.value = event.loaded / event.total;
    say(form.dataset.sending.replace("{n}", String(Math.floor(bar.value * 100))));
  });
  request.addEventListener("load", () => {
    const answer = request.response || {};
    if (request.status === 201) window.location.assign(`/feeds/uploads/${answer.id}`);
    else failed(answer.detail);
  });
  request.addEventListener("error", () => failed(form.dataset.again));
  bar.hidden = false;
  form.querySelector("button").disabled = true;
  request.send(file);
}

if (form) {
  form.querySelector("[data-drop-hint]").hidden = false;
  form.addEventListener("submit", (event) => {
    const file = field.files[0];
    if (!file) return;
    event.preventDefault();
    upload(file);
  });
  for (const kind of ["dragenter", "dragover"]) {
    form.addEventListener(kind, (event) => {
      event.preventDefault();
      form.classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) form.addEventListener(kind, () => form.classList.remove("over"));
  form.addEventListener("drop", (event) => {
    event.preventDefault();
    if (!event.dataTransfer.files.length) return;
    field.files = event.dataTransfer.files;
    form.requestSubmit();
  });
}
