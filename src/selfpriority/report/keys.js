// The keyboard in the browser of prompts, and the start of the page's script.

const listenToKeys = ({ root, list, rows, toggle, turn, search }) => {
  const move = (from, by) => {
    const all = rows();
    const target = all[Math.min(Math.max(all.indexOf(from) + by, 0), all.length - 1)];
    if (target) target.focus();
  };
  const inField = (element) => element.matches("input, select, textarea");
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/" && !inField(event.target)) {
      event.preventDefault();
      search.focus();
    }
  });
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === search && event.key === "ArrowDown") {
      event.preventDefault();
      move(null, 1);
      return;
    }
    const item = event.target.closest("#rows > li");
    const row = item?.querySelector("button.row");
    if (!row) return;
    if (event.key === "Escape") {
      toggle(row, false);
      row.focus();
    }
    if (event.target !== row) return;
    const steps = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity };
    if (event.key in steps) {
      event.preventDefault();
      move(row, steps[event.key]);
    }
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      event.preventDefault();
      turn(event.key === "ArrowRight" ? 1 : -1);
      list.querySelector("button.row")?.focus();
    }
  });
};

startBrowser().catch((error) => {
  const broken = document.getElementById("broken");
  if (!broken) throw error;
  broken.hidden = false;
  broken.textContent = `This browser cannot unpack the prompts (${error.message}). A current one can; \`spa show RUN --prompt ID\` shows them in a terminal.`;
});
