"use strict";
// The page works without this: it only opens and closes all answers at once and filters them by kind of prompt.
for (const tools of document.querySelectorAll("[data-tools]")) {
  const items = [...tools.parentElement.querySelectorAll("details.exchange")];
  const all = tools.querySelector("[data-open-all]");
  const kinds = [...tools.querySelectorAll("[data-kind]")];
  const shown = () => items.filter((item) => !item.hidden);
  tools.hidden = false;
  all.addEventListener("click", () => {
    const open = shown().some((item) => !item.open);
    for (const item of shown()) item.open = open;
    all.textContent = open ? "Fold all" : "Unfold all";
  });
  for (const button of kinds) {
    button.addEventListener("click", () => {
      for (const other of kinds) other.setAttribute("aria-pressed", String(other === button));
      for (const item of items) item.hidden = button.dataset.kind !== "" && item.dataset.kind !== button.dataset.kind;
      all.textContent = shown().some((item) => !item.open) ? "Unfold all" : "Fold all";
    });
  }
}
