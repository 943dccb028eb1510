// Who chooses a category for an answer means to correct it.

document.addEventListener("picker:choose", () => {
  const correct = document.querySelector("[data-correct]");
  if (correct) correct.checked = true;
});
